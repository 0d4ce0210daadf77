"""The part of the page on which the answers of both nets are compared: what it says, shows, hides, and its size."""

import base64
import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support import task_nets, tiny

import kdna_convert as kdna
from kdna_convert.core.disagreement import Answer, ClassChange, Confusion, Disagreement, Example, Pixels
from kdna_convert.core.errors import DataError, FolderError
from kdna_convert.html import Material
from kdna_convert.html.parts.answers import answers
from kdna_convert.html.thumbnail import thumbnail
from kdna_convert.inputs.recipe import parse_recipe

pytestmark = pytest.mark.usefixtures("quick_predictions")

RECIPE = parse_recipe("scheme: cp\nrepair: []\nfit: {sweeps: 2}\ncalibration: {images: 16, heldout: 8, batch: 8}\n")
DATA_URI = re.compile(r"data:image/webp;base64,([A-Za-z0-9+/=]+)")
SECTION = re.compile(r'<section id="answers".*?</section>', re.DOTALL)
HOSTILE = ["<script>alert(1)</script>", "x" * 200, "عربي", '🦊 $\\alpha$ & "q" \'', "a\u202eb\x1b[31m"]


def saved(net: Any, place: Path, **options: Any) -> Path:
    conversion = kdna.convert(net, recipe=RECIPE, data=tiny.noise(24), target_params=0.3, **options)
    return kdna.save(conversion, place)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny net, converted; its original is tiny.net_with_statistics()."""
    return saved(tiny.net_with_statistics(), tmp_path_factory.mktemp("answers") / "net")


@pytest.fixture(scope="module")
def page(converted: Path) -> Callable[..., str]:
    """page(data=...): the part of the page of this folder."""

    def make(**options: Any) -> str:
        return section(kdna.report(converted, model=tiny.net_with_statistics(), **options).html)

    return make


def section(html: str) -> str:
    found = SECTION.search(html)
    assert found is not None
    return found[0]


def shown(found: Disagreement) -> str:
    part = answers(Material("net", folder="net", disagreement=found))
    assert part is not None
    return part.body


def test_without_images_the_part_names_the_command(converted: Path, page: Callable[..., str]) -> None:
    own = page()
    assert f"kdna report {converted} --data DATA" in own
    assert own.count("<p>") == 1
    quoted = answers(Material("net", folder="my net; rm"))
    assert quoted is not None
    assert "'my net; rm'" in quoted.sentence


def test_without_the_original_a_comparison_is_refused_and_the_part_says_why(converted: Path, images: Path) -> None:
    with pytest.raises(FolderError, match=r"KD607|KD611"):
        kdna.report(converted, data=images)
    own = section(kdna.report(converted).html)
    assert "not compared" in own
    assert "--checkpoint" in own or "trust" in own
    assert "<img" not in own


def test_a_page_of_something_else_has_no_such_part() -> None:
    assert answers(Material("a net")) is None


def test_the_part_shows_both_answers_the_label_and_a_picture(images: Path, page: Callable[..., str]) -> None:
    own = page(data=images)
    assert "On 60 inputs with labels: top-1" in own
    assert own.count("<img ") == 24
    for uri in DATA_URI.findall(own):
        with Image.open(io.BytesIO(base64.b64decode(uri))) as picture:
            assert picture.size == (tiny.SIZE, tiny.SIZE)
    assert own.count("<dt>original</dt>") == own.count("<dt>converted</dt>") == own.count("<dt>label</dt>") == 24
    assert "class0" in own
    assert "Ranked by the KL divergence" in own


def test_labels_fill_accuracy_before_and_after(converted: Path, images: Path) -> None:
    net = tiny.net_with_statistics()
    html = kdna.report(converted, model=net, data=images).html
    before = kdna.evaluate(net, data=images).top1
    after = kdna.evaluate(converted, model=net, data=images).top1
    assert before is not None
    assert after is not None
    own = html[html.index('<section id="outcome"') : html.index('<section id="layers"')]
    assert "top-1, 60 images" in own
    assert f"{100 * before:.2f} %" in own
    assert f"{100 * after:.2f} %" in own


def test_no_images_leaves_the_pictures_out_and_keeps_the_answers(images: Path, page: Callable[..., str]) -> None:
    own = page(data=images, pictures=False)
    assert "data:image" not in own
    assert own.count("class0/") + own.count("class1/") > 0
    assert "The inputs are not shown." in own
    assert re.findall(r"\d\.\d+e?-?\d*", own)


def test_a_limit_is_drawn_with_the_seed(images: Path, page: Callable[..., str]) -> None:
    first, again, other = (page(data=images, limit=10, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert "On 10 inputs" in first


def test_an_image_that_cannot_be_read_is_named(images: Path, tmp_path: Path, page: Callable[..., str]) -> None:
    data = shutil.copytree(images, tmp_path / "data")
    (data / "class0" / "00.png").write_bytes(b"<b>no image</b>")
    own = page(data=data)
    assert "On 59 inputs" in own
    assert "1 input skipped: class0/00.png: not an image" in own
    names = re.findall(r'<p class="note"><bdi>(class\d/(\d+)\.png)</bdi>', own)
    assert all(int(number) % 5 == int(name[5]) for name, number in names)  # the names are of the images shown
    assert len(names) == 24


def test_labels_of_another_number_of_classes_are_refused_as_by_eval(images: Path, tmp_path: Path, page: Any) -> None:
    data = shutil.copytree(images, tmp_path / "data")
    shutil.rmtree(data / "class4")
    with pytest.raises(DataError, match="KD402: the images have 4 classes, the net has 5 outputs"):
        page(data=data)
    with pytest.raises(DataError, match="KD401"):
        page(data=tmp_path / "nothing")


def test_hostile_names_of_classes_and_files_are_text(images: Path, tmp_path: Path, page: Callable[..., str]) -> None:
    for number, name in enumerate(sorted(HOSTILE)):
        place = tmp_path / "data" / name.replace("/", "")
        place.mkdir(parents=True)
        for file in sorted((images / f"class{number}").iterdir())[:4]:
            shutil.copy(file, place / f"<img src=x>{file.name}")
    own = page(data=tmp_path / "data")
    assert "<script" not in own
    assert "<img src=x>" not in own
    assert "\x1b" not in own
    assert "\u202e" not in own
    assert "a\\u202eb\\x1b[31m" in own
    assert "x" * 200 in own  # in the table of all classes


def a_picture(side: int) -> Pixels:
    noise = torch.randint(0, 256, (side, side, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Pixels(side, side, 3, noise.numpy().tobytes())


def test_a_part_of_noise_and_a_thousand_classes_stays_small() -> None:
    names = {number: f"class {number} {'name ' * 8}" for number in range(1000)}
    found = Disagreement(
        "classify",
        True,
        (1.0,) * 1000,
        tuple(
            Example(n, 1.0, Answer((n,), 0.5), Answer((0,), 0.5), Answer((1,)), (("", a_picture(160)),), name="i")
            for n in range(24)
        ),
        classes=tuple(ClassChange(number, 50, 0.9, 0.8 - number / 2000) for number in range(1000)),
        confusions=tuple(Confusion(number, number + 1, 0, 5) for number in range(100)),
        names=names,
    )
    html = shown(found)
    assert html.count('class="shift') == 20
    pictures = sum(len(uri) for uri in DATA_URI.findall(html))
    assert pictures < 400_000
    assert len(html) - pictures < 500_000


@pytest.mark.parametrize(("side", "most"), [(16, 11_000), (160, 11_000), (256, 16_000)])
def test_a_thumbnail_of_noise_is_small_and_a_small_one_is_exact(side: int, most: int) -> None:
    made = thumbnail(a_picture(side), most)
    (data,) = DATA_URI.findall(made.address)
    assert len(data) * 3 // 4 <= 1.6 * most
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert picture.size == (side, side)
        assert (picture.convert("RGB").tobytes() == a_picture(side).values) is (side == 16)


@pytest.mark.parametrize("task", task_nets.NETS)
def test_every_task_has_a_part(task: str, tmp_path: Path) -> None:
    net = task_nets.net(task)
    named = {"task": task} if task in ("sequence", "binary") else {}
    folder = saved(net, tmp_path / "net", **named)
    own = section(kdna.report(folder, model=net, data=tiny.noise(30, seed=3)).html)
    assert "Both nets on 30 inputs" in own
    assert "Ranked by" in own
    assert own.count("<figure>") + own.count("<rect") > 0
    assert ('class="chart"' in own) == (task in ("image", "sequence", "raw"))
    assert ("By class" in own) == (task in ("segment", "binary"))
    if task == "detect":
        assert own.count('class="solid" x=') > 0
        assert own.count('class="dashed" x=') > 0
