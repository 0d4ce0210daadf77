"""A denoiser: DnCNN (Zhang et al. 2017) with 12 convolutions of 48 channels, trained on noisy parts of photographs.

    python examples/denoiser.py PHOTOS -o denoiser.safetensors             # ten minutes on one core

    kdna convert examples/denoiser.py:dncnn --checkpoint denoiser.safetensors --task image --data PHOTOS::noise25 \
        --recipe smallest --target-bytes 1/8 -o denoiser-small
    kdna eval denoiser-small --trust-code --data OTHER_PHOTOS::noise25 --crop middle

Images are in [0, 1] and are not normalized. The net subtracts the noise that it finds.
"""

import argparse
import time
from collections import OrderedDict
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.transforms.functional import pil_to_tensor

DEPTH, CHANNELS, NOISE = 12, 48, 25 / 255
PART, BATCH, PARTS = 48, 16, 20_000


class DnCNN(nn.Module):
    """Map noisy images (B, 3, H, W) to clean ones: the input less what the convolutions find."""

    def __init__(self, depth: int, channels: int) -> None:
        super().__init__()
        self.pretrained_cfg = {"input_size": (3, 96, 96), "crop_pct": 1.0, "mean": (0.0,) * 3, "std": (1.0,) * 3}
        layers: OrderedDict[str, nn.Module] = OrderedDict(first=nn.Conv2d(3, channels, 3, padding=1), relu=nn.ReLU())
        for i in range(depth - 2):
            layers[f"conv{i + 1}"] = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            layers[f"norm{i + 1}"] = nn.BatchNorm2d(channels)
            layers[f"relu{i + 1}"] = nn.ReLU()
        self.body = nn.Sequential(layers)
        self.last = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        clean: Tensor = x - self.last(self.body(x))
        return clean


def dncnn() -> DnCNN:
    """0.2 M parameters."""
    return DnCNN(DEPTH, CHANNELS)


def parts(photos: Path, count: int) -> Tensor:
    """Random parts (count, 3, PART, PART) of the photographs, in 0..1; large photographs are halved first."""
    files = sorted(file for file in photos.rglob("*") if file.suffix.lower() in (".png", ".jpg", ".jpeg"))
    images = []
    for file in files:
        picture = Image.open(file).convert("RGB").reduce(2)
        if min(picture.size) >= PART:
            images.append(pil_to_tensor(picture))
    if not images:
        raise SystemExit(f"{photos} holds no photographs of {2 * PART} pixels or more")
    drawn = []
    for index in torch.randint(len(images), (count,)).tolist():
        height, width = images[index].shape[1:]
        top, left = (int(torch.randint(side - PART + 1, ())) for side in (height, width))
        drawn.append(images[index][:, top : top + PART, left : left + PART])
    return torch.stack(drawn) / 255


def train(photos: Path, minutes: float, count: int = PARTS, seed: int = 0) -> DnCNN:
    """AdamW on the squared error; the learning rate falls to zero along a cosine over the given minutes."""
    torch.manual_seed(seed)
    net = dncnn().train()
    clean = parts(photos, count)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=1e-4)
    began, step, total = time.monotonic(), 0, 0.0
    while (passed := (time.monotonic() - began) / 60 / minutes) < 1:
        optimizer.param_groups[0]["lr"] = 0.5e-3 * (1 + torch.cos(torch.tensor(torch.pi * passed)).item())
        x = clean[torch.randint(len(clean), (BATCH,))]
        loss = F.mse_loss(net(x + NOISE * torch.randn_like(x)), x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step, total = step + 1, total + loss.item()
        if step % 100 == 0:
            psnr = -10 * torch.log10(torch.tensor(total / 100)).item()
            print(f"step {step:5}  {psnr:.2f} dB  {passed:.0%}", flush=True)
            total = 0.0
    return net.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="a folder of photographs")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    save_file(train(given.photos, given.minutes).state_dict(), given.output)


if __name__ == "__main__":
    main()
