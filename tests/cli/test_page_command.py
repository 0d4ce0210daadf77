"""`kdna report`, and `--html` of the commands that measure: where pages are written, and what they may replace."""

import json
import shutil
from pathlib import Path

import pytest
from support.command import NET, convert, kdna
from support.pages import Reader


@pytest.fixture
def own(folder: Path, tmp_path: Path) -> Path:
    """A copy of the converted folder."""
    return Path(shutil.copytree(folder, tmp_path / "own"))


def test_a_conversion_leaves_a_page_in_its_folder(folder: Path) -> None:
    reader = Reader((folder / "report.html").read_text(encoding="utf-8"))
    assert all(heading in reader.text for heading in ("What came out", "The layers", "Other budgets", "kdna convert"))


def test_the_page_is_no_part_of_what_is_verified(own: Path) -> None:
    (own / "report.html").write_text("another page")
    assert kdna("verify", own, "-q").exit_code == 0
    (own / "report.html").unlink()
    assert kdna("verify", own, "-q").exit_code == 0


def test_a_report_replaces_the_page_of_the_folder_and_no_other_file(own: Path, tmp_path: Path) -> None:
    (own / "report.html").write_text("old")
    done = kdna("report", own, "--json")
    assert json.loads(done.stdout) == {"file": str(own / "report.html"), "bytes": (own / "report.html").stat().st_size}
    assert (own / "report.html").read_text(encoding="utf-8") != "old"
    (tmp_path / "mine.html").write_text("mine")
    refused = kdna("report", own, "-o", tmp_path / "mine.html")
    assert "KD601" in refused.stderr
    assert (tmp_path / "mine.html").read_text() == "mine"
    assert kdna("report", own, "-o", tmp_path / "mine.html", "--force").exit_code == 0


def test_a_report_of_what_is_no_converted_folder_says_so(tmp_path: Path) -> None:
    assert "KD602" in kdna("report", tmp_path).stderr
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("command", "heading"),
    [
        (["bench", "FOLDER", "--rounds", "3"], "How fast it is"),
        (["plan", NET, "--data", "IMAGES", "--target-params", "0.6", "--set", "calibration.images=30"], "The layers"),
        (["plan", NET, "--data", "IMAGES", "--curve", "--set", "calibration.images=30"], "Other budgets"),
        (["finetune", "FOLDER", "--data", "IMAGES", "--steps", "2", "-o", "OUT"], "Fine-tune"),
    ],
    ids=lambda value: "-".join(value[:1]) if isinstance(value, list) else "",
)
def test_a_result_is_written_as_a_page_too(
    command: list[str], heading: str, own: Path, images: Path, tmp_path: Path
) -> None:
    places = {"FOLDER": own, "IMAGES": images, "OUT": tmp_path / "out"}
    words = [places.get(word, word) for word in command]
    target = tmp_path / "page.html"
    done = kdna(*words, "--html", target)
    assert done.exit_code == 0, done.stderr
    reader = Reader(target.read_text(encoding="utf-8"))
    assert heading in reader.text
    assert f"kdna {command[0]}" in reader.text
    assert str(target) in done.stderr


def test_the_page_of_a_run_is_left_in_its_folder_and_where_it_was_asked_for(images: Path, tmp_path: Path) -> None:
    words = ["run", "balanced", NET, *convert(images)[2:], "-o", tmp_path / "out", "--html", tmp_path / "page.html"]
    done = kdna(*words)
    assert done.exit_code == 0, done.stderr
    for place in (tmp_path / "out" / "report.html", tmp_path / "page.html"):
        assert "What came out" in place.read_text(encoding="utf-8")


def test_a_comparison_that_was_asked_for_and_cannot_be_made_is_an_error(
    own: Path, images: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "another user"))
    refused = kdna("report", own, "--data", images, "-o", tmp_path / "page.html")
    assert refused.exit_code == 2
    assert "KD611" in refused.stderr
    assert not (tmp_path / "page.html").exists()
    told = kdna("report", own, "-o", tmp_path / "page.html")
    assert told.exit_code == 0
    assert "parts were left out: KD611" in told.stderr


def test_images_that_were_skipped_are_told(own: Path, images: Path, tmp_path: Path) -> None:
    shutil.copytree(images, tmp_path / "images")
    (tmp_path / "images" / "class0" / "broken.png").write_text("no image")
    done = kdna("report", own, "--data", tmp_path / "images", "-q")
    assert done.exit_code == 0, done.stderr
    assert "1 image was skipped" in done.stderr
