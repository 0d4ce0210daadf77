"""A picture of what conversion changes in an image-to-image net: original, converted, and their difference.

    python examples/side_by_side.py FOLDER photo.png -o picture.png \
        --model examples/realesrgan.py:x4plus_anime --checkpoint realesrgan_x4plus_anime.safetensors

The input is a part of the photograph, from its middle, as large as the net's input. The difference is amplified.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

import kdna_convert as kdna
from kdna_convert.inputs.models import load_model

GAP = 8


def middle(photo: Path, height: int, width: int) -> Tensor:
    """The middle part (1, 3, height, width) of a photograph, in 0..1."""
    image = Image.open(photo).convert("RGB")
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return pil_to_tensor(image.crop((left, top, left + width, top + height)))[None] / 255


def side_by_side(given: Tensor, original: Tensor, converted: Tensor, amplify: float) -> Tensor:
    """One image: the input enlarged to the size of the outputs, both outputs, and 0.5 + amplify * their difference."""
    enlarged = torch.nn.functional.interpolate(given, original.shape[2:], mode="nearest")
    difference = (0.5 + amplify * (converted - original)).clamp(0, 1)
    gap = torch.ones(*original.shape[:3], GAP)
    row = [part for panel in (enlarged, original, converted, difference) for part in (panel, gap)]
    return torch.cat(row[:-1], 3)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="the converted folder")
    parser.add_argument("photo", type=Path)
    parser.add_argument("--model", required=True, help="the original, as for kdna convert")
    parser.add_argument("--checkpoint")
    parser.add_argument("--amplify", type=float, default=5)
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    original = load_model(given.model, checkpoint=given.checkpoint)
    converted = kdna.load(given.folder, folded=True, trust_code=True)
    part = middle(given.photo, *original.data.input_size[1:])
    with torch.inference_mode():
        before, after = (net.eval()(part).clamp(0, 1) for net in (original.model, converted))
    error = float((after - before).square().mean())
    print(f"PSNR {-10 * torch.log10(torch.tensor(max(error, 1e-12))).item():.2f} dB")
    to_pil_image(side_by_side(part, before, after, given.amplify)).save(given.output)


if __name__ == "__main__":
    main()
