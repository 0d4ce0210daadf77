"""Load this folder without kdna: `state_dict(folder)` gives ordinary weights for the original, untouched architecture.

    import timm, loader
    model = timm.create_model("resnet50")
    model.load_state_dict(loader.state_dict("."))

Needs torch alone; a folder coded by `--codec entropy` needs `pip install constriction numpy` besides. It reads
model.safetensors and plan.json beside it and works out each converted layer's kernel:

    cp         W[o,i,s] = sum_q U[o,q] V[q,i] b[q,s]        basis, lowrank, output   W = U V
    separable  the same, b = b0 x b1                        tucker   W[o,i,s] = sum_pq U[o,p] G[p,q,s] V[q,i]
    codebook   W[o,(b,c),s] = U[o,b] E[K[o,b],(c,s)]
    warehouse  W[o,(b,c),s] = sum_q U[o,b,q] E[q,(c,s)]     atoms    W[o,i,s] = sum_m A[o,i,m] D[m,s]
    kerneldna  W[o,i,s] = P[o,i,s] (1 + f[o]) (1 + s[s]) (1 + c[i]) + (A B)[o,i,s]
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
DTYPES |= {"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8}
DTYPES |= {"BOOL": torch.bool}

# What the first member of a family stores for all, by scheme; and every tensor that a member may store for itself.
SHARED = {"cp": "V", "separable": "V", "basis": "V", "tucker": "V", "output": "U", "atoms": "A", "warehouse": "E"}
SHARED |= {"codebook": "E", "kerneldna": "P"}
OWN = ("U", "V", "b", "b0", "b1", "b2", "f", "s", "c", "A", "B", "D", "G", "K")

# How far a standardized kernel's variance stays below its bound, relative to it.
ROOM = 1e-5

# A safetensors file: bytes of the header's length, before the header and the data.
HEADER_LENGTH = 8

# A coded file: the name of its one tensor, its newest format, and the bytes of its parts in front and at the end.
CODED = "kdna"
FORMAT = 2
FORMAT_BYTES, INDEX_LENGTH, DIGEST = 1, 4, 8
# Limits, since a few bytes can announce more than a memory holds: bytes of the index, numbers in the file.
MOST_INDEX, MOST_NUMBERS = 2**24, 2**30

# Codecs of two bytes per number; int8 and int4 have a bfloat16 step per row, and int4 two numbers a byte, from -8 on.
HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}
NIBBLE, NIBBLE_ZERO = 16, 8

# entropy: steps per octave, for weights and for the scales of normalizations.
STEPS_PER_OCTAVE, SCALE_STEPS_PER_OCTAVE = 64, 16
# Each pass of the coder has decoded this share of every tensor.
SHARES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)
# Buckets are quarter octaves of the expected magnitude, from 2^-8 on: the top bits of a float32 above LOW_BITS.
BUCKETS = 124
PER_OCTAVE_BITS = 2
LOW_BITS = 23 - PER_OCTAVE_BITS  # float32 has 23 bits of mantissa
LOWEST = (127 - 8) << PER_OCTAVE_BITS  # float32's exponents are stored with 127 added
# Integers of an expected magnitude above 2^WHOLE_OCTAVES are coded in larger units, and their lower bits as they are.
WHOLE_OCTAVES = 9
# A histogram has a bin for each of -CAP..CAP, of which the outermost count larger integers too, and starts with BELIEF.
CAP, BELIEF = 20, 20.0
BINS = 2 * CAP + 1
# Magnitudes beyond the bins have 0 to 22 bits.
EXCESS_LENGTHS = 23
# Prior weights, in known integers: of the tensor's mean for a row or column, of row and column for a kernel.
LINE_BELIEF, KERNEL_BELIEF = 20, 16
# Kernels are used once this share of a tensor is known.
KERNELS_FROM = 0.2
# The order of the columns: multiples of 2^32 over the golden ratio, modulo 2^32. Each row starts at another column.
GOLDEN, ROW_OFFSET = 2654435769, 0.618

# indices: bytes of the lowest value and of the size of the range, and pieces after each of which counts are updated.
INDICES_LOWEST, INDICES_SIZE = 8, 4
INDICES_PIECES = 64


def state_dict(folder: str | Path = ".") -> dict[str, Tensor]:
    """Every tensor of the ordinary model, by its own name. A routing must be `se` and at its start, the identity."""
    plan = json.loads((Path(folder) / "plan.json").read_text(encoding="utf-8"))
    tensors = read_safetensors(Path(folder) / "model.safetensors")
    if set(tensors) == {CODED}:
        tensors = decode(tensors[CODED].numpy().tobytes())
    shapes = {layer["name"]: layer["shape"] for layer in plan["layers"]}
    standardized = {layer["name"]: layer.get("standardized") for layer in plan["layers"]}
    for family in plan["families"]:
        owner = family["members"][0]
        shared = {letter: tensors.pop(f"{owner}.{letter}") for letter in SHARED.get(family["scheme"], "")}
        for name in family["members"]:
            own = {letter: tensors.pop(f"{name}.{letter}") for letter in OWN if f"{name}.{letter}" in tensors}
            kernel = _kernel({**shared, **own}, shapes[name])
            tensors[f"{name}.weight"] = _encoded(kernel, *standardized[name]) if standardized[name] else kernel
    for route in plan["routes"]:
        for name in (layer["name"] for layer in route["layers"]):
            gate = {key: tensors.pop(key) for key in list(tensors) if key.startswith(f"{name}.gate.")}
            heads = [gate[key] for key in gate if key.endswith(("fc2.weight", "fc2.bias"))]
            if route["routing"] != "se" or any(head.any() for head in heads):
                raise ValueError(f"{name} has a routing that depends on its input; load this folder with kdna")
    return tensors


def read_safetensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file, as https://github.com/huggingface/safetensors describes it."""
    if not Path(path).is_file():
        raise ValueError(f"{path} is not a regular file")
    raw = Path(path).read_bytes()
    start = HEADER_LENGTH + int.from_bytes(raw[:HEADER_LENGTH], "little")
    header = json.loads(raw[HEADER_LENGTH:start])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = (start + offset for offset in entry["data_offsets"])
        dtype, data = DTYPES[entry["dtype"]], bytearray(raw[begin:end])
        flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        tensors[name] = flat.view(entry["shape"])
    return tensors


def _kernel(t: dict[str, Tensor], shape: list[int]) -> Tensor:
    if "P" in t:
        ones = [1] * (len(shape) - 2)
        kernel = t["P"] * (1 + t["f"].view(-1, 1, *ones))
        kernel = kernel * (1 + t["s"]) if "s" in t else kernel
        kernel = kernel * (1 + t["c"].view(1, -1, *ones)) if "c" in t else kernel
        return kernel + (t["A"] @ t["B"]).view(shape) if "A" in t else kernel
    if "K" in t:
        if t["K"].min() < 0:
            raise ValueError("a codebook has a negative index")
        cells = t["E"][t["K"].long()]
        if t["K"].ndim == 3:
            return torch.einsum("om,obmc->obc", t["U"], cells).reshape(shape)
        return (t["U"].view(len(t["U"]), -1, 1) * cells).reshape(shape)
    if "E" in t or "D" in t:
        return (t["U"] @ t["E"] if "E" in t else t["A"] @ t["D"]).reshape(shape)
    if "G" in t:
        rows = torch.einsum("pqs,qi->pis", t["G"].flatten(2), t["V"])
    else:
        rows = t["V"][:, :, None] * _spatial(t)[:, None, :]
    return (t["U"] @ rows.flatten(1)).view(shape)


def _encoded(kernel: Tensor, eps: float, bound: float) -> Tensor:
    """The weight that a standardizing layer turns into this kernel, of mean 0 and a deviation below the bound."""
    variance, mean = torch.var_mean(kernel.float().flatten(1), dim=1, correction=0)
    axes = (-1,) + (1,) * (kernel.ndim - 1)
    share = (variance / bound**2).view(axes)
    shrink = ((1 - ROOM) / share.clamp_min(1e-30)).clamp_max(1).sqrt()
    bounded = (kernel.float() - mean.view(axes)) * shrink
    return (bounded / bound * (eps / (1 - share.clamp_max(1 - ROOM))).sqrt()).to(kernel.dtype)


def _spatial(t: dict[str, Tensor]) -> Tensor:
    """(rank, taps): the spatial kernels b, the products of vectors b0, b1, ..., or a one where there are neither."""
    spatial = t["b"].flatten(1) if "b" in t else t["V"].new_ones(len(t["V"]), 1)
    for vector in (t[letter] for letter in ("b0", "b1", "b2") if letter in t):
        spatial = (spatial[:, :, None] * vector[:, None, :]).flatten(1)
    return spatial


def decode(coded: bytes) -> dict[str, Tensor]:
    """The tensors of a coded file: format (1 byte), length of the index (4), index, streams, digest (8)."""
    if hashlib.blake2b(coded[:-DIGEST], digest_size=DIGEST).digest() != coded[-DIGEST:]:
        raise ValueError("the coded tensors are cut short or altered")
    if coded[0] > FORMAT:
        raise ValueError(f"coded in format {coded[0]}, which this loader does not know")
    begin = FORMAT_BYTES + INDEX_LENGTH
    start = begin + int.from_bytes(coded[FORMAT_BYTES:begin], "little")
    inflater = zlib.decompressobj()
    text = inflater.decompress(coded[begin:start], MOST_INDEX)
    if not inflater.eof:
        raise ValueError("the index of the coded tensors is too long")
    index = json.loads(text)
    sizes = [math.prod(row[1]) for _, _, rows in index["parts"] for row in rows]
    sizes += [3 * row[1] for row in (index["norms"][2] if index["norms"] else ())]
    if min(sizes, default=0) < 0 or sum(sizes) > MOST_NUMBERS:
        raise ValueError(f"the coded tensors announce {sum(sizes):,} numbers")
    decoded: dict[str, Tensor] = {}
    if index["norms"]:
        codec, length, rows = index["norms"]
        decoded |= _norms(codec, coded[start : start + length], rows)
        start += length
    for codec, length, rows in index["parts"]:
        dtypes = [DTYPES[row[3]] if len(row) > 3 else torch.float32 for row in rows]
        tensors = _stream(
            codec, coded[start : start + length], [row[1] for row in rows], [row[2] for row in rows], dtypes
        )
        decoded |= {row[0]: tensor.to(dtype) for row, tensor, dtype in zip(rows, tensors, dtypes, strict=True)}
        start += length
    return decoded


def _norms(codec: str, data: bytes, rows: list[Any]) -> dict[str, Tensor]:
    """Batch normalizations that scale and shift: their statistics are 0 and 1."""
    sizes = [row[1] for row in rows]
    if codec == "entropy":
        logarithm, sign, shifts = _integers(data, [[sum(sizes)]] * 3)
        magnitude = (torch.from_numpy(logarithm).double() / SCALE_STEPS_PER_OCTAVE).exp2()
        scale = magnitude * (1 - 2 * torch.from_numpy(sign))
        parts = torch.from_numpy(shifts).split(sizes)
        shift = torch.cat(
            [part.double() * 2.0 ** (row[3] / STEPS_PER_OCTAVE) for part, row in zip(parts, rows, strict=True)]
        ).float()
    else:
        scale, shift = _stream(codec, data, [[sum(sizes)]] * 2, [0, 0], [])
    tensors: dict[str, Tensor] = {}
    for (name, size, eps, _), weight, bias in zip(rows, scale.float().split(sizes), shift.split(sizes), strict=True):
        statistics = {"running_mean": torch.zeros(size), "running_var": torch.full((size,), 1 - eps)}
        own = {"weight": weight, "bias": bias, **statistics, "num_batches_tracked": torch.tensor(0)}
        tensors |= {f"{name}.{part}": tensor for part, tensor in own.items()}
    return tensors


def _stream(codec: str, data: bytes, shapes: list[Any], steps: list[int], dtypes: list[Any]) -> list[Tensor]:
    if codec == "entropy":
        pairs = zip(_integers(data, shapes), steps, strict=True)
        return [(torch.from_numpy(part).double() * 2.0 ** (step / STEPS_PER_OCTAVE)).float() for part, step in pairs]
    if codec == "indices":
        sizes = [math.prod(shape) for shape in shapes]
        flat = torch.from_numpy(_indices(data, sum(sizes)))
        return [part.view(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)]
    tensors: list[Tensor] = []
    start = 0
    for place, shape in enumerate(shapes):
        count, rows = math.prod(shape), shape[0] if len(shape) > 1 else 1
        if codec in HALVES or codec == "raw":
            dtype = HALVES.get(codec) or dtypes[place]
            end = start + count * dtype.itemsize
            tensors.append(_view(data[start:end], dtype).view(shape).to(dtype if codec == "raw" else torch.float32))
        else:
            middle = start + rows * torch.bfloat16.itemsize
            end = middle + (count if codec == "int8" else (count + 1) // 2)
            step = _view(data[start:middle], torch.bfloat16).float()
            whole = _view(data[middle:end], torch.int8 if codec == "int8" else torch.uint8)
            if codec == "int4":
                halves = torch.stack([whole % NIBBLE, whole // NIBBLE], 1)
                whole = halves.view(-1)[:count].to(torch.int8) - NIBBLE_ZERO
            tensors.append((whole.float().view(rows, -1) * step[:, None]).view(shape) if count else torch.empty(shape))
        start = end
    return tensors


def _view(data: bytes, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)


def _coder() -> tuple[Any, Any]:
    try:
        import numpy as np
        from constriction import stream
    except ImportError as error:
        raise ImportError("this folder is entropy-coded; to read it: pip install constriction numpy") from error
    return np, stream


def _indices(data: bytes, count: int) -> Any:
    """Whole numbers by one adaptive histogram; kdna's codecs/indices.py."""
    np, stream = _coder()
    begin = INDICES_LOWEST + INDICES_SIZE
    lowest = int.from_bytes(data[:INDICES_LOWEST], "little", signed=True)
    size = int.from_bytes(data[INDICES_LOWEST:begin], "little")
    coder, counts = stream.stack.AnsCoder(np.frombuffer(data[begin:], "<u4").astype(np.uint32)), np.ones(size)
    pieces = np.array_split(np.zeros(count, np.int32), INDICES_PIECES)
    for piece in pieces if size > 1 else ():
        piece[:] = coder.decode(stream.model.Categorical(counts, perfect=False), len(piece))
        counts += np.bincount(piece, minlength=size)
    if not coder.is_empty():
        raise ValueError("the coded tensors are damaged")
    return np.concatenate(pieces).astype(np.int64) + lowest


def _integers(data: bytes, shapes: list[Any]) -> list[Any]:
    """The integers of an entropy-coded stream. kdna's codecs/entropy.py and expectation.py say why it is so."""
    np, stream = _coder()
    coder = stream.stack.AnsCoder(np.frombuffer(data, "<u4").astype(np.uint32))
    buckets = np.arange(BUCKETS)
    middle = (((buckets + LOWEST) << LOW_BITS) + (1 << (LOW_BITS - 1))).astype(np.int32).view(np.float32)
    shifts = np.maximum(0, (buckets >> PER_OCTAVE_BITS) - WHOLE_OCTAVES)
    ratio = middle.astype(np.float64) / (1 << shifts)
    ratio = ratio / (1 + ratio)
    counts = np.empty((BUCKETS, BINS))
    counts[:, CAP] = BELIEF * (1 - ratio) / (1 + ratio)
    for away in range(1, CAP + 1):
        counts[:, CAP + away] = counts[:, CAP - away] = counts[:, CAP + away - 1] * ratio

    def plain(count: int, size: int) -> Any:
        model = stream.model.Uniform(size) if count and size > 1 else None
        return np.zeros(count, np.int32) if model is None else coder.decode(model, count)

    def bucket(which: int, count: int) -> Any:
        coarse = coder.decode(stream.model.Categorical(counts[which], perfect=False), count) - CAP
        counts[which] += np.bincount(coarse + CAP, minlength=BINS)
        outside = np.flatnonzero(np.abs(coarse) == CAP)
        lengths = plain(len(outside), EXCESS_LENGTHS)
        excess = np.minimum(lengths, 1)
        for length in np.unique(lengths[lengths > 1]):
            where = np.flatnonzero(lengths == length)
            excess[where] = plain(len(where), 1 << (int(length) - 1)) + (1 << (length - 1))
        coarse[outside] += np.where(coarse[outside] < 0, -excess, excess)
        return (coarse << shifts[which]) + plain(count, 1 << int(shifts[which]))

    arrays = [np.zeros(shape, np.int32) for shape in shapes]
    full = [array for array in arrays if array.size]
    matrices = [_Matrix(np, array, middle[mean]) for array, mean in zip(full, plain(len(full), BUCKETS), strict=True)]
    for share in SHARES if matrices else ():
        which = np.concatenate([matrix.expect(share) for matrix in matrices])
        order, values = np.argsort(which, kind="stable"), np.empty(len(which), np.int32)
        parts = [bucket(int(each), int((which == each).sum())) for each in np.unique(which)]
        values[order] = np.concatenate([np.zeros(0, np.int32), *parts])
        ends = np.cumsum([matrix.place.size for matrix in matrices])[:-1]
        for matrix, own in zip(matrices, np.split(values, ends), strict=True):
            matrix.learn(own)
    if not coder.is_empty():
        raise ValueError("the coded tensors are damaged")
    return arrays


class _Matrix:
    """The known integers of one tensor, and the expected magnitudes of the others."""

    def __init__(self, np: Any, array: Any, mean: Any) -> None:
        self.np, self.values, self.mean, self.known = np, array.reshape(-1), mean, 0
        self.rows = array.shape[0] if array.ndim > 1 else 1
        self.columns, self.taps = array.size // self.rows, math.prod(array.shape[2:])
        self.order = np.argsort(np.arange(self.columns, dtype=np.uint32) * np.uint32(GOLDEN), kind="stable")
        self.is_known = np.zeros(array.size, bool)

    def expect(self, share: float) -> Any:
        np, line, kernel = self.np, self.np.float32(LINE_BELIEF), self.np.float32(KERNEL_BELIEF)
        chosen = self.order[self.known : round(share * self.columns)]
        begin = np.arange(self.rows) * (int(ROW_OFFSET * self.columns) | 1) % self.columns
        column = (chosen + begin[:, None]) % self.columns
        self.place = (column + np.arange(self.rows)[:, None] * self.columns).reshape(-1)
        size, is_known = np.abs(self.values).reshape(self.rows, -1), self.is_known.reshape(self.rows, -1)
        column_mean = (size.sum(0).astype(np.float32) + line * self.mean) / (is_known.sum(0).astype(np.float32) + line)
        row_share = (size.sum(1).astype(np.float32) / self.mean + line) / (np.float32(self.known) + line)
        expected = column_mean[column] * row_share[:, None]
        if self.taps > 1 and self.known > KERNELS_FROM * self.columns:
            kernels = size.reshape(-1, self.taps).sum(1).astype(np.float32)[self.place // self.taps]
            expected = (expected * kernel + kernels.reshape(column.shape)) / (
                kernel + np.float32(self.taps * self.known / self.columns)
            )
        return np.clip((expected.reshape(-1).view(np.int32) >> LOW_BITS) - LOWEST, 0, BUCKETS - 1).astype(np.uint8)

    def learn(self, integers: Any) -> None:
        self.values[self.place], self.is_known[self.place] = integers, True
        self.known = int(self.is_known.sum()) // self.rows
