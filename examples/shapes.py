"""A detector and a segmentation net with ResNet-18 as backbone, trained on shapes drawn over photographs.

    python examples/shapes.py draw PHOTOS shapes                       # 1,000 pictures to train, 300 to test
    python examples/shapes.py train segmenter shapes --backbone resnet18.safetensors -o segmenter.safetensors
    python examples/shapes.py train detector shapes --backbone resnet18.safetensors -o detector.safetensors

    kdna convert examples/shapes.py:detector --checkpoint detector.safetensors --data shapes/train/images \
        --recipe smallest --target-bytes 1/8 -o detector-small
    kdna eval detector-small --trust-code --data shapes/test/images::shapes/test/instances.json

Every picture shows one to four shapes, each of random color, size and place. The pictures of the two splits are drawn
over different photographs. The backbone is torchvision's resnet18 with its weights of ImageNet.
"""

import argparse
import json
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.segmentation.fcn import FCN, FCNHead
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from torchvision.transforms.functional import pil_to_tensor

SIDE = 128
CLASSES = ("background", "disk", "square", "triangle", "diamond")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH = 8


def segmenter() -> FCN:
    """Map normalized images (B, 3, H, W) to {"out": logits (B, 5, H, W)}; the backbone has a stride of 8."""
    body = resnet18()
    for conv in (body.layer3[0].conv1, body.layer3[0].downsample[0]):
        conv.stride = (1, 1)
    stages = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")
    net = FCN(_Last(stages, body), FCNHead(256, len(CLASSES)))
    net.pretrained_cfg = {"input_size": (3, SIDE, SIDE), "crop_pct": 1.0, "mean": MEAN, "std": STD}
    return net


def detector() -> FCOS:
    """Map images in 0..1 to torchvision's lists of boxes, labels and scores. It normalizes by itself."""
    levels, channels = {"layer2": "0", "layer3": "1", "layer4": "2"}, [128, 256, 512]
    body = BackboneWithFPN(resnet18(), levels, channels, 128, LastLevelP6P7(128, 128))
    anchors = AnchorGenerator(((8,), (16,), (32,), (64,), (128,)), ((1.0,),) * 5)
    net = FCOS(body, len(CLASSES), min_size=SIDE, max_size=SIDE, anchor_generator=anchors, detections_per_img=20)
    net.pretrained_cfg = {"input_size": (3, SIDE, SIDE), "crop_pct": 1.0, "mean": (0.0,) * 3, "std": (1.0,) * 3}
    return net


class _Last(nn.Sequential):
    """Modules of a net one after another, by their names. Returns {"out": the last output}."""

    def __init__(self, names: tuple[str, ...], net: nn.Module) -> None:
        super().__init__(OrderedDict((name, net.get_submodule(name)) for name in names))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": super().forward(x)}


def draw(photos: Path, out: Path, counts: dict[str, int], seed: int = 0) -> None:
    """Write images, masks and instances.json of every split; its photographs are in no other split."""
    files = sorted(file for file in photos.rglob("*") if file.suffix.lower() in (".png", ".jpg", ".jpeg"))
    if len(files) < len(counts):
        raise SystemExit(f"{photos} holds {len(files)} photographs, fewer than splits")
    generator = random.Random(seed)
    generator.shuffle(files)
    total, first = sum(counts.values()), 0
    for split, count in counts.items():
        own = files[first : first + max(1, len(files) * count // total)]
        first += len(own)
        for folder in ("images", "masks"):
            (out / split / folder).mkdir(parents=True)
        boxes = []
        for index in range(count):
            image, mask, found = _picture(own[index % len(own)], generator)
            image.save(out / split / "images" / f"{index:05}.png")
            mask.save(out / split / "masks" / f"{index:05}.png")
            boxes += [{"image_id": index, "category_id": shape, "bbox": box} for shape, box in found]
        images = [{"id": i, "file_name": f"{i:05}.png", "width": SIDE, "height": SIDE} for i in range(count)]
        kinds = [{"id": number, "name": name} for number, name in enumerate(CLASSES) if number]
        rows = [
            row | {"id": i + 1, "area": row["bbox"][2] * row["bbox"][3], "iscrowd": 0} for i, row in enumerate(boxes)
        ]
        table = {"images": images, "annotations": rows, "categories": kinds}
        (out / split / "instances.json").write_text(json.dumps(table))


def _picture(photo: Path, generator: random.Random) -> tuple[Image.Image, Image.Image, list[tuple[int, list[int]]]]:
    """A part of a photograph with shapes, its mask, and the class and box (x, y, width, height) of each shape."""
    source = Image.open(photo).convert("RGB")
    cut = min(*source.size, generator.randint(SIDE, 2 * SIDE))
    left, top = (generator.randint(0, side - cut) for side in source.size)
    image = source.crop((left, top, left + cut, top + cut)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    mask, taken = Image.new("L", image.size), []
    for _ in range(generator.randint(1, 4)):
        side, shape = generator.randint(14, 60), generator.randint(1, len(CLASSES) - 1)
        x, y = generator.randint(0, SIDE - side - 1), generator.randint(0, SIDE - side - 1)
        if any(x < u + s and u < x + side and y < v + s and v < y + side for _, (u, v, s, _) in taken):
            continue
        color = tuple(generator.randint(0, 255) for _ in range(3))
        over = image.copy()
        for canvas, fill in ((over, color), (mask, shape)):
            _fill(ImageDraw.Draw(canvas), shape, x, y, side - 1, fill)
        image = Image.blend(image, over, generator.uniform(0.5, 1.0))
        taken.append((shape, [x, y, side, side]))
    return image, mask, taken


def _fill(canvas: ImageDraw.ImageDraw, shape: int, x: int, y: int, side: int, fill: int | tuple[int, ...]) -> None:
    """One shape in the square from (x, y) to (x + side, y + side)."""
    half, end, bottom = x + side / 2, x + side, y + side
    corners = {
        "square": [(x, y), (end, y), (end, bottom), (x, bottom)],
        "triangle": [(half, y), (end, bottom), (x, bottom)],
        "diamond": [(half, y), (end, y + side / 2), (half, bottom), (x, y + side / 2)],
    }
    if CLASSES[shape] == "disk":
        canvas.ellipse((x, y, end, bottom), fill=fill)
    else:
        canvas.polygon(corners[CLASSES[shape]], fill=fill)


def segmenter_loss(net: nn.Module, images: Tensor, masks: Tensor, _: list[dict[str, Tensor]]) -> Tensor:
    """Cross-entropy of all pixels."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return F.cross_entropy(net((images - mean) / std)["out"], masks)


def detector_loss(net: nn.Module, images: Tensor, _: Tensor, boxes: list[dict[str, Tensor]]) -> Tensor:
    """The sum of torchvision's losses."""
    losses: dict[str, Tensor] = net(list(images), boxes)
    return torch.stack(list(losses.values())).sum()


NETS: dict[str, tuple[Callable[[], nn.Module], str, Callable[..., Tensor]]] = {
    "segmenter": (segmenter, "backbone", segmenter_loss),
    "detector": (detector, "backbone.body", detector_loss),
}


def start(name: str, backbone: Path | None) -> nn.Module:
    """The net with random weights, its backbone with those of a resnet18 if given."""
    net = NETS[name][0]()
    if backbone is not None:
        body = net.get_submodule(NETS[name][1])
        weights = load_file(backbone)
        body.load_state_dict({key: weights[key] for key in body.state_dict()})
    return net


def read(folder: Path) -> tuple[Tensor, Tensor, list[dict[str, Tensor]]]:
    """The images (N, 3, SIDE, SIDE) in 0..1 and the masks (N, SIDE, SIDE) of a split, and the boxes of each image."""
    table = json.loads((folder / "instances.json").read_text())
    names = [row["file_name"] for row in table["images"]]
    images = torch.stack([pil_to_tensor(Image.open(folder / "images" / name)) for name in names]) / 255
    masks = torch.stack([pil_to_tensor(Image.open(folder / "masks" / name))[0].long() for name in names])
    boxes = []
    for row in table["images"]:
        own = [each for each in table["annotations"] if each["image_id"] == row["id"]]
        xywh = torch.tensor([each["bbox"] for each in own], dtype=torch.float32)
        corners = torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1)
        boxes.append({"boxes": corners, "labels": torch.tensor([each["category_id"] for each in own])})
    return images, masks, boxes


def _mirrored(
    images: Tensor, masks: Tensor, boxes: list[dict[str, Tensor]]
) -> tuple[Tensor, Tensor, list[dict[str, Tensor]]]:
    flipped = [
        each | {"boxes": torch.stack([SIDE - b[:, 2], b[:, 1], SIDE - b[:, 0], b[:, 3]], 1)}
        for each in boxes
        for b in (each["boxes"],)
    ]
    return images.flip(3), masks.flip(2), flipped


def _batches(count: int) -> Iterator[Tensor]:
    return (index for index in torch.randperm(count).split(BATCH) if len(index) == BATCH)


def train(name: str, data: Path, backbone: Path | None, epochs: int, seed: int = 0) -> nn.Module:
    """AdamW with a one-cycle learning rate; a random half of the batches is mirrored."""
    torch.manual_seed(seed)
    net, loss_of = start(name, backbone).train(), NETS[name][2]
    images, masks, boxes = read(data / "train")
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.01)
    steps = epochs * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-3, total_steps=steps)
    began = time.monotonic()
    for epoch in range(epochs):
        total, done = 0.0, 0
        for index in _batches(len(images)):
            batch = images[index], masks[index], [boxes[i] for i in index.tolist()]
            loss = loss_of(net, *(_mirrored(*batch) if torch.rand(()) < 0.5 else batch))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimizer.step()
            schedule.step()
            total, done = total + loss.item(), done + 1
        print(f"epoch {epoch + 1:2}  loss {total / done:.4f}  {time.monotonic() - began:.0f} s", flush=True)
    return net.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    drawing = commands.add_parser("draw", help="draw the pictures")
    drawing.add_argument("photos", type=Path, help="a folder of photographs")
    drawing.add_argument("out", type=Path)
    drawing.add_argument("--train", type=int, default=1000)
    drawing.add_argument("--test", type=int, default=300)
    training = commands.add_parser("train", help="train a net")
    training.add_argument("net", choices=sorted(NETS))
    training.add_argument("data", type=Path, help="the folder of the pictures")
    training.add_argument("--backbone", type=Path, help="torchvision's resnet18, .safetensors")
    training.add_argument("--epochs", type=int, default=8)
    training.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    if given.command == "draw":
        draw(given.photos, given.out, {"train": given.train, "test": given.test})
    else:
        net = train(given.net, given.data, given.backbone, given.epochs)
        save_file(net.state_dict(), given.output)


if __name__ == "__main__":
    main()
