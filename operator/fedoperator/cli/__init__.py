"""The `fedtrain` command; each subcommand is a module that is imported when it is used."""
