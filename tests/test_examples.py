"""The nets of examples/ equal those of their papers and of the shared checkpoints; the audio net is routed."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import kdna_convert as kdna
from kdna_convert.inputs.data import batches, open_images
from kdna_convert.inputs.models import Loaded, load_model
from kdna_convert.inputs.recipe import parse_recipe
from kdna_convert.routing import routers

EXAMPLE = Path(__file__).parent.parent / "examples" / "cifar_resnet.py"


def load(name: str, checkpoint: Path | None = None) -> Loaded:
    return load_model(f"{EXAMPLE}:{name}", checkpoint=None if checkpoint is None else str(checkpoint))


@pytest.mark.parametrize(
    ("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)], ids=lambda value: str(value)
)
def test_depth_and_size_are_those_of_the_papers_table_6(depth: int, millions: float) -> None:
    model = load(f"resnet{depth}").model
    weighted = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    assert len(weighted) == depth
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.02)


def test_the_net_carries_its_input() -> None:
    data = load("resnet20").data
    assert (data.input_size, data.crop_pct) == ((3, 32, 32), 1.0)
    assert load("resnet20(num_classes=7)").model(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_a_shortcut_keeps_every_second_pixel_and_pads_zeros_on_both_sides() -> None:
    model = load("resnet20").model
    block = model.layer2[0]  # type: ignore[index, union-attr]
    x = torch.randn(2, 16, 8, 8)
    shortcut = block.shortcut(x)
    assert torch.equal(shortcut[:, 8:24], x[:, :, ::2, ::2])
    assert shortcut[:, :8].abs().max() == shortcut[:, 24:].abs().max() == 0
    assert torch.equal(model.layer2[1].shortcut(shortcut), shortcut)  # type: ignore[index, union-attr]


def test_a_block_adds_its_shortcut_before_the_last_relu() -> None:
    block = load("resnet20").model.layer1[0]  # type: ignore[index, union-attr]
    x = torch.rand(2, 16, 8, 8)
    nn.init.zeros_(block.bn2.weight)
    assert torch.equal(block(x), F.relu(x))


def test_an_audio_net_is_routed_in_every_block_and_keeps_its_outputs() -> None:
    audio = runpy.run_path(str(EXAMPLE.with_name("audio_mel.py")))
    waves, kinds = audio["sounds"](4, 0)
    x = audio["log_mel"](waves)
    assert x.shape == (4, 1, 32, 33)
    assert x.isfinite().all()
    assert set(audio["sounds"](200, 1)[1].tolist()) == set(range(5))
    assert torch.equal(audio["sounds"](4, 0)[1], kinds)
    model = audio["net"](4).eval()
    routed = audio["route"](model, x)
    assert [name for name in routers(routed) if name.endswith("filter.2")] == ["1.filter.2", "2.filter.2", "3.filter.2"]
    torch.testing.assert_close(routed(x), model(x))


def test_a_yolo_is_converted_and_put_back_into_ultralytics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path))
    pytest.importorskip("ultralytics", reason="pip install ultralytics")
    example = runpy.run_path(str(EXAMPLE.with_name("yolo.py")))
    net = example["yolo"]("yolov8n.yaml")
    images = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    recipe = parse_recipe("scheme: lowrank\nrepair: []\ncalibration: {images: 4, heldout: 4}\n")
    conversion = kdna.convert(net, recipe=recipe, data=images, target_params=0.8, outputs=example["scored"])
    assert conversion.report.divergence is not None
    assert conversion.report.divergence.task == "raw"
    with torch.no_grad():
        assert [each.shape[1] for each in example["scored"](net(images))] == [80, 64]  # scores and boxes
        folder = str(kdna.save(conversion, tmp_path / "net"))
        whole = example["put_back"](folder, "yolov8n.yaml")
        torch.testing.assert_close(whole.model.eval()(images)[0], conversion.model(images)[0])
    whole.save(tmp_path / "small.pt")
    assert len(type(whole)(tmp_path / "small.pt").predict(images[:1], imgsz=64, verbose=False)) == 1


@pytest.mark.acceptance
@pytest.mark.parametrize("depth", [20, 32, 56])
def test_the_shared_checkpoints_load_strictly_and_know_their_images(shared_data: Path, depth: int) -> None:
    loaded = load(f"resnet{depth}", shared_data / "checkpoints" / f"cifar10_resnet{depth}.safetensors")
    images = open_images(shared_data / "cifar10" / "test", loaded.data, limit=200)
    with torch.inference_mode():
        right = sum(int((loaded.model(x).argmax(1) == y).sum()) for x, y in batches(images, 100) if y is not None)
    assert right >= 174, "91.9 to 93.3 % of all 5,000: fewer than 87 % of 200 is four standard errors away"


def test_the_upscaler_quadruples_each_side_and_a_block_without_output_is_an_identity() -> None:
    example = EXAMPLE.with_name("realesrgan.py")
    model = load_model(f"{example}:x4plus_anime").model
    assert sum(parameter.numel() for parameter in model.parameters()) == 4_467_779
    assert model(torch.rand(1, 3, 5, 6)).shape == (1, 3, 20, 24)
    block = model.body[0].rdb1  # type: ignore[index, union-attr]
    x = torch.rand(1, 64, 4, 4)
    nn.init.zeros_(block.conv5.weight)
    nn.init.zeros_(block.conv5.bias)
    assert torch.equal(block(x), x)


@pytest.mark.acceptance
def test_the_shared_upscaler_loads_strictly_and_keeps_a_gray_image_gray(shared_data: Path) -> None:
    checkpoint = shared_data / "checkpoints" / "realesrgan_x4plus_anime.safetensors"
    model = load_model(f"{EXAMPLE.with_name('realesrgan.py')}:x4plus_anime", checkpoint=str(checkpoint)).model
    with torch.inference_mode():
        gray = model(torch.full((1, 3, 16, 16), 0.5))
    assert (gray - 0.5).abs().max() < 0.05


def crepe(name: str) -> Any:
    return runpy.run_path(str(EXAMPLE.with_name("crepe.py")))[name]


def tones(*pitches: float) -> Tensor:
    """Frames (B, 1, 1024) of tones of these pitches in Hz, at 16 kHz."""
    return torch.sin(2 * torch.pi * torch.tensor(pitches)[:, None] * torch.arange(1024) / 16000)[:, None]


def test_the_pitch_tracker_has_the_size_of_the_paper_and_ignores_loudness_and_offset() -> None:
    loaded = load_model(f"{EXAMPLE.with_name('crepe.py')}:tiny")
    assert (loaded.data.input_size, loaded.data.sample_rate, loaded.data.mean) == ((1, 1024), 16000, (0.0,))
    assert sum(parameter.numel() for parameter in loaded.model.parameters()) == 486_552
    x = torch.randn(2, 1, 1024)
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(3 * x + 0.5), loaded.model(x))
        silence = loaded.model(torch.zeros(1, 1, 1024))
    assert silence.shape == (1, 360)
    assert silence.isfinite().all()


def test_a_pitch_is_the_mean_of_its_neighborhood() -> None:
    pitch, salience = crepe("pitch"), torch.zeros(3, 360)
    salience[0, 0] = salience[1, 359] = 1.0
    salience[2, 100:102], salience[2, 200] = 1.0, 0.9
    cents = 1200 * (pitch(salience) / 10).log2()
    torch.testing.assert_close(cents - 1997.3794084376191, torch.tensor([0.0, 7180.0, 2010.0]), rtol=1e-5, atol=0.01)


def test_agreement_counts_voiced_frames_within_50_cents() -> None:
    frames = torch.zeros(4, 1, 360)
    frames[0, 0, 9], frames[1, 0, 50], frames[2, 0, 90], frames[3, 0, 30] = 1.0, 1.0, 1.0, 0.4

    class Shift(nn.Module):
        """Returns the frames; those above step 70 are 60 cents higher, the others `steps` higher."""

        def __init__(self, steps: int) -> None:
            super().__init__()
            self.steps = nn.Parameter(torch.tensor(steps), requires_grad=False)

        def forward(self, x: Tensor) -> Tensor:
            high = x.argmax(2) > 70
            return torch.where(high, x[:, 0].roll(3 * int(self.steps > 0), 1), x[:, 0].roll(int(self.steps), 1))

    assert crepe("agreement")(Shift(0), Shift(2), [(frames, None)]) == (3, 2)


@pytest.mark.acceptance
def test_the_shared_pitch_tracker_loads_strictly_and_hears_440_hz(shared_data: Path) -> None:
    checkpoint = shared_data / "checkpoints" / "crepe_tiny.safetensors"
    model = load_model(f"{EXAMPLE.with_name('crepe.py')}:tiny", checkpoint=str(checkpoint)).model
    with torch.no_grad():
        salience = model(tones(440.0, 110.0, 880.0))
    cents = 1200 * (crepe("pitch")(salience) / torch.tensor([440.0, 110.0, 880.0])).log2()
    assert cents.abs().max() < 10
    assert salience.amax(1).min() > 0.5


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six photographs of noise, 200 pixels wide."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(6):
        pixels = np.random.default_rng(index).integers(0, 255, (180, 200, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def test_drawn_masks_and_boxes_show_the_same_shapes(photos: Path, tmp_path: Path) -> None:
    shapes = runpy.run_path(str(EXAMPLE.with_name("shapes.py")))
    shapes["draw"](photos, tmp_path / "shapes", {"train": 5, "test": 1})
    images, masks, boxes = shapes["read"](tmp_path / "shapes" / "train")
    assert images.shape == (5, 3, shapes["SIDE"], shapes["SIDE"])
    for mask, own in zip(masks, boxes, strict=True):
        assert {*mask.unique().tolist()} - {0} == {*own["labels"].tolist()}
        for (x1, y1, x2, y2), label in zip(own["boxes"].int().tolist(), own["labels"].tolist(), strict=True):
            inside = {label} if shapes["CLASSES"][label] == "square" else {0, label}  # a square fills its box
            assert {*mask[y1:y2, x1:x2].unique().tolist()} == inside
            rows, columns = (mask[y1:y2, x1:x2] == label).nonzero(as_tuple=True)
            assert max(rows.max() - rows.min(), columns.max() - columns.min()) >= x2 - x1 - 3


def test_the_nets_of_shapes_are_of_their_tasks_and_learn(photos: Path, tmp_path: Path) -> None:
    shapes = runpy.run_path(str(EXAMPLE.with_name("shapes.py")))
    shapes["draw"](photos, tmp_path / "shapes", {"train": 8, "test": 1})
    for name, task in (("segmenter", "segment"), ("detector", "detect")):
        net = shapes["train"](name, tmp_path / "shapes", None, 1)
        fresh = shapes["start"](name, None)
        assert any(not torch.equal(a, b) for a, b in zip(net.parameters(), fresh.parameters(), strict=True))
        loaded = load_model(f"{EXAMPLE.with_name('shapes.py')}:{name}")
        data = tmp_path / "shapes" / "test"
        labels = data / ("masks" if task == "segment" else "instances.json")
        found = kdna.evaluate(loaded.model, data=f"{data / 'images'}::{labels}")
        assert found.task == task


def test_the_denoiser_subtracts_what_it_finds_and_trains_on_parts(photos: Path) -> None:
    denoiser = runpy.run_path(str(EXAMPLE.with_name("denoiser.py")))
    net = denoiser["train"](photos, 0.005, count=8)
    fresh = denoiser["dncnn"]().eval()
    assert any(not torch.equal(a, b) for a, b in zip(net.parameters(), fresh.parameters(), strict=True))
    assert sum(parameter.numel() for parameter in net.parameters()) == 210_963
    x = denoiser["parts"](photos, 2)
    assert x.shape == (2, 3, denoiser["PART"], denoiser["PART"])
    nn.init.zeros_(net.last.weight)
    nn.init.zeros_(net.last.bias)
    assert torch.equal(net(x), x)


def test_side_by_side_shows_input_outputs_and_their_difference_around_gray(photos: Path) -> None:
    example = runpy.run_path(str(EXAMPLE.with_name("side_by_side.py")))
    part = example["middle"](photos / "0.png", 16, 20)
    output = torch.rand(1, 3, 64, 80)
    row = example["side_by_side"](part, output, output, 5)
    assert row.shape == (3, 64, 4 * 80 + 3 * example["GAP"])
    assert torch.equal(row[:, :, -80:], torch.full((3, 64, 80), 0.5))


def test_the_net_of_sensors_learns_windows_that_kdna_reads_and_is_planned_for_a_board(tmp_path: Path) -> None:
    example = EXAMPLE.with_name("sensors.py")
    sensors = runpy.run_path(str(example))
    sensors["draw"](tmp_path / "data", {"train": 50, "test": 20})
    waves, states = sensors["read"](tmp_path / "data" / "train")
    assert (waves.shape, states.bincount().tolist()) == ((50, 3, 256), [10] * 5)
    loaded = load_model(f"{example}:net")
    read = open_images(tmp_path / "data" / "train", loaded.data)
    assert sorted(read.classes) == sorted(sensors["CLASSES"])
    torch.testing.assert_close(next(iter(batches(read, 50)))[0], waves)
    net = sensors["train"](tmp_path / "data", 1)
    fresh = sensors["net"]()
    assert any(not torch.equal(a, b) for a, b in zip(net.parameters(), fresh.parameters(), strict=True))
    assert 0 <= sensors["accuracy"](net, tmp_path / "data") <= 1
    recipe = parse_recipe("scheme: cp\ncalibration: {images: 20, heldout: 10}\n")
    data = str(tmp_path / "data" / "train")
    limits: Any = {"board": "nucleo-l4r5zi", "max_latency": "60ms", "max_peak_memory": "20kB"}
    plan = kdna.plan(net, recipe=recipe, data=data, **limits)
    assert plan.board is not None
    assert [limit.name for limit in plan.board.limits] == ["flash", "latency", "peak memory"]
    assert all(limit.used <= limit.allowed < limit.original for limit in plan.board.limits[1:] if limit.allowed)
