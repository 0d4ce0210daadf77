"""The laws that every peer of `kdna compare` obeys. That it keeps to its budget is in test_compare.py."""

import ast
import re
from pathlib import Path
from typing import get_args

import pytest

from kdna_convert.api.compare import PEERS
from kdna_convert.api.compare import tools as tools_package
from kdna_convert.core.comparison import Axis

TOOLS = Path(tools_package.__file__).parent
PROJECT = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
every_peer = pytest.mark.parametrize("name", PEERS)


def defines(path: Path) -> dict[str, list[str]]:
    """The functions of a module and their arguments, read without its libraries."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return {node.name: [one.arg for one in node.args.args] for node in body if isinstance(node, ast.FunctionDef)}


@every_peer
def test_a_peers_module_compresses_a_net(name: str) -> None:
    path = TOOLS / f"{PEERS[name].tool.__name__}.py"
    assert defines(path)["compress"] == ["net", "images", "tool_run"]


@every_peer
def test_an_installed_peer_opens_its_module(name: str) -> None:
    if PEERS[name].missing:
        pytest.skip(str(PEERS[name].missing))
    assert callable(PEERS[name].tool().compress)


@every_peer
def test_a_peer_that_needs_a_library_says_how_to_install_it(name: str) -> None:
    peer = PEERS[name]
    extras = re.search(r"kdna-convert\[(.+)\]", peer.install)
    assert extras
    assert all(re.search(rf"^{extra} = \[", PROJECT, re.MULTILINE) for extra in extras[1].split(","))
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).split(".")[0]
        for node in ast.walk(ast.parse((TOOLS / f"{peer.tool.__name__}.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and node.module and not node.level)
    }
    assert set(peer.needs) >= imported & {"aimet_torch", "nncodec", "onnxruntime", "tltorch", "torch_pruning"}


def test_titles_and_budgets_tell_the_peers_apart() -> None:
    assert len({peer.title for peer in PEERS.values()}) == len(PEERS)
    assert all(set(peer.axes) <= set(get_args(Axis)) for peer in PEERS.values())
    assert {axis for peer in PEERS.values() for axis in peer.axes} == set(get_args(Axis))


def test_every_module_of_tools_is_a_peers() -> None:
    modules = {path.stem for path in TOOLS.glob("[!_]*.py") if "compress" in defines(path)}
    assert modules == {peer.tool.__name__ for peer in PEERS.values()}
