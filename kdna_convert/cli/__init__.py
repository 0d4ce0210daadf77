"""The command line: one file a command, one file a report."""
