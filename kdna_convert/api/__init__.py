"""The public verbs, one file each. The CLI and the package root call these."""
