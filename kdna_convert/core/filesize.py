"""The exact size of a safetensors file, computed before any tensor exists.

A file holds the length of the header (8 bytes), a JSON header padded with spaces to a multiple of 8, and the tensors
(https://github.com/huggingface/safetensors#format). This file imports neither torch nor safetensors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from math import prod

from .specs import ModelRef, TensorSpec

FORMAT_VERSION = 1

# Bytes of one element. A file holds its tensors in this order of dtypes, then by name.
ITEM_BYTES = {
    "U64": 8,
    "I64": 8,
    "F64": 8,
    "C64": 8,
    "F32": 4,
    "U32": 4,
    "I32": 4,
    "BF16": 2,
    "F16": 2,
    "U16": 2,
    "I16": 2,
    "F8_E5M2FNUZ": 1,
    "F8_E4M3FNUZ": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}
_ORDER = {dtype: place for place, dtype in enumerate(ITEM_BYTES)}


def metadata(model: ModelRef, recipe: str) -> dict[str, str]:
    """The metadata of a converted file. `recipe` is the text of the recipe as given."""
    return {
        "format": "pt",
        "kdna": str(FORMAT_VERSION),
        "base_model": model.name,
        "base_sha256": model.sha256,
        "recipe_sha256": hashlib.sha256(recipe.encode()).hexdigest(),
    }


def header(specs: Sequence[TensorSpec], metadata: Mapping[str, str]) -> bytes:
    """The bytes of the file before its tensors, with the keys of the metadata sorted (safetensors shuffles them)."""
    entries: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    start = 0
    for spec in sorted(specs, key=lambda spec: (_ORDER[spec.dtype], spec.name)):
        end = start + data_size(spec)
        entries[spec.name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def data_size(spec: TensorSpec) -> int:
    """Bytes of the data of one tensor, without its entry in the header."""
    return prod(spec.shape) * ITEM_BYTES[spec.dtype]


def file_size(specs: Sequence[TensorSpec], metadata: Mapping[str, str]) -> int:
    """Bytes of the file that `safetensors.torch.save_file` writes for these tensors, header included."""
    return len(header(specs, metadata)) + sum(map(data_size, specs))
