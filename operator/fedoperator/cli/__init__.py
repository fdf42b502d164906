"""The `fedtrain` command; each subcommand is a module that imports what is heavy when used."""
