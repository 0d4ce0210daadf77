"""Altered folders of every kind: each is refused by a KdnaError, or it loads and runs. `make fuzz` runs more cases."""

from pathlib import Path

import pytest
from support.folder_fuzz import breach, case

CASES, PARTS = 2000, 8


@pytest.mark.parametrize("part", range(PARTS))
def test_an_altered_folder_is_refused_or_runs(part: int, tmp_path: Path) -> None:
    for seed in range(part * CASES // PARTS, (part + 1) * CASES // PARTS):
        folder, steps, agree = case(seed, tmp_path)
        assert breach(seed, folder, agree) is None, f"seed {seed}, {folder.name}: {steps}"
