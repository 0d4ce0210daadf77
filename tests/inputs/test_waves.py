"""Laws of sounds as DATA: windows, widths, channels, rates, labels, and what cannot be read."""

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.signal import resample_poly
from support.pictures import code_of, labels, paint
from support.sounds import SOUND, noise, record, windows
from torch import nn

from kdna_convert.core.errors import DataError
from kdna_convert.core.specs import DataConfig, from_json, to_json
from kdna_convert.inputs.data import open_images
from kdna_convert.inputs.models import declared_config, override


def names(folder: Path, config: DataConfig = SOUND) -> list[str]:
    images = open_images(folder, config)
    return [images.source.name(position) for position in images.positions]


# --- windows


def test_windows_follow_one_another_and_the_rest_is_left_out(tmp_path: Path) -> None:
    values = noise(64 * 3 + 63)
    record(tmp_path / "a.wav", values)
    assert np.array_equal(windows(tmp_path).reshape(-1), values[: 64 * 3, 0])
    assert names(tmp_path) == ["a.wav@0.000s", "a.wav@0.008s", "a.wav@0.016s"]


def test_a_short_file_is_padded_with_zeros_and_files_are_in_the_order_of_their_paths(tmp_path: Path) -> None:
    values = noise(10)
    record(tmp_path / "b.wav", noise(64, seed=1))
    record(tmp_path / "a.WAV", values)
    padded = windows(tmp_path)[0, 0]
    assert np.array_equal(padded[:10], values[:, 0])
    assert padded[10:].abs().max() == 0
    assert names(tmp_path) == ["a.WAV@0.000s", "b.wav@0.000s"]


@pytest.mark.parametrize("size", [(1, 64, 1), (1, 1, 64)])
def test_an_axis_of_one_changes_the_shape_only(tmp_path: Path, size: Any) -> None:
    record(tmp_path / "a.wav", noise(200))
    inputs = windows(tmp_path, replace(SOUND, input_size=size))
    assert inputs.shape == (3, *size)
    assert torch.equal(inputs.reshape(3, 1, 64), windows(tmp_path))


# --- samples


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64, np.float32, np.float64])
def test_every_width_gives_the_same_floats(tmp_path: Path, dtype: Any) -> None:
    values = noise(128)
    record(tmp_path / "a.wav", values, dtype=dtype)
    assert np.array_equal(windows(tmp_path).reshape(-1), values[:, 0])


def test_24_bits_give_the_same_floats(tmp_path: Path) -> None:
    values = noise(128)
    data = b"".join(int(value * 2**23).to_bytes(3, "little", signed=True) for value in values[:, 0])
    header = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 1, 1, 8000, 24000, 3, 24,
                         b"data", len(data))  # fmt: skip
    (tmp_path / "a.wav").write_bytes(header + data)
    assert np.array_equal(windows(tmp_path).reshape(-1), values[:, 0])


def test_channels_are_averaged_kept_or_repeated(tmp_path: Path) -> None:
    stereo, mono = noise(64, 2), noise(64, 1)
    record(tmp_path / "two" / "a.wav", stereo)
    record(tmp_path / "one" / "a.wav", mono)
    two = replace(SOUND, input_size=(2, 64), mean=(0.0, 0.0), std=(1.0, 1.0))
    assert np.array_equal(windows(tmp_path / "two")[0, 0], stereo.mean(1))
    assert np.array_equal(windows(tmp_path / "two", two)[0], stereo.T)
    assert np.array_equal(windows(tmp_path / "one", two)[0], mono.T.repeat(2, 0))


def test_samples_are_normalized_per_channel(tmp_path: Path) -> None:
    stereo = noise(64, 2)
    record(tmp_path / "a.wav", stereo)
    two = replace(SOUND, input_size=(2, 64), mean=(0.25, -0.5), std=(0.5, 2.0))
    torch.testing.assert_close(
        windows(tmp_path, two)[0].double(),
        (torch.from_numpy(stereo.T) - torch.tensor([[0.25], [-0.5]])) / torch.tensor([[0.5], [2.0]]),
    )


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 11025, 22050, 4000])
def test_windows_together_are_the_whole_file_resampled(tmp_path: Path, rate: int) -> None:
    values = noise(rate // 4)
    record(tmp_path / "a.wav", values, rate, np.float32)
    inputs = windows(tmp_path).reshape(-1)
    whole = resample_poly(values[:, 0].astype(np.float32), 8000, rate)
    assert len(inputs) == len(whole) // 64 * 64
    assert np.abs(inputs.numpy() - whole[: len(inputs)]).max() < 1e-6


# --- labels


def test_class_folders_are_labels(tmp_path: Path) -> None:
    for kind, samples in (("no", 130), ("yes", 64)):
        record(tmp_path / kind / "a.wav", noise(samples))
    images = open_images(tmp_path, SOUND)
    assert (images.labeled, dict(images.classes), labels(images)) == (True, {"no": 0, "yes": 1}, [0, 0, 1])
    (tmp_path / "map.txt").write_text("yes\n")
    mapped = open_images(tmp_path, SOUND, class_map=tmp_path / "map.txt")
    assert (labels(mapped), mapped.skipped) == ([0], ["no/a.wav: its folder is not in the class map"])


# --- what cannot be read


def test_damaged_files_are_skipped_and_listed(tmp_path: Path) -> None:
    record(tmp_path / "good.wav", noise(64))
    whole = (tmp_path / "good.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[:-40])
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_bytes(b"not a sound at all, and longer than a header of forty bytes")
    (tmp_path / "alaw.wav").write_bytes(whole[:20] + b"\x06\x00" + whole[22:])
    record(tmp_path / "nan.wav", [np.nan] * 64, dtype=np.float32)
    record(tmp_path / "none.wav", [])
    record(tmp_path / "slow.wav", noise(64), rate=10)
    images = open_images(tmp_path, SOUND)
    assert len(windows(tmp_path)) == 1
    list(labels(images))
    reasons = dict(line.split(": ", 1) for line in images.skipped)
    assert sorted(reasons) == [
        "alaw.wav", "cut.wav", "empty.wav", "nan.wav@0.000s", "none.wav", "slow.wav", "text.wav"
    ]  # fmt: skip
    assert "ALAW" in reasons["alaw.wav"]
    assert "10 Hz" in reasons["slow.wav"]


def test_a_file_with_chunks_of_other_data_is_read(tmp_path: Path) -> None:
    record(tmp_path / "a.wav", noise(64))
    whole = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(whole[:36] + b"note" + struct.pack("<I", 4) + b"text" + whole[36:])
    assert np.array_equal(windows(tmp_path)[0, 0], noise(64)[:, 0])


@pytest.mark.parametrize(
    ("files", "config", "code", "words"),
    [
        (["a.wav"], replace(SOUND, sample_rate=None), "KD406", "pass --sample-rate HZ$"),
        (["a.wav"], DataConfig(), "KD406", "pass --sample-rate HZ and --input-size CHANNELS,SAMPLES"),
        (["a.wav"], replace(SOUND, input_size=(1, 8, 8)), "KD406", "--input-size"),
        (["a.wav", "b.png"], SOUND, "KD401", "1 .wav files and 1 images"),
        (["a.mp3", "b.flac"], SOUND, "KD401", "2 sounds that are not .wav; convert them"),
        (["a.png"], SOUND, "KD401", "pass a folder of .wav files"),
        ([], SOUND, "KD401", "no .wav files found"),
        (["broken.wav"], SOUND, "KD401", "none of 1 .wav files can be read; the first: broken.wav"),
    ],
    ids=["rate", "image net", "size", "mixed", "mp3", "images", "nothing", "damaged"],
)
def test_folders_that_are_refused_say_what_to_do(
    tmp_path: Path, files: list[str], config: DataConfig, code: str, words: str
) -> None:
    for file in files:
        if file == "a.wav":
            record(tmp_path / file, noise(64))
        elif file.endswith(".png"):
            paint(tmp_path / file, 1)
        else:
            (tmp_path / file).write_bytes(b"...")
    with pytest.raises(DataError, match=words) as error:
        open_images(tmp_path, config)
    assert code_of(error) == code


# --- the rate of a net


def carrying(**cfg: Any) -> nn.Module:
    net = nn.Conv1d(1, 1, 3)
    net.pretrained_cfg = cfg  # type: ignore[assignment]
    return net


def test_a_net_states_its_rate_and_is_not_normalized_unless_it_says_so() -> None:
    plain = declared_config(carrying(input_size=(2, 64), sample_rate=8000))
    assert (plain.sample_rate, plain.mean, plain.std) == (8000, (0.0, 0.0), (1.0, 1.0))
    assert declared_config(carrying(input_size=(1, 64), sample_rate=8000, mean=(0.5,))).mean == (0.5,)
    assert declared_config(carrying(input_size=(1, 8, 8))).sample_rate is None


def test_a_rate_makes_an_input_size_one_of_samples() -> None:
    stated = override(DataConfig(), sample_rate=16000, input_size=(1, 400))
    assert (stated.input_size, stated.mean, stated.std) == ((1, 400), (0.0,), (1.0,))
    assert override(DataConfig(), sample_rate=16000, input_size=(400,)).input_size == (1, 400)
    assert override(replace(SOUND, input_size=(1, 64, 1)), input_size=(400,)).input_size == (1, 400, 1)
    assert override(SOUND, sample_rate=4000) == replace(SOUND, sample_rate=4000)
    with pytest.raises(DataError, match="sample rate 10: must be"):
        override(SOUND, sample_rate=10)


def test_a_config_without_a_rate_is_stored_as_before_it_was_known() -> None:
    assert "sample_rate" not in to_json(DataConfig())
    assert from_json(DataConfig, to_json(SOUND)) == SOUND
