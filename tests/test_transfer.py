"""The benchmark of new tasks: its sounds, its methods' starts, the rate that it chooses, its table."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from support.benchmarks import benchmark
from torch import nn

spoken_digits = benchmark("spoken_digits")
transfer_data = benchmark("transfer_data")
transfer_methods = benchmark("transfer_methods")
transfer = benchmark("transfer")


def test_no_variant_of_a_voice_is_heard_in_two_splits() -> None:
    variants = [voice.split("+")[1] for split in spoken_digits.VARIANTS for voice in spoken_digits.voices(split)]
    assert len(set(variants)) == len(variants)


def test_a_tone_is_in_the_band_of_its_frequency_and_noise_is_the_same_for_a_seed() -> None:
    time = np.arange(spoken_digits.SAMPLES) / spoken_digits.RATE
    tones = torch.tensor(np.stack([np.sin(2 * np.pi * hertz * time) for hertz in (300, 1000, 4000)])).float()
    images = spoken_digits.log_mel(tones)
    assert images.shape == (3, 64, 64)
    loudest = images.mean(2).argmax(1)
    mels = [2595 * math.log10(1 + hertz / 700) for hertz in (300, 1000, 4000, 8000)]
    assert (loudest - torch.tensor([64 * mel / mels[3] for mel in mels[:3]])).abs().max() < 2
    spoken = spoken_digits.Spoken((np.ones(400, np.float32),), torch.tensor([7]))
    first, second, other = (spoken_digits.noisy(spoken, [0, 0], seed) for seed in (1, 1, 2))
    assert first.shape == (2, 3, 64, 64)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_an_augmented_image_is_moved_and_mirrored_only_as_its_task_says() -> None:
    images = torch.randn(20, 3, 64, 64)
    labeled = transfer_data.Labeled(images, torch.zeros(20))
    still = transfer_data.NewTask(lambda seed, count: labeled, labeled, (labeled,), (0, 0), False, {})
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(transfer_data.augmented(images, still, generator), images)
    mirrored = transfer_data.NewTask(still.train, labeled, (labeled,), (0, 0), True, {})
    seen = transfer_data.augmented(images, mirrored, generator)
    assert all(torch.equal(a, b) or torch.equal(a, b.flip(2)) for a, b in zip(seen, images, strict=True))
    assert not torch.equal(seen, images)


def test_lora_starts_as_its_convolution_and_can_be_merged_into_it() -> None:
    conv, x = nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False), torch.randn(2, 4, 9, 9)
    layer = transfer_methods.LowRank(conv, 2)
    assert torch.equal(layer(x), conv(x))
    nn.init.normal_(layer.up.weight)
    merged = conv.weight + torch.einsum("or,rikl->oikl", layer.up.weight[:, :, 0, 0], layer.down.weight)
    assert torch.allclose(layer(x), nn.functional.conv2d(x, merged, None, 2, 1), atol=1e-5)


def row(method: str, seed: int, top1: float) -> dict[str, object]:
    about = {"task": f"cifar10, {method}, seed {seed}", "data": "cifar10", "method": method, "seed": seed}
    return {
        **about,
        "trained": 1000,
        "rank": 3 if method == "lora" else None,
        "rate": 0.001,
        "top1": top1,
        "seconds": 9,
    }


def test_a_table_has_the_methods_of_all_seeds_with_differences_paired_by_seed() -> None:
    found = [row(method, seed, base + top) for seed, base in ((0, 70), (1, 80), (2, 90)) for method, top in
             (("norms", 0.0), ("lora", 1.0), ("se", (0.0, 1.0, 2.0)[seed]))]  # fmt: skip
    found.append(row("full", 0, 50.0))
    lines = transfer.summary(found, "cifar10").splitlines()[2:]
    # Student's t over three values: 4.303 standard deviations over the root of three.
    assert lines[0] == "| norms | 1,000 | 0.001 | 80.0 ± 24.8 |  | -1.0 ± 0.0 | 9 |"
    assert lines[1] == "| lora, rank 3 | 1,000 | 0.001 | 81.0 ± 24.8 | +1.0 ± 0.0 |  | 9 |"
    assert lines[2] == "| se | 1,000 | 0.001 | 81.0 ± 27.3 | +1.0 ± 2.5 | +0.0 ± 2.5 | 9 |"
    assert len(lines) == 3


def test_a_seed_waits_until_every_learning_rate_was_tried(tmp_path: Path) -> None:
    bench = transfer.Bench(nn.Identity(), "cifar10", None, tmp_path / "rows.jsonl", lambda: 1)
    assert transfer.seed_row(bench, "se", 0) is None
