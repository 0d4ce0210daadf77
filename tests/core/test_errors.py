"""Error codes: the table and the code agree, and every entry is a sentence for the user."""

import pickle
import re

import pytest
from support.places import ROOT

from kdna_convert.core.errors import CODES, GuardError, KdnaError, RecipeError, reason_of

TABLE = ROOT / "kdna_convert" / "core" / "errors.py"


def test_every_code_in_the_package_has_an_entry_and_every_entry_is_used() -> None:
    plugins = (ROOT / "docs" / "extending").glob("*.md")  # codes for steps and routings that users write
    sources = [*plugins, *(path for path in (ROOT / "kdna_convert").rglob("*.py") if path != TABLE)]
    used = {code for path in sources for code in re.findall(r"KD\d{3}", path.read_text(encoding="utf-8"))}
    assert used == set(CODES)


def test_what_pydantic_says_is_shown_in_our_words() -> None:
    """`reason_of` strips its prefixes, and nothing else reads its messages."""
    assert reason_of({"msg": "Value error, Set one of them"}) == "set one of them"
    assert reason_of({"msg": "Input should be less than 1"}) == "must be less than 1"
    package = (path for path in (ROOT / "kdna_convert").rglob("*.py") if path != TABLE)
    assert [path.name for path in package if re.search(r"""\[["']msg["']\]""", path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("code", CODES)
def test_an_entry_is_a_few_sentences_on_one_line(code: str) -> None:
    text = CODES[code]
    assert "\n" not in text
    assert text.endswith(".")
    assert text[0].isupper() or text[0] == "`"
    assert len(text) <= 240


@pytest.mark.parametrize("kind", [RecipeError, GuardError])
def test_an_error_can_be_pickled(kind: type[KdnaError]) -> None:
    error = pickle.loads(pickle.dumps(kind("KD201", "line 3: unexpected indent")))
    assert type(error) is kind
    assert (error.code, error.message, str(error)) == (
        "KD201",
        "line 3: unexpected indent",
        "KD201: line 3: unexpected indent",
    )
