"""The commands of `kdna`, a file for each kind. A command parses, calls one stage, prints one report."""
