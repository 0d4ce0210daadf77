"""Train the net that `kdna demo` converts, and write kdna_convert/assets/digits.safetensors.

    python examples/train_digits.py            # a minute on two cores

40 epochs of AdamW with a one-cycle learning rate. Each image is shifted by up to one pixel.
"""

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdna_convert.core.tensorfile import save_tensors
from kdna_convert.inputs.digits import WEIGHTS, digits, digits_net

BATCH = 64


def shifted(images: Tensor) -> Tensor:
    """Shift each image by -1, 0 or 1 pixels along both axes, padded with the background."""
    padded = F.pad(images, (1, 1, 1, 1), value=float(images.min()))
    rows, columns = torch.randint(3, (2, len(images), 1))
    reach = torch.arange(8)
    return padded[
        torch.arange(len(images))[:, None, None],
        :,
        (rows + reach)[:, :, None],
        (columns + reach)[:, None, :],
    ].permute(0, 3, 1, 2)


def train(epochs: int, seed: int) -> nn.Module:
    """Return the trained net, in eval mode."""
    torch.manual_seed(seed)
    images, labels = digits("train")
    model = digits_net()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    steps = epochs * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
    for epoch in range(epochs):
        total = 0.0
        for index in torch.randperm(len(images)).split(BATCH):
            loss = F.cross_entropy(model(shifted(images[index])), labels[index], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += len(index) * loss.item()
        print(f"epoch {epoch + 1:2}  loss {total / len(images):.4f}", flush=True)
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    model = train(arguments.epochs, arguments.seed)
    images, labels = digits("test")
    with torch.no_grad():
        right = int((model(images).argmax(1) == labels).sum())
    print(f"{right} of {len(labels)} test digits right, {100 * right / len(labels):.2f} %")
    save_tensors(WEIGHTS, model.state_dict(), {"format": "pt"})
    print(f"wrote {WEIGHTS}, {WEIGHTS.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
