"""Device profiles: the bundled ones are complete, and what is wrong is refused with its line."""

from pathlib import Path

import pytest

from kdna_convert.core.errors import PlanError
from kdna_convert.inputs.boards import Board, bundled_boards, load_board, parse_board

CYCLES = "".join(
    f"  {kind}: {{value: 2, source: measured}}\n" for kind in ("convolution", "depthwise", "pointwise", "linear")
)
BOARD = f"""name: mine
summary: My board
estimate: true
clock: {{value: 80e6, source: data sheet}}
ram: {{value: 128KiB, source: data sheet}}
int8:
{CYCLES}"""


@pytest.mark.parametrize("name", bundled_boards())
def test_a_bundled_profile_has_the_name_of_its_file_and_a_source_of_every_figure(name: str) -> None:
    board = load_board(name)
    assert board.name == name
    assert board.arithmetics
    figures = [figure for figure in (board.clock, board.ram, board.flash, board.code, board.work) if figure]
    for arithmetic in board.arithmetics:
        own = board.cycles(arithmetic)
        figures += [own.convolution, own.depthwise, own.pointwise, own.linear]
    assert all(len(figure.source) > 8 for figure in figures)


def test_the_profiles_of_three_cores_and_of_two_machines_are_bundled() -> None:
    boards = {"amd-epyc-core", "nucleo-h7a3zi-q", "nucleo-l4r5zi", "nucleo-u575zi-q", "raspberry-pi-4"}
    assert {*bundled_boards()} == boards


def test_a_profile_gives_sizes_in_bytes_and_cycles_by_kind(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(BOARD)
    board = load_board(file)
    assert (board.clock.value, board.ram and board.ram.value, board.flash) == (80e6, 131_072, None)
    assert board.cycles("int8").per_mac("depthwise") == 2.0
    assert board.cycles("int8").per_layer == 0.0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (BOARD.replace("80e6", "0"), "mine line 4: clock.value: must be greater than 0"),
        (BOARD.replace("source: data sheet}\nint8", "source: ''}\nint8"), "mine line 5: ram.source"),
        (BOARD.replace("128KiB", "lots"), "mine line 5: ram.value: 'lots' is not a size"),
        (BOARD.replace("estimate: true", "estimate: false"), "mine line 3: estimate"),
        (BOARD + "speed: 3\n", "mine line 11: speed"),
        (BOARD.replace("  linear", "  lineer"), "int8"),
        (BOARD[: BOARD.index("int8")], "has neither int8 nor fp32"),
        ("a: b: c", "mine line 1"),
        ("3", "mine"),
    ],
)
def test_what_is_wrong_with_a_profile_is_named_with_its_line(wrong: str, message: str) -> None:
    with pytest.raises(PlanError, match="KD511") as refused:
        parse_board(wrong, name="mine")
    assert message in refused.value.message


def test_an_unknown_board_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="did you mean 'nucleo-l4r5zi'"):
        load_board("nucleo-l4r5")
    with pytest.raises(PlanError, match="there is no device profile"):
        load_board(tmp_path / "none.yaml")


def test_an_arithmetic_without_figures_is_refused() -> None:
    board = parse_board(BOARD)
    assert isinstance(board, Board)
    with pytest.raises(PlanError, match="mine has no cycles of fp32; it has those of int8"):
        board.cycles("fp32")
