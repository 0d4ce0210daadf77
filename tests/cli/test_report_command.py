"""The command `report` with images."""

import json
import re
from pathlib import Path

from support.command import kdna as command

SECTION = re.compile(r'<section id="answers".*?</section>', re.DOTALL)


def test_the_command_takes_images_and_leaves_them_out(folder: Path, images: Path, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    done = command("report", folder, "--data", images, "--limit", "8", "--no-images", "-o", file, "--json", "-q")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["bytes"] == file.stat().st_size
    own = SECTION.findall(file.read_text("utf-8"))[0]
    assert "On 8 inputs with labels" in own
    assert "data:image" not in own
    missing = command("report", folder, "--data", tmp_path / "nothing", "-o", tmp_path / "other.html", "-q")
    assert missing.exit_code == 2
    assert "KD401" in missing.stderr
    assert not (tmp_path / "other.html").exists()
