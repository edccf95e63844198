"""The commands, one file a noun. Each file makes a group that `cli.main` puts together."""
