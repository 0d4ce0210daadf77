"""NNCodec at its defaults and with `opt_qp`, at the bytes of kdna's rows: top-1 on 2,000 test images of CIFAR-10.

    python benchmarks/nncodec_settings.py DATA

In an environment with the extra `nncodec`. Dependent quantization (`use_dq`) is on in both. Batch norms are not folded
(`bnf`): NNCodec 2.1.3 does not restore such a net. Every row is appended to benchmarks/results/nncodec.jsonl.
"""

from __future__ import annotations

import argparse
import tempfile
from bisect import bisect_left
from pathlib import Path
from typing import Any

import numpy as np
import torch
from baselines import BASELINES
from commands import Row, append, machine, table

import kdna_convert as kdna
from kdna_convert.inputs.models import load_model

RESULTS = Path(__file__).parent / "results" / "nncodec.jsonl"
# The bytes of kdna's rows in benchmarks/README.md.
SIZES = {"cifar10_resnet56": (246_931, 171_707), "cifar10_resnet20": (136_236, 77_921)}
SETTINGS: dict[str, dict[str, Any]] = {"defaults": {}, "opt_qp": {"opt_qp": True}}
QPS = range(-60, 1)
COLUMNS = ("net", "settings", "at most", "bytes", "qp", "top-1")


def measure(name: str, setting: str, limit: int, data: Path) -> Row:
    """One row: the finest `qp` whose bitstream fits, and the decoded net's top-1."""
    from nncodec import nn as codec

    net = load_model(BASELINES[name].model, checkpoint=str(data / "checkpoints" / f"{name}.safetensors")).model
    state = net.state_dict()
    coded = {key: tensor.numpy() for key, tensor in state.items() if tensor.ndim and tensor.is_floating_point()}

    def encoded(qp: int) -> bytearray:
        with tempfile.TemporaryDirectory() as folder:
            how = {"results": folder, "qp": qp, "verbose": False, **SETTINGS[setting]}
            stream: bytearray = codec.encode(coded, how)
        return stream

    qp = QPS[bisect_left(QPS, True, key=lambda qp: len(encoded(qp)) <= limit)]
    stream = encoded(qp)
    decoded = {key: torch.from_numpy(np.asarray(array)) for key, array in codec.decode(stream).items()}
    net.load_state_dict({key: decoded[key].view_as(own) if key in coded else own for key, own in state.items()})
    top1 = kdna.evaluate(net, data=data / BASELINES[name].images, limit=2000).top1
    row = {"net": name, "settings": setting, "limit": limit, "bytes": len(stream), "qp": qp, "top1": top1}
    return row | machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    found = [
        append(given.results, measure(name, setting, limit, given.data))
        for name, limits in SIZES.items()
        for setting in SETTINGS
        for limit in limits
    ]
    lines = [[row[key] for key in ("net", "settings", "limit", "bytes", "qp", "top1")] for row in found]
    print(table(COLUMNS, lines))


if __name__ == "__main__":
    main()
