"""The YAML files that come with kdna: recipes and device profiles."""

from __future__ import annotations

from pathlib import Path


def bundled_files(folder: str) -> dict[str, Path]:
    """The bundled files of a folder by name: inside the package when installed, beside it in a checkout."""
    root = Path(__file__).parents[1]
    found = next((path for path in (root / folder, root.parent / folder) if path.is_dir()), root)
    return {path.stem: path for path in sorted(found.glob("*.yaml"), key=lambda path: path.stem)}
