"""The benchmark of new tasks: its sounds and shapes, its heads, its methods' starts, its rates, its table."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.benchmarks import benchmark
from torch import nn
from torchvision.models import resnet18

spoken_digits = benchmark("spoken_digits")
kinds = benchmark("transfer_kinds")
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


def moved_task(kind: object, shift: tuple[int, int], flips: bool) -> object:
    none = transfer_data.Labeled(torch.zeros(0, 3, 64, 64), torch.zeros(0))
    return transfer_data.NewTask(kind, lambda seed, count: none, none, (none,), shift, flips, {})


def test_an_augmented_image_is_moved_and_mirrored_only_as_its_task_says() -> None:
    images, labels = torch.randn(20, 3, 64, 64), torch.arange(20)
    generator = torch.Generator().manual_seed(0)
    data = transfer_data.Labeled(images, labels)
    still = transfer_data.augmented(data, moved_task(kinds.OF_IMAGES, (0, 0), False), generator)
    assert torch.equal(still.images, images)
    seen = transfer_data.augmented(data, moved_task(kinds.OF_IMAGES, (0, 0), True), generator)
    assert all(torch.equal(a, b) or torch.equal(a, b.flip(2)) for a, b in zip(seen.images, images, strict=True))
    assert not torch.equal(seen.images, images)
    assert torch.equal(seen.labels, labels)


def test_a_mask_is_moved_and_mirrored_as_its_image() -> None:
    masks = torch.randint(5, (20, 64, 64))
    data = transfer_data.Labeled(masks[:, None].float().repeat(1, 3, 1, 1), masks)
    seen = transfer_data.augmented(data, moved_task(kinds.OF_PIXELS, (4, 4), True), torch.Generator().manual_seed(0))
    assert torch.equal(seen.images[:, 0].long(), seen.labels)
    assert not torch.equal(seen.labels, masks)


def test_the_shapes_of_a_split_are_drawn_over_photographs_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "imagenet" / "calibration_diverse"
    photos.mkdir(parents=True)
    for index in range(14):  # each of a gray of its own
        Image.new("RGB", (130, 140), (10 + 15 * index,) * 3).save(photos / f"{index}.png")
    for name, count in (("DRAWN", 6), ("VALIDATION", 2), ("TEST", 4)):
        monkeypatch.setattr(transfer_data, name, count)
    task = transfer_data.shapes(tmp_path, tmp_path)
    splits = [task.train(0, 6), task.validation, *task.tests]
    assert [len(split.images) for split in splits] == [6, 2, 2, 2, 2]
    grays = [
        round(float(image[0][mask == 0].median()), 4) for split in splits for image, mask in zip(*split, strict=True)
    ]
    assert len(set(grays)) == 14
    assert all(split.images.shape[2:] == split.labels.shape[1:] == (64, 64) for split in splits)
    assert all(set(split.labels.unique().tolist()) <= set(range(5)) for split in splits)


def test_a_head_of_pixels_starts_at_zero_and_adds_its_answers() -> None:
    torch.manual_seed(0)
    net = kinds.PerPixel(resnet18().eval(), 5)
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(net(x), torch.zeros(2, 5, 64, 64))
    for index, convolution in enumerate(net.head):
        nn.init.constant_(convolution.bias, 10.0**index)
    assert torch.allclose(net(x), torch.full((2, 5, 64, 64), 1111.0))
    assert [convolution.in_channels for convolution in net.head] == [64, 128, 256, 512]


@pytest.mark.parametrize("kind", [kinds.OF_IMAGES, kinds.OF_PIXELS], ids=["images", "pixels"])
def test_a_method_trains_its_own_parameters_and_the_head(kind: object) -> None:
    original, images = resnet18().eval(), torch.randn(8, 3, 64, 64)
    full = transfer_methods.prepare("full", original, kind, images, 0)
    own = {id(parameter) for parameter in (*full.head, *full.others)}
    assert own == {id(parameter) for parameter in full.model.parameters()}
    assert len(own) == len(full.head) + len(full.others)
    head = transfer_methods.prepare("head", original, kind, images, 0)
    assert head.others == ()
    assert [p for p in head.model.parameters() if p.requires_grad] == list(head.head)
    lora = transfer_methods.prepare("lora", original, kind, images, 0, rank=1)
    norms = transfer_methods.prepare("norms", original, kind, images, 0)
    assert len(lora.others) == len(norms.others) + 2 * len(transfer_methods.routable(original))


def test_the_miou_of_a_known_confusion() -> None:
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2, 3, 4]).view(1, 3, 3)
    answers = torch.tensor([0, 0, 0, 1, 1, 1, 2, 3, 4]).view(1, 3, 3)
    logits = nn.functional.one_hot(answers, 5).movedim(3, 1).float()
    assert kinds.OF_PIXELS.percent(logits, labels) == pytest.approx(100 * (3 / 4 + 2 / 3 + 3) / 5)
    # Pixels are counted over all images: an image of the background alone is no image of its own.
    more = torch.cat([labels, torch.zeros_like(labels)])
    seen = torch.cat([logits, nn.functional.one_hot(torch.zeros(1, 3, 3).long(), 5).movedim(3, 1).float()])
    assert kinds.OF_PIXELS.percent(seen, more) == pytest.approx(100 * (12 / 13 + 2 / 3 + 3) / 5)


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


def test_a_table_is_titled_by_the_measure_of_its_task() -> None:
    found = [row("norms", seed, 70.0) for seed in range(3)]
    pixels = [{**own, "data": "shapes", "miou": own["top1"]} for own in found]
    for own in pixels:
        del own["top1"]
    assert "top-1, %" in transfer.summary([*found, *pixels], "cifar10").splitlines()[0]
    assert "mIoU, %" in transfer.summary([*found, *pixels], "shapes").splitlines()[0]


def test_a_seed_waits_until_every_learning_rate_was_tried(tmp_path: Path) -> None:
    bench = transfer.Bench(nn.Identity(), "cifar10", None, tmp_path / "rows.jsonl", lambda: 1)
    assert transfer.seed_row(bench, "se", 0) is None
