"""The report of a training, from records that are written here."""
