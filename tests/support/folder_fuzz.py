"""Altered copies of a converted folder, one from each seed: what a stranger or a bad disk may hand to `load`.

Run it for long by `make fuzz`: `python tests/support/folder_fuzz.py --cases 50000 --seed 0`. It stops at the first case
that breaks the law and prints its seed; the same seed makes the same case again.
"""

from __future__ import annotations

import argparse
import copy
import functools
import hashlib
import json
import random
import sys
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import safetensors.torch
import torch
from safetensors import SafetensorError
from support.places import TESTS
from support.tiny import net

from kdna_convert.api.verify import verify
from kdna_convert.core.errors import KdnaError
from kdna_convert.network.folder import load, open_folder
from kdna_convert.network.folder.record import CARD, CONFIG, FILES, PLAN, REPORT, TENSORS, _own_digest

FOLDERS = sorted(path for path in (TESTS / "folders").iterdir() if path.is_dir())
# What JSON can hold in the place of any value. Strings of the second list are written as they are.
_VALUES: list[Any] = [None, True, False, 0, 1, -1, 2, 7, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308, "", "0", "x" * 300]
_VALUES += ["\x00", "\ud800", "../x", "[bold]", "\x1b[31m", [], [0], [[]], {}, {"a": {}}, [1] * 40]
_RAW = ["NaN", "-Infinity", "1e999", "9" * 5000, "[" * 5000, '{"a":' * 3000, "[" * 300 + "]" * 300, '"\\ud800"']
_MARK = "kdna-raw-value"
_DTYPES = ["F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL", "U32", "C64", "F8_E4M3", "F4", "", "?"]


def case(seed: int, into: Path) -> tuple[Path, str, bool]:
    """An altered copy of one of the folders of tests/folders, in `into`.

    Returns:
        The folder, what was done to it, and whether its sums were made to agree.
    """
    rng = random.Random(seed)
    source = FOLDERS[seed % len(FOLDERS)]
    folder = into / source.name
    folder.mkdir(exist_ok=True)
    for name, data in _originals(source).items():
        if not (folder / name).exists() or (folder / name).read_bytes() != data:
            (folder / name).write_bytes(data)
    steps = [_alter(folder, rng) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
    agree = rng.random() < 0.85
    if agree:
        reseal(folder)
    return folder, "; ".join(steps), agree


def breach(seed: int, folder: Path, agree: bool) -> str | None:
    """How this folder breaks the law, or None: it is refused by a KdnaError, or it loads and runs."""
    whole = not agree and _is_whole(folder)
    model = None if folder.name == "digits" else net()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if seed % 40 == 1:
                verify(folder, model=model, trust_code=True)
                return None
            folded = not seed % 3
            loaded = load(folder, folded=True, model=model) if folded else open_folder(folder, model=model).model
            with torch.no_grad():
                dtype = next(loaded.parameters()).dtype
                loaded(torch.zeros(1, 1 if folder.name == "digits" else 3, 8, 8, dtype=dtype))
    except KdnaError as error:
        stale = ("KD602", "KD603", "KD605")
        return None if agree or whole or error.code in stale else f"refused by {error.code}, not by the sums"
    except Exception as error:  # noqa: BLE001 - this is what is looked for
        return f"{type(error).__name__}: {error}"
    return None if agree or whole else "loaded with sums that do not agree"


def reseal(folder: Path) -> None:
    """Make the sums of config.json agree with the files, where it still has a record."""
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        block = config["kdna"]
        block["files"] |= {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES}
        block["sha256"] = _own_digest(config)
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return
    (folder / CONFIG).write_text(json.dumps(config))


@functools.cache
def _originals(source: Path) -> dict[str, bytes]:
    return {name: (source / name).read_bytes() for name in (CONFIG, *FILES)}


def _is_whole(folder: Path) -> bool:
    """Whether load sees no difference: only the model card or the layout of config.json changed, or nothing."""
    originals = _originals(TESTS / "folders" / folder.name)
    same = all((folder / name).read_bytes() == originals[name] for name in FILES if name != CARD)
    try:
        return same and json.loads((folder / CONFIG).read_bytes()) == json.loads(originals[CONFIG])
    except (ValueError, RecursionError):
        return False


def _alter(folder: Path, rng: random.Random) -> str:
    name = rng.choice([TENSORS, TENSORS, TENSORS, PLAN, PLAN, PLAN, CONFIG, REPORT, *FILES])
    path = folder / name
    ways: list[Callable[[bytes, random.Random], bytes]] = [changed_bytes]
    if name.endswith(".json"):
        ways = [_json_changed] * 6 + [changed_bytes]
    elif name == TENSORS:
        ways = [_header_changed, _header_changed, _tensors_changed, _tensors_changed, changed_bytes, _data_changed]
        if folder.name == "coded":
            ways = [_index_changed] * 4 + [_streams_changed] * 2 + [_header_changed, changed_bytes]
    way = rng.choice(ways)
    try:
        changed = way(path.read_bytes(), rng)
    except (ValueError, LookupError, RuntimeError, TypeError, AttributeError, zlib.error, SafetensorError):
        changed = changed_bytes(path.read_bytes(), rng)  # an earlier change left nothing to change in this way
    path.write_bytes(changed)
    return f"{name}{way.__name__}"


def changed_bytes(data: bytes, rng: random.Random) -> bytes:
    """The bytes cut short, or with some of them removed, replaced, inserted or doubled."""
    place, length = rng.randrange(len(data) + 1), rng.choice((1, 1, 2, 8, 100))
    junk = rng.randbytes(length)
    return rng.choice(
        (
            data[:place],
            data[:place] + data[place + length :],
            data[:place] + junk + data[place + length :],
            data[:place] + junk + data[place:],
            data[:place] + data[max(place - length, 0) :],
            data + junk,
        )
    )


def _json_changed(data: bytes, rng: random.Random) -> bytes:
    return changed_json(json.loads(data), rng)


def changed_json(document: Any, rng: random.Random) -> bytes:
    """The document with one of its values changed, as JSON."""
    places = list(_places(document))
    holder, key = rng.choice(places)
    value, raw = holder[key], None
    way = rng.randrange(9)
    if way == 0:
        del holder[key]
    elif way == 1:
        holder[key], raw = _MARK, rng.choice(_RAW)
    elif way == 2 and isinstance(value, int | float):
        holder[key] = rng.choice((value + 1, value - 1, value * 2, -value, value * 10**6, value / 2))
    elif way == 3 and isinstance(value, list) and value:
        rng.choice((lambda: value.append(copy.deepcopy(value[0])), value.reverse, value.pop, value.clear))()
    elif way == 4:
        other, place = rng.choice(places)
        holder[key], other[place] = copy.deepcopy(other[place]), copy.deepcopy(value)
    elif way == 5 and isinstance(holder, dict):
        holder[rng.choice(("x", "", "kdna", "__class__", "rank", key + " "))] = holder.pop(key)
    elif way == 6 and isinstance(holder, dict):
        holder["more"] = value
    else:
        holder[key] = copy.deepcopy(rng.choice(_VALUES))
    text = json.dumps(document)
    return (text if raw is None else text.replace(f'"{_MARK}"', raw)).encode()


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a JSON document."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in list(items):
        yield document, key
        if isinstance(value, dict | list):
            yield from _places(value)


def _header_changed(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file with another header, which still has its right length more often than not."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    names = [name for name in header if name != "__metadata__"]
    name, other = rng.choice(names), rng.choice(names)
    way = rng.randrange(6)
    if way == 0:
        header[name]["dtype"] = rng.choice(_DTYPES)
    elif way == 1:
        rng.shuffle(header[name]["shape"])
    elif way == 2:
        header[name], header[other] = header[other], header[name]
    elif way == 3:
        header[rng.choice(("more", "", other, f"{name}.U"))] = header.pop(name)
    elif way == 4:
        header = dict(sorted(header.items(), key=lambda _: rng.random()))
    text = changed_json(header, rng) if way == 5 else json.dumps(header).encode()
    length = rng.choice((len(text),) * 6 + (len(text) - 1, 2**40, 2**63, 0))
    return length.to_bytes(8, "little") + text + data[end:]


def _tensors_changed(data: bytes, rng: random.Random) -> bytes:
    """A whole safetensors file with another tensor in the place of one."""
    tensors = safetensors.torch.load(data)
    name = rng.choice(sorted(tensors))
    tensor = tensors[name]
    dtypes = (torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.int16, torch.bool, torch.float8_e4m3fn)
    junk = torch.randint(-(2**15), 2**15, tensor.shape, generator=torch.Generator().manual_seed(rng.randrange(2**30)))
    ways = (
        lambda: tensor.to(rng.choice(dtypes)),
        lambda: junk.to(tensor.dtype),
        lambda: tensor.flip(0) if tensor.ndim else tensor,
        lambda: tensor.mT.contiguous() if tensor.ndim > 1 else tensor[None],
        lambda: tensor.flatten(),
        lambda: tensor[:0] if tensor.ndim else tensor,
        lambda: torch.full_like(tensor, -1),
    )
    way = rng.randrange(len(ways) + 3)
    if way == len(ways):
        del tensors[name]
    elif way == len(ways) + 1:
        tensors["more"] = tensor.clone()
    elif way == len(ways) + 2:
        dtype = rng.choice(dtypes[:3])
        tensors = {key: each.to(dtype) if each.is_floating_point() else each for key, each in tensors.items()}
    else:
        tensors[name] = ways[way]()
    end = 8 + int.from_bytes(data[:8], "little")
    return safetensors.torch.save(tensors, json.loads(data[8:end]).get("__metadata__"))


def _data_changed(data: bytes, rng: random.Random) -> bytes:
    end = 8 + int.from_bytes(data[:8], "little")
    place = rng.randrange(end, len(data))
    return data[:place] + rng.randbytes(8)[: len(data) - place] + data[place + 8 :]


def _coded_parts(data: bytes) -> tuple[bytes, bytes, bytes]:
    """(before, index, streams) of a coded file in a safetensors file with one tensor."""
    begin = 8 + int.from_bytes(data[:8], "little")
    end = begin + 5 + int.from_bytes(data[begin + 1 : begin + 5], "little")
    return data[: begin + 1], zlib.decompress(data[begin + 5 : end]), data[end:-8]


def _coded(before: bytes, index: bytes, streams: bytes, rng: random.Random) -> bytes:
    """The coded file again, with a digest that agrees, in a header of the right length."""
    packed = zlib.compress(index)
    length = rng.choice((len(packed),) * 8 + (0, len(packed) - 1, 2**31))
    whole = before[-1:] + length.to_bytes(4, "little") + packed + streams
    blob = whole + hashlib.blake2b(whole, digest_size=8).digest()
    header = json.loads(before[8:-1])
    (name,) = [key for key in header if key != "__metadata__"]
    header[name] |= {"shape": [len(blob)], "data_offsets": [0, len(blob)]}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + blob


def _index_changed(data: bytes, rng: random.Random) -> bytes:
    before, index, streams = _coded_parts(data)
    bomb = b"[" + b" " * 17 * 2**20 + b"]"
    return _coded(before, bomb if rng.random() < 0.01 else changed_json(json.loads(index), rng), streams, rng)


def _streams_changed(data: bytes, rng: random.Random) -> bytes:
    before, index, streams = _coded_parts(data)
    return _coded(before, index, changed_bytes(streams, rng), rng)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=50_000)
    parser.add_argument(
        "--seed", type=int, default=0, help="the first case; a stopped run goes on from the last printed"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as into:
        for seed in range(arguments.seed, arguments.seed + arguments.cases):
            folder, steps, agree = case(seed, Path(into))
            problem = breach(seed, folder, agree)
            if problem:
                sys.exit(f"seed {seed} ({folder.name}: {steps}; sums {'agree' if agree else 'stale'}): {problem}")
            if seed % 1000 == 999 or seed == arguments.seed + arguments.cases - 1:
                cases = seed - arguments.seed + 1
                sys.stdout.write(f"{cases:,} cases from seed {arguments.seed}: a KdnaError refuses each, or it runs\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
