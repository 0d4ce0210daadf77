"""`python -m kdna_convert` is `kdna`."""

from .cli.app import main

main()
