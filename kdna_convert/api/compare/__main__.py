"""`python -m kdna_convert.api.compare FOLDER`: what child.py starts."""

import sys
from pathlib import Path

from .worker import main

main(Path(sys.argv[1]))
