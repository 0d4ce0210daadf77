"""A YOLO of ultralytics as a module, and a converted one back inside `YOLO(...)`.

Needs `pip install ultralytics`, whose license is the AGPL.

    kdna convert "examples/yolo.py:yolo('best.pt')" --outputs examples/yolo.py:scored --data photos \
        --target-params 0.7 -o yolo-small
    python examples/yolo.py yolo-small best.pt -o small.pt
    yolo predict model=small.pt source=photos

`best.pt` is a file of weights that you trust: ultralytics runs the code in it. `yolov8n.yaml` has random weights.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from ultralytics import YOLO

import kdna_convert as kdna

# The input, in timm's terms: images in 0..1 on a gray border, as ultralytics feeds them.
PRETRAINED_CFG = {
    "input_size": (3, 640, 640),
    "crop_pct": 1.0,
    "crop_mode": "border",
    "interpolation": "bilinear",
    "mean": (0.0, 0.0, 0.0),
    "std": (1.0, 1.0, 1.0),
}


def yolo(weights: str = "yolov8n.yaml") -> nn.Module:
    """The detection net in a file of weights, or an architecture's with random weights."""
    net: nn.Module = YOLO(weights, task="detect").model
    net.pretrained_cfg = PRETRAINED_CFG  # type: ignore[assignment]
    return net.eval()


def scored(returned: Any) -> tuple[Tensor, ...]:
    """The scores of every anchor, and its box as the head returns it times its best score: what makes a detection.

    The net returns them second: in a dict with `boxes` and `scores`, or, in older versions, as a list of maps
    (images, 64 numbers of a box and the classes, height, width).
    """
    raw = returned[1]
    maps = [(raw["boxes"], raw["scores"])] if isinstance(raw, Mapping) else [(own[:, :64], own[:, 64:]) for own in raw]
    scores = [logits.sigmoid() for _, logits in maps]
    boxes = [box * each.amax(1, keepdim=True) for (box, _), each in zip(maps, scores, strict=True)]
    return (*scores, *boxes)


def put_back(folder: str, weights: str) -> YOLO:
    """`YOLO(weights)` with the folded weights of a converted folder."""
    model = YOLO(weights, task="detect")
    own = model.model.state_dict()
    converted = kdna.load(folder, folded=True, model=copy.deepcopy(model.model)).state_dict()
    constants = {name: tensor for name, tensor in own.items() if ".dfl." in name}  # 0 to 15, which a codec rounds
    model.model.load_state_dict(converted | constants)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="what `kdna convert` wrote")
    parser.add_argument("weights", help="what it was converted from")
    parser.add_argument("-o", "--output", required=True, help="the file to write, for YOLO(...)")
    given = parser.parse_args()
    put_back(given.folder, given.weights).save(given.output)


if __name__ == "__main__":
    main()
