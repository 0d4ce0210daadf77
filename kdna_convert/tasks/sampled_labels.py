"""Labels whose gradients estimate the sensitivity of the loss with little noise.

The sensitivity is the mean of the squared gradient over labels that are drawn from the net's own softmax. A trained net
is nearly certain of its images: almost all of these labels give almost no gradient, and a few unlikely ones give most
of the sum. So unlikely labels are drawn more often here, and their gradients count less.

Standard deviation, between two seeds, of the logarithm of a layer's sensitivity relative to the other layers', and the
ratio of the mean sensitivities (ResNet-56, 55 layers):

    images                              1,000           128
    labels drawn from the softmax       0.10, 3.0       0.15, 2.7
    labels drawn as here                0.02, 1.1       0.06, 1.1
"""

from __future__ import annotations

import torch
from torch import Tensor

# The least probability of a label, which only keeps the division finite.
_LEAST = 1e-12


def draw(share_bc: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw one label per image, and the weight of its loss.

    A label of probability p has the gradient e - p at the logits. It is drawn with a probability q proportional to
    p |e - p|, and its loss is weighted by the root of p / q: the mean squared gradient is that of labels drawn from p.

    Args:
        share_bc: The net's softmax, on the CPU.
        generator: Of the draw.

    Returns:
        The labels (images,) and the weights (images,).
    """
    length_bc = (1 - 2 * share_bc + share_bc.square().sum(1, keepdim=True)).clamp_min(0).sqrt()
    drawn_bc = share_bc * length_bc + _LEAST
    drawn_bc = drawn_bc / drawn_bc.sum(1, keepdim=True)
    labels_b1 = torch.multinomial(drawn_bc, 1, generator=generator)
    weights_b1 = (share_bc.gather(1, labels_b1) / drawn_bc.gather(1, labels_b1)).sqrt()
    return labels_b1.squeeze(1), weights_b1.squeeze(1)
