"""Every example that is marked to be run is run as it is written, a page in one folder and one namespace.

The pages about extending put an entry into a table; the laws of that table are then held to the entry.
"""

from __future__ import annotations

import importlib.util
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import pytest
from support import documents
from support.command import kdna
from support.places import TESTS

from kdna_convert.codecs import CODECS
from kdna_convert.routing import ROUTINGS
from kdna_convert.schemes import SCHEMES
from kdna_convert.stages.repair import STEPS

MARKED = {
    path: marked
    for path, text in documents.pages().items()
    if (marked := [block for block in documents.blocks(text) if block.runs])
}
EXTENDING = documents.DOCS / "extending"


@pytest.fixture(autouse=True)
def _tables_and_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    with ExitStack() as stack:
        for table in (SCHEMES, ROUTINGS, CODECS, STEPS):
            stack.enter_context(patch.dict(table))
        yield
    sys.modules.pop("example", None)


def run(path: Path) -> ModuleType:
    """Run the examples of a page and return the module that its Python makes."""
    module = sys.modules["example"] = ModuleType("example")
    for block in MARKED[path]:
        if block.language == "python":
            exec(compile(block.text, documents.name_of(path), "exec", dont_inherit=True), vars(module))
            continue
        for line in block.text.splitlines():
            program, *arguments = shlex.split(line)
            assert program == "kdna"
            done = kdna(*arguments)
            assert done.exit_code == 0, f"{line}\n{done.output}"
    return module


def law(folder: str, name: str) -> Callable[..., None]:
    """A test of tests/FOLDER by its name, to be called with a case of its own."""
    path = next(path for path in sorted((TESTS / folder).glob("test_*.py")) if f"def {name}(" in path.read_text())
    spec = importlib.util.spec_from_file_location(f"laws_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    test: Callable[..., None] = getattr(module, name)
    return test


@pytest.mark.parametrize("path", [path for path in MARKED if path.parent != EXTENDING], ids=documents.name_of)
def test_a_marked_example_runs(path: Path) -> None:
    run(path)


def test_the_scheme_of_the_page_obeys_the_laws_and_converts_a_net() -> None:
    laws = [
        law("schemes", name)
        for name in (
            "test_expand_has_the_kernels_shape_and_the_tensors_dtype",
            "test_fit_recovers_a_kernel_that_is_in_the_family",
            "test_the_layout_is_what_is_stored_at_every_size",
            "test_gradients_reach_every_tensor",
            "test_the_limit_is_the_last_size_that_stores_no_more_than_dense",
            "test_a_seed_decides_everything",
        )
    ]
    scheme = run(EXTENDING / "scheme.md").MeanLowRank
    for shapes in ([(6, 4, 3, 3)] * 3, [(6, 5, 1, 1)] * 2, [(6, 5)] * 2):
        for check in laws:
            check(scheme(rank=2), shapes)


def test_the_routing_of_the_page_obeys_the_laws_and_is_trained() -> None:
    laws = [
        law("routing", name)
        for name in (
            "test_at_step_0_the_output_is_the_static_layers",
            "test_gradients_reach_every_parameter_within_a_few_steps_of_one_image_each",
            "test_what_is_stored_is_known_before_it_is_built",
            "test_every_image_is_routed_by_itself",
            "test_every_form_gives_the_same",
        )
    ]
    routing = run(EXTENDING / "routing.md").Loudness
    for kind in ("conv1d", "conv2d", "depthwise", "linear", "tokens"):
        for check in laws:
            check(routing(), kind)


def test_the_codec_of_the_page_obeys_the_laws_and_codes_a_net() -> None:
    run(EXTENDING / "codec.md")
    for scale in (1e-30, 1.0, 1e30):
        law("codecs", "test_every_number_comes_back_within_the_codecs_bound")("int16", scale)
    for name in (
        "test_no_tensors_take_no_bytes",
        "test_zeros_come_back_as_zeros",
        "test_a_stream_of_another_length_is_refused",
    ):
        law("codecs", name)("int16")


def test_the_repair_step_of_the_page_lowers_the_divergence() -> None:
    page = run(EXTENDING / "repair-step.md")
    assert page.after.kl < page.before.kl


def test_the_pages_that_a_reader_copies_from_are_marked() -> None:
    marked = {documents.name_of(path) for path in MARKED}
    extending = {documents.name_of(path) for path in EXTENDING.glob("*.md") if path.stem != "index"}
    assert {"README.md", "docs/tutorial.md", *extending} == marked
