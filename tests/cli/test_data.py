"""The demo's data: scikit-learn's digits, MNIST in IDX files, and what is said about damaged ones."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sj_ann2snn import InputError
from sj_ann2snn.cli import main
from sj_ann2snn.cli.data import digits, mnist
from sj_ann2snn.cli.idx import find_idx, read_idx

pytest.importorskip("sklearn", reason="the demo trains on scikit-learn's digits")
pytest.importorskip("matplotlib", reason="the demo draws with matplotlib")


def run_demo(*arguments: str) -> dict[str, Any]:
    """The numbers of a demo that went well."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        assert main(["demo", "--json", *arguments]) == 0
    numbers: dict[str, Any] = json.loads(out.getvalue())
    return numbers


# MNIST -------------------------------------------------------------------------------------------


def write_idx(path: Path, array: np.ndarray[Any, Any]) -> None:
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_part(folder: Path, part: str, count: int, *, suffix: str = "", first: int = 0) -> None:
    """Digits blown up to 28 by 28 pixels, as MNIST's files."""
    found = digits()
    images = found.train_images[first : first + count]
    large = nn.functional.interpolate(images, size=28, mode="bilinear")
    write_idx(folder / f"{part}-images-idx3-ubyte{suffix}", (large[:, 0] * 255).round().numpy())
    write_idx(folder / f"{part}-labels-idx1-ubyte{suffix}", found.train_labels[first : first + count].numpy())


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_are_read(tmp_path: Path, suffix: str) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    write_idx(tmp_path / f"a{suffix}", array)
    path = find_idx(tmp_path, "a")
    assert path == tmp_path / f"a{suffix}"
    np.testing.assert_array_equal(read_idx(path, 3), array)


def test_no_idx_file() -> None:
    assert find_idx(Path("nowhere"), "a") is None


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "starts with nothing"),
        (b"\x00\x00\x08\x01\x00\x00\x00\x02ab", "must start with the bytes 0 0 8 3, but starts with 0 0 8 1"),
        (b"\x00\x00\x0d\x03" + bytes(12), "0 0 13 3"),
        (b"\x00\x00\x08\x03\x00\x00", "ends inside its header"),
        (b"\x00\x00\x08\x03" + struct.pack(">3I", 1, 2, 2) + b"abc", "shape (1, 2, 2), 4 bytes, but 3 bytes follow"),
        (b"\x00\x00\x08\x03" + struct.pack(">3I", 1, 2, 2) + b"abcde", "but 5 bytes follow"),
    ],
)
def test_damaged_idx_files_are_told(tmp_path: Path, content: bytes, told: str) -> None:
    for path, written in ((tmp_path / "a", content), (tmp_path / "b.gz", gzip.compress(content))):
        path.write_bytes(written)
        with pytest.raises(InputError) as caught:
            read_idx(path, 3)
        assert told in str(caught.value)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"no gzip at all", gzip.compress(bytes(1000))[:-12]], ids=["no gzip", "cut short"])
def test_damaged_compression_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.gz").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read"):
        read_idx(tmp_path / "a.gz", 1)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_the_test_images_alone_are_split(tmp_path: Path, suffix: str) -> None:
    write_part(tmp_path, "t10k", 50, suffix=suffix)
    data = mnist(tmp_path)
    assert data.train_images.shape == (40, 1, 28, 28)
    assert data.test_images.shape == (10, 1, 28, 28)
    assert data.train_images.dtype == torch.float32
    assert float(data.train_images.max()) == 1.0
    expected = digits().train_labels[:50]
    assert torch.equal(torch.cat([data.train_labels, data.test_labels]), expected)


def test_training_images_are_used_where_they_are(tmp_path: Path) -> None:
    write_part(tmp_path, "t10k", 10)
    write_part(tmp_path, "train", 30, suffix=".gz", first=10)
    data = mnist(tmp_path)
    assert (len(data.train_images), len(data.test_images)) == (30, 10)
    assert torch.equal(data.train_labels, digits().train_labels[10:40])


def test_torchvisions_layout_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_part(tmp_path / "MNIST" / "raw", "t10k", 10)
    write_part(tmp_path / "MNIST" / "raw", "train", 30, first=10)
    without = mnist_without_torchvision(tmp_path, monkeypatch)
    pytest.importorskip("torchvision", exc_type=ImportError)
    data = mnist(tmp_path)
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        assert torch.equal(getattr(data, name), getattr(without, name))
    assert (len(data.train_images), len(data.test_images)) == (30, 10)


def mnist_without_torchvision(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torchvision", None)
        patch.setitem(sys.modules, "torchvision.datasets", None)
        return mnist(folder)


def test_a_torchvision_folder_with_test_images_only(tmp_path: Path) -> None:
    write_part(tmp_path / "MNIST" / "raw", "t10k", 10)
    assert len(mnist(tmp_path).train_images) == 8


@pytest.mark.parametrize("folder", ["", "not/there"])
def test_missing_data_is_told(tmp_path: Path, folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / folder
    assert main(["demo", "--data", "mnist", "--data-dir", str(place)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: No MNIST in {place}")
    assert "t10k-images-idx3-ubyte" in err
    assert "MNIST/raw" in err
    assert ("The folder does not exist." in err) == bool(folder)


@pytest.mark.parametrize(
    ("present", "missing"), [("images-idx3", "t10k-labels-idx1-ubyte"), ("labels-idx1", "t10k-images-idx3-ubyte")]
)
def test_half_of_the_data_is_told(tmp_path: Path, present: str, missing: str) -> None:
    write_part(tmp_path, "t10k", 5)
    (tmp_path / missing).unlink()
    with pytest.raises(InputError, match=rf"t10k-{present}-ubyte is there, but {missing} .* is missing"):
        mnist(tmp_path)


def test_more_images_than_labels_are_told(tmp_path: Path) -> None:
    write_part(tmp_path, "t10k", 5)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.zeros(4))
    with pytest.raises(InputError, match=r"5 images, but .* 4 labels"):
        mnist(tmp_path)


def test_the_demo_on_mnist(tmp_path: Path) -> None:
    write_part(tmp_path / "data", "t10k", 500, suffix=".gz")
    arguments = ["--data", "mnist", "--data-dir", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    numbers = run_demo(*arguments, "--epochs", "10", "--T", "20", "--modes", "99.9%")
    assert numbers["data"] == {"name": "MNIST", "train_images": 400, "test_images": 100}
    assert numbers["ann_accuracy"] > 0.6
    assert numbers["modes"][0]["accuracy"][-1] > 0.5


# Data and network --------------------------------------------------------------------------------


def test_digits_are_split_once_and_for_all() -> None:
    one, other = digits(), digits()
    assert torch.equal(one.test_images, other.test_images)
    assert one.train_images.shape == (1297, 1, 8, 8)
    assert one.test_images.shape == (500, 1, 8, 8)
    assert 0.0 == float(one.train_images.min()) < float(one.train_images.max()) == 1.0
    assert sum(len(x) for x, _ in one.calibration) == 1297
    assert set(one.test_labels.tolist()) == set(range(10))
