"""Fixtures for all tests: golden terminal output, the tiny net's images and folder, and ../shared/data if it exists."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"
SHARED_DATA = Path(os.environ.get("KDNA_TEST_DATA") or Path(__file__).parent.parent.parent / "shared" / "data")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regen", action="store_true", help="rewrite tests/golden/*.txt with what is printed now")


@pytest.fixture(scope="session", autouse=True)
def configuration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory for what kdna keeps per user, also for subprocesses: tests leave the real one alone."""
    place = tmp_path_factory.mktemp("configuration")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(place))
        yield place


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """golden(name, text): text is what tests/golden/<name>.txt holds, to the character."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / f"{name}.txt"
        if request.config.getoption("--regen"):
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8"), f"{path.name} differs; `pytest --regen` rewrites it"

    return check


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real nets and images; a test that asks for it is skipped where it is not there."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs real nets and images: {SHARED_DATA} is not there, and KDNA_TEST_DATA names no other place")
    return SHARED_DATA


@pytest.fixture(scope="module")
def quick_predictions() -> Iterator[None]:
    """Predicted errors of plans from short fits at two sizes, for laws that do not depend on how good they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kdna_convert.stages.plan.database.QUICK", 2)
        patch.setattr("kdna_convert.schemes.Scheme.probes", (0.0, 0.75))
        yield


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty images of noise in five class folders, for the tiny net."""
    import torch
    from PIL import Image

    folder = tmp_path_factory.mktemp("images")
    noise = torch.Generator().manual_seed(0)
    for number in range(60):
        place = folder / f"class{number % 5}" / f"{number:02}.png"
        place.parent.mkdir(exist_ok=True)
        pixels = torch.randint(0, 255, (16, 16, 3), generator=noise, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(place)
    return folder


@pytest.fixture(scope="session")
def folder(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny net, converted by the command line. Not to be changed: copy it."""
    from support.command import convert, kdna

    out = tmp_path_factory.mktemp("converted") / "out"
    done = kdna(*convert(images), "-o", out)
    assert done.exit_code == 0, done.stderr
    return out
