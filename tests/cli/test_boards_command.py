"""`kdna plan` and `kdna convert` for a board: the options, the report, and what is refused."""

import json
from pathlib import Path

import pytest
from support.command import FEW_IMAGES, NET, convert, kdna

from kdna_convert.inputs.boards import bundled_boards

BOARD = ("--board", "nucleo-l4r5zi")


def plan(images: Path, *options: object) -> list[object]:
    return ["plan", NET, "--data", images, *FEW_IMAGES, "--recipe", "shared-cp", *options]


def test_the_bundled_boards_are_listed() -> None:
    assert json.loads(kdna("ls", "boards", "--json").stdout) == list(bundled_boards())
    assert "Cortex-M33, 160 MHz" in " ".join(kdna("ls", "boards").stdout.split())


def test_a_plan_within_limits_shows_what_it_takes_of_each(images: Path) -> None:
    done = kdna(*plan(images, *BOARD, "--max-latency", "0.7", "--max-flash", "5kB", "--max-peak-memory", "4kB"))
    assert done.exit_code == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if "estimate" in line]
    assert [row[: row.index("estimate")] for row in rows] == [["flash,"], ["latency,"], ["peak", "memory,"]]
    assert all("of" in row for row in rows)
    assert "on nucleo-l4r5zi in int8, for one image:" in done.stdout


def test_limits_of_size_need_no_board(images: Path) -> None:
    done = kdna(*plan(images, "--max-flash", "5kB", "--json"))
    assert done.exit_code == 0, done.stderr
    board = json.loads(done.stdout)["board"]
    assert (board["board"], board["arithmetic"]) == (None, "int8")
    assert board["limits"][0]["used"] <= 5000 == board["limits"][0]["allowed"]


def test_a_net_that_keeps_the_limits_is_left_as_it_is(images: Path) -> None:
    done = kdna(*plan(images, *BOARD))
    assert "The net keeps these limits as it is: no layer is converted." in done.stdout


def test_a_conversion_records_the_limits_that_its_plan_keeps(images: Path, tmp_path: Path) -> None:
    command = [part for part in convert(images) if part not in ("--target-params", "0.6")]
    done = kdna(*command, "--recipe", "shared-cp", *BOARD, "--max-latency", "0.7", "-o", tmp_path / "out", "-q")
    assert done.exit_code == 0, done.stderr
    latency = json.loads((tmp_path / "out" / "plan.json").read_text())["board"]["limits"][1]
    assert latency["used"] <= latency["allowed"] == int(0.7 * latency["original"])


def test_a_plan_that_is_written_is_converted_without_its_limits(images: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    done = kdna(*plan(images, *BOARD, "--max-latency", "0.7", "-o", file))
    following = next(line for line in done.stderr.splitlines() if line.startswith("next"))
    assert "--plan" in following
    assert "--max-latency" not in following
    assert "--board" not in following
    again = kdna("convert", NET, "--data", images, *FEW_IMAGES, "--plan", file, "--dry-run", "--json", "-q")
    assert json.loads(again.stdout)["board"] == json.loads(file.read_text())["board"]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--max-latency", "5ms"), 2, "KD506: a limit of latency needs a board"),
        (("--board", "nucleo"), 2, "KD511: no bundled board 'nucleo'"),
        (("--board", "nucleo-h7a3zi-q", "--arithmetic", "fp32"), 2, "KD511: the profile of nucleo-h7a3zi-q has no"),
        (("--max-flash", "much"), 2, "is not a size"),
        (("--max-peak-memory", "10"), 2, "KD501: --max-peak-memory 10 bytes cannot be met: layer"),
        ((*BOARD, "--curve"), 2, "takes no limits of a board"),
        ((*BOARD, "--set", "routing=se"), 2, "KD203: the recipe has a routing"),
    ],
)
def test_what_cannot_be_planned_for_a_board_is_refused(
    images: Path, options: tuple[str, ...], code: int, message: str
) -> None:
    done = kdna(*plan(images, *options))
    assert done.exit_code == code
    assert message in " ".join(done.stderr.replace("│", " ").split())
