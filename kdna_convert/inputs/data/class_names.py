"""The names of classes as a reader knows them: of the user's map or folders, or of the net."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from .sources import Classes

_SYNSET = re.compile(r"n\d{8}")


def class_names(classes: Classes, carried: Any = None) -> Mapping[int, str]:
    """Names by number; empty where none are known. Synsets of WordNet, as ImageNet's folders have, become words.

    Args:
        classes: The number of each class, by the user's map or folders.
        carried: `label_names` that the net carries, used for other numbers.
    """
    listed = carried if isinstance(carried, list | tuple) else ()
    names = {number: str(name) for number, name in enumerate(listed)} | {
        number: name for name, number in classes.items()
    }
    return _in_words(names) if any(_SYNSET.fullmatch(name) for name in names.values()) else names


def _in_words(names: Mapping[int, str]) -> dict[int, str]:
    """Synsets by their first word, with the synset where two have the same."""
    from timm.data.imagenet_info import ImageNetInfo

    known: Any = ImageNetInfo("imagenet-22k").label_descriptions(as_dict=True)
    words = {number: str(known[name]).split(",")[0] for number, name in names.items() if name in known}
    often = Counter(words.values())
    return {
        number: name if number not in words else words[number] + (f" ({name})" if often[words[number]] > 1 else "")
        for number, name in names.items()
    }
