"""`python -m kdna_convert` is `kdna`."""

from .cli import main

main()
