"""The commands of `kdna`, one file per command. A command parses, calls one stage, prints one report."""
