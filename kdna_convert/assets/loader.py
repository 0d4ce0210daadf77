"""Load this folder without kdna: `state_dict(folder)` gives ordinary weights for the original, untouched architecture.

    import timm, loader
    model = timm.create_model("resnet50")
    model.load_state_dict(loader.state_dict("."))

Needs torch alone. It reads model.safetensors and plan.json beside it and works out each converted layer's kernel:

    cp         W[o,i,s] = sum_q U[o,q] V[q,i] b[q,s]        basis, lowrank   W = U V
    kerneldna  W[o,i,s] = P[o,i,s] (1 + f[o]) (1 + s[s]) (1 + c[i]) + (A B)[o,i,s]
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
DTYPES |= {"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8}
DTYPES |= {"BOOL": torch.bool}


def state_dict(folder: str | Path = ".") -> dict[str, Tensor]:
    """Every tensor of the ordinary model, by its own name. Gates of a routing must be at their start, the identity."""
    plan = json.loads((Path(folder) / "plan.json").read_text(encoding="utf-8"))
    tensors = read_safetensors(Path(folder) / "model.safetensors")
    shapes = {layer["name"]: layer["shape"] for layer in plan["layers"]}
    for family in plan["families"]:
        owner = family["members"][0]
        letters = [] if family["scheme"] == "lowrank" else [x for x in "VP" if f"{owner}.{x}" in tensors]
        shared = {letter: tensors.pop(f"{owner}.{letter}") for letter in letters}
        for name in family["members"]:
            own = {letter: tensors.pop(f"{name}.{letter}") for letter in "UVbfscAB" if f"{name}.{letter}" in tensors}
            tensors[f"{name}.weight"] = _kernel({**shared, **own}, shapes[name])
            for gate in [key for key in tensors if key.startswith(f"{name}.gate.")]:
                if gate.endswith(("fc2.weight", "fc2.bias")) and tensors[gate].any():
                    raise ValueError(f"{name} has a gate that depends on its input; load this folder with kdna")
                del tensors[gate]
    return tensors


def read_safetensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file, as https://github.com/huggingface/safetensors describes it."""
    raw = Path(path).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        dtype, data = DTYPES[entry["dtype"]], bytearray(raw[begin:end])
        flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        found[name] = flat.view(entry["shape"])
    return found


def _kernel(t: dict[str, Tensor], shape: list[int]) -> Tensor:
    if "P" in t:
        ones = [1] * (len(shape) - 2)
        kernel = t["P"] * (1 + t["f"].view(-1, 1, *ones))
        kernel = kernel * (1 + t["s"]) if "s" in t else kernel
        kernel = kernel * (1 + t["c"].view(1, -1, *ones)) if "c" in t else kernel
        return kernel + (t["A"] @ t["B"]).view(shape) if "A" in t else kernel
    rows = t["V"][:, :, None] * t["b"].flatten(1)[:, None, :] if "b" in t else t["V"]
    return (t["U"] @ rows.flatten(1)).view(shape)
