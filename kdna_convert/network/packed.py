"""All tensors of a net as one byte string, which a coded model.safetensors stores as a single uint8 tensor.

    version (1 byte), length of the index (4), index, streams, digest (8)

The index is deflated JSON: names, shapes, steps and the length of each stream. A safetensors header would take 100
bytes per tensor, a quarter of a file of 86 kB. Each codec has one stream for all its tensors. The five tensors of a
normalization are stored as a scale and a shift per channel, and restored with mean 0 and variance 1. With `entropy`,
integers have a stream per dtype (codecs/indices.py); such a file has version 2, which an older kdna refuses. Other
files have version 1.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from ..codecs import CODECS, Quantized, entropy, indices
from ..codecs.floats import LARGEST
from ..codecs.quantization_steps import Entropy, scale_integers, scale_values, values
from ..core.errors import FolderError, NumericsError
from ..core.filesize import ITEM_BYTES
from ..core.specs import Shape, TensorSpec, product
from ..core.tensorfile import LONGEST, MOST_AXES
from .batch_norm import NORM_COUNT, NORM_FLOATS, foldable_norms, norm_affine, plain_norm
from .stored import DTYPES, stored_state

# The one tensor of a coded file.
CODED = "kdna"
VERSION = 2
# The codec of integers.
INDICES = "indices"
# The most bytes of the index before it is deflated: that of a net of 1,000 tensors has 60,000.
INDEX_LIMIT = 16 * 2**20
# Steps beyond 2^(this / 64) and its inverse are of no float32.
_FURTHEST = 64 * 300
_DIGEST = 8
_DAMAGED = "the coded tensors are truncated or altered; restore the file, or convert again"

_Count = Annotated[int, Field(ge=0, le=LONGEST)]
_Shape = Annotated[tuple[_Count, ...], Field(max_length=MOST_AXES)]
_Step = Annotated[int, Field(ge=-_FURTHEST, le=_FURTHEST)]
# A tensor: name, shape, step, and the dtype if it is not F32.
Row = tuple[str, _Shape, _Step] | tuple[str, _Shape, _Step, str]
# A normalization: name, channels, eps, step of the shifts.
NormRow = tuple[str, _Count, Annotated[float, Field(ge=0, lt=1)], _Step]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Index:
    """What the streams hold: for each codec, the length of its stream and its tensors; that of the normalizations."""

    parts: tuple[tuple[str, _Count, tuple[Row, ...]], ...]
    norms: tuple[()] | tuple[str, _Count, tuple[NormRow, ...]]

    @property
    def norm_parts(self) -> tuple[tuple[str, int, tuple[NormRow, ...]], ...]:
        """The stream of the normalizations, or none."""
        return (self.norms,) if self.norms else ()


_INDEX = TypeAdapter(Index)


def pack(model: nn.Module, codec: str, steps: Mapping[str, int]) -> bytes:
    """Code the tensors of a net (stored.py): weights of two or more axes by the codec, others in two bytes per number.

    Args:
        model: The net.
        codec: A key of CODECS.
        steps: For `entropy` only: the number of the step of each tensor that it codes, and, by the name of each
            normalization, that of its shifts.

    Raises:
        NumericsError: KD701 (a tensor holds NaN or infinity), KD704 (a number is too large for the codec).
    """
    state = stored_state(model)
    for name, tensor in state.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise NumericsError("KD701", f"{name} holds NaN or infinity, which no codec can keep")
    norms = foldable_norms(model)
    half = "bf16" if codec == "bf16" else _half(state)
    for name in norms:
        for part in (*NORM_FLOATS, NORM_COUNT):
            state.pop(f"{name}.{part}", None)
    groups: dict[tuple[str, torch.dtype | None], list[tuple[str, Tensor]]] = {}
    for name, tensor in state.items():
        its = _codec_for(name, tensor, codec, half, steps)
        groups.setdefault((its, tensor.dtype if its == INDICES else None), []).append((name, tensor))
    of_norms = codec if codec == "entropy" else half
    streams = [_norm_stream(norms, of_norms, steps)] if norms else []
    entries = []
    for (its, _), named in groups.items():
        own = [steps[name] if its == "entropy" else 0 for name, _ in named]
        each, stream = _encode(its, [tensor for _, tensor in named], own)
        streams.append(stream)
        rows = [_row(name, tensor, step) for (name, tensor), step in zip(named, own, strict=True)]
        entries.append([each, len(streams[-1]), rows])
    shifts = [[name, *_size(norm), steps.get(name, 0)] for name, norm in norms.items()]
    index = {"parts": entries, "norms": [of_norms, len(streams[0]), shifts] if norms else []}
    version = VERSION if any(each == INDICES for each, *_ in entries) else 1
    return _sealed(version, json.dumps(index, separators=(",", ":"), ensure_ascii=False).encode(), streams)


def unpack(blob: bytes) -> dict[str, Tensor]:
    """The tensors that `pack` coded, by their names in the file, with their own dtypes.

    Compare `announced` with the net first where the bytes come from elsewhere: a few bytes can announce tensors of any
    size. Raises FolderError KD608 for truncated or altered bytes, KD605 for those of a newer kdna.
    """
    index, streams = _opened(blob)
    tensors: dict[str, Tensor] = {}
    start = 0
    for codec, length, norms in index.norm_parts:
        tensors |= _norms(codec, streams[:length], norms)
        start = length
    for codec, length, rows in index.parts:
        tensors |= _decoded(codec, streams[start : start + length], rows)
        start += length
    return tensors


def quantized(blob: bytes) -> dict[str, Quantized]:
    """The weights that `unpack` returns as products of integers and steps, by their names. Raises as `unpack` does."""
    index, streams = _opened(blob)
    tensors: dict[str, Quantized] = {}
    start = sum(length for _, length, _ in index.norm_parts)
    for codec, length, rows in index.parts:
        data, start = streams[start : start + length], start + length
        shapes, steps = [row[1] for row in rows], [row[2] for row in rows]
        own = CODECS[codec].quantized(data, shapes, steps) if codec in CODECS else None
        if own is not None:
            tensors |= zip([row[0] for row in rows], own, strict=True)
    return tensors


def logarithmic_norms(blob: bytes) -> dict[str, int]:
    """The step of the shifts of each normalization whose scales `pack` coded as logarithms. Raises as `unpack` does."""
    return {row[0]: row[3] for codec, _, rows in _opened(blob)[0].norm_parts if codec == "entropy" for row in rows}


def announced(blob: bytes) -> list[TensorSpec]:
    """The tensors that `unpack` will return, from the index alone. Raises as `unpack` does."""
    index, _ = _opened(blob)
    specs = [TensorSpec(row[0], row[1], _dtype_of(row)) for _, _, rows in index.parts for row in rows]
    for _, _, rows in index.norm_parts:
        for name, size, *_ in rows:
            specs += [TensorSpec(f"{name}.{part}", (size,)) for part in NORM_FLOATS]
            specs.append(TensorSpec(f"{name}.{NORM_COUNT}", (), "I64"))
    return specs


def steps_of(blob: bytes) -> dict[str, int]:
    """The steps with which `pack` coded these bytes, needed to code them again. Raises as `unpack` does."""
    index, _ = _opened(blob)
    parts = {row[0]: row[2] for codec, _, rows in index.parts for row in rows if codec == "entropy"}
    norms = {row[0]: row[3] for _, _, rows in index.norm_parts for row in rows}
    return parts | norms


def entropy_bytes(blob: bytes) -> int:
    """The bytes of the stream of `entropy`'s weights. Raises as `unpack` does."""
    return sum(length for codec, length, _ in _opened(blob)[0].parts if codec == "entropy")


def coded_specs(blob: bytes) -> list[TensorSpec]:
    """The specs of a file with these bytes, for its size and header (filesize.py)."""
    return [TensorSpec(CODED, (len(blob),), "U8")]


def _size(norm: Any) -> tuple[int, float]:
    return len(norm.weight), norm.eps


def _half(state: Mapping[str, Tensor]) -> str:
    """The codec of all other tensors: fp16, or bf16 if a number is out of its range."""
    sizes = [float(tensor.abs().max()) for tensor in state.values() if tensor.is_floating_point() and tensor.numel()]
    return "fp16" if max(sizes, default=0.0) <= LARGEST else "bf16"


def _codec_for(name: str, tensor: Tensor, codec: str, half: str, steps: Mapping[str, int]) -> str:
    if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return INDICES if codec == "entropy" and tensor.dtype in _WHOLE else "raw"
    if codec == "entropy":
        return codec if name in steps else half
    return codec if tensor.ndim > 1 else half


def _row(name: str, tensor: Tensor, step: int) -> list[Any]:
    """name, shape, step, and the dtype if it is not F32."""
    dtype = DTYPES[tensor.dtype]
    return [name, list(tensor.shape), step, *([] if dtype == "F32" else [dtype])]


def _encode(codec: str, tensors: Sequence[Tensor], steps: Sequence[int]) -> tuple[str, bytes]:
    """The codec that was used and its stream. Integers stay raw where coding makes them no shorter."""
    if codec not in (INDICES, "raw"):
        return codec, CODECS[codec].encode([tensor.detach().float() for tensor in tensors], steps)
    raw = b"".join(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for tensor in tensors)
    whole = [tensor.reshape(-1).to(torch.int64).numpy() for tensor in tensors] if codec == INDICES else []
    coded = indices.encode(np.concatenate(whole)) if whole else None
    return (INDICES, coded) if coded is not None and len(coded) < len(raw) else ("raw", raw)


def _dtype_of(row: Row) -> str:
    return row[3] if len(row) > 3 else "F32"


def _decoded(codec: str, data: bytes, rows: Sequence[Row]) -> dict[str, Tensor]:
    shapes = [row[1] for row in rows]
    dtypes = [_TORCH[_dtype_of(row)] for row in rows]
    if codec == "raw":
        tensors = list(_raw(data, shapes, [_dtype_of(row) for row in rows]))
    elif codec == INDICES:
        sizes = list(map(product, shapes))
        flat = torch.from_numpy(indices.decode(data, sum(sizes)))
        tensors = [part.view(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)]
    else:
        tensors = CODECS[codec].decode(data, shapes, [row[2] for row in rows])
    pairs = zip(rows, tensors, dtypes, strict=True)
    return {row[0]: tensor.to(dtype) for row, tensor, dtype in pairs}


def _raw(data: bytes, shapes: Sequence[Shape], dtypes: Sequence[str]) -> Iterator[Tensor]:
    if len(data) != sum(product(shape) * ITEM_BYTES[dtype] for shape, dtype in zip(shapes, dtypes, strict=True)):
        raise FolderError("KD608", _DAMAGED)
    start = 0
    for shape, dtype in zip(shapes, dtypes, strict=True):
        end = start + product(shape) * ITEM_BYTES[dtype]
        own = bytearray(data[start:end])
        yield (torch.frombuffer(own, dtype=_TORCH[dtype]) if own else torch.empty(0, dtype=_TORCH[dtype])).view(shape)
        start = end


_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
_TORCH = {name: dtype for dtype, name in DTYPES.items()}


def _norm_stream(norms: Mapping[str, nn.Module], codec: str, steps: Mapping[str, int]) -> bytes:
    pairs = [norm_affine(norm) for norm in norms.values()]
    scale, shift = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    if codec != "entropy":
        return CODECS[codec].encode([scale.float(), shift.float()], [0, 0])
    shifts = [Entropy().integers(own.float(), steps[name]) for name, (_, own) in zip(norms, pairs, strict=True)]
    return entropy.encode([*scale_integers(scale), np.concatenate(shifts)])


def _norms(codec: str, data: bytes, rows: Sequence[NormRow]) -> dict[str, Tensor]:
    sizes = [row[1] for row in rows]
    whole = (sum(sizes),)
    if codec == "entropy":
        logarithm, sign, shifts = entropy.decode(data, [whole] * 3)
        scale = scale_values(logarithm, sign)
        parts = np.split(shifts, np.cumsum(sizes)[:-1])
        shift = torch.cat([values(own, row[3]) for own, row in zip(parts, rows, strict=True)])
    else:
        scale, shift = CODECS[codec].decode(data, [whole] * 2, [0, 0])
    tensors: dict[str, Tensor] = {}
    for row, own_scale, own_shift in zip(rows, scale.split(sizes), shift.split(sizes), strict=True):
        tensors |= {f"{row[0]}.{part}": tensor for part, tensor in plain_norm(own_scale, own_shift, row[2]).items()}
    return tensors


def _sealed(version: int, index: bytes, streams: Sequence[bytes]) -> bytes:
    packed = zlib.compress(index, 9)
    whole = b"".join([bytes([version]), len(packed).to_bytes(4, "little"), packed, *streams])
    return whole + _digest(whole)


def _opened(blob: bytes) -> tuple[Index, bytes]:
    whole, digest = blob[:-_DIGEST], blob[-_DIGEST:]
    if len(blob) < 5 + _DIGEST or _digest(whole) != digest:
        raise FolderError("KD608", _DAMAGED)
    if whole[0] > VERSION:
        raise FolderError("KD605", f"coded in format {whole[0]}, this kdna reads up to {VERSION}; update kdna")
    end = 5 + int.from_bytes(whole[1:5], "little")
    streams = whole[end:]
    try:
        inflater = zlib.decompressobj()
        text = inflater.decompress(whole[5:end], INDEX_LIMIT)
        index = _INDEX.validate_json(text)
    except (zlib.error, ValidationError):
        raise FolderError("KD608", _DAMAGED) from None
    if not inflater.eof or not _is_sound(index, len(streams)):
        raise FolderError("KD608", _DAMAGED)
    return index, streams


def _is_sound(index: Index, length: int) -> bool:
    """Whether the index announces streams of this length in all, by known codecs, and each tensor once."""
    of_norms = {codec for codec, _, _ in index.norm_parts}
    of_parts = {codec for codec, _, _ in index.parts}
    names = [row[0] for _, _, rows in index.parts for row in rows]
    norms = [row[0] for _, _, rows in index.norm_parts for row in rows]
    dtypes = {_dtype_of(row) for _, _, rows in index.parts for row in rows}
    parts = [*index.parts, *index.norm_parts]
    once = len({*names}) == len(names) and len({*norms}) == len(norms)
    has_known_codecs = of_norms <= {*CODECS} and of_parts <= {*CODECS, INDICES, "raw"} and dtypes <= {*_TORCH}
    return has_known_codecs and once and all(rows for *_, rows in parts) and sum(each for _, each, _ in parts) == length


def _digest(whole: bytes) -> bytes:
    return hashlib.blake2b(whole, digest_size=_DIGEST).digest()
