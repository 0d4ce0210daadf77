"""The parts of pages, one file each."""
