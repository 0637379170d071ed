"""The data sets of the demo: scikit-learn's digits, and MNIST from files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError
from .idx import find_idx, read_idx

__all__ = ["Batches", "ImageData", "digits", "mnist"]

BATCH = 500
Batches = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class ImageData:
    """Images ``[N, 1, H, W]`` in [0, 1] with their labels, for training (and calibration) and for testing."""

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    def to(self, device: torch.device) -> ImageData:
        """The same data on `device`."""
        return ImageData(
            self.name,
            self.train_images.to(device),
            self.train_labels.to(device),
            self.test_images.to(device),
            self.test_labels.to(device),
        )

    @property
    def calibration(self) -> Batches:
        """The training data in batches."""
        return _batches(self.train_images, self.train_labels)

    @property
    def test(self) -> Batches:
        """The test data in batches."""
        return _batches(self.test_images, self.test_labels)


def digits() -> ImageData:
    """The 1797 8x8 digits of scikit-learn: 1297 to train, 500 to test, the same split every time.

    Raises:
        InputError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError(
            f"--data digits needs scikit-learn, which cannot be imported here ({error}). "
            "Install it with pip install scikit-learn."
        ) from error
    found = load_digits()
    images = torch.as_tensor(found.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.as_tensor(found.target, dtype=torch.int64)
    # The file is ordered by writer, so testing on its end would test on other writers.
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    train, test = order[:-500], order[-500:]
    return ImageData("scikit-learn digits", images[train], labels[train], images[test], labels[test])


def mnist(folder: Path) -> ImageData:
    """MNIST from `folder`: torchvision's layout, or idx files, plain or compressed.

    If only the test images are there, the first four fifths of them (0..7999 of 10,000) are for training and the
    rest (8000..9999) for testing.

    Raises:
        InputError: The files are missing or damaged.
    """
    return _by_torchvision(folder) or _from_idx(folder)


def _by_torchvision(folder: Path) -> ImageData | None:
    if not (folder / "MNIST").is_dir():
        return None
    try:
        from torchvision.datasets import MNIST
    except (ImportError, RuntimeError, OSError):  # a torchvision built for another torch raises any of these
        return None
    try:
        parts = [MNIST(str(folder), train=train, download=False) for train in (True, False)]
    except RuntimeError:  # some of its files are missing
        return None
    (train_images, train_labels), (test_images, test_labels) = ((part.data, part.targets) for part in parts)
    return ImageData("MNIST", _to_unit_range(train_images), train_labels, _to_unit_range(test_images), test_labels)


def _from_idx(folder: Path) -> ImageData:
    for place in (folder, folder / "MNIST" / "raw"):
        test = _read_pair(place, "t10k")
        if test is None:
            continue
        train = _read_pair(place, "train")
        if train is not None:
            return ImageData("MNIST", *train, *test)
        images, labels = test
        cut = len(images) * 4 // 5
        return ImageData("MNIST", images[:cut], labels[:cut], images[cut:], labels[cut:])
    raise InputError(
        f"No MNIST in {folder.resolve()}. Looked there and in MNIST/raw below it for t10k-images-idx3-ubyte and "
        "t10k-labels-idx1-ubyte, plain or with .gz, optionally with train-images-idx3-ubyte and "
        "train-labels-idx1-ubyte, and for torchvision's layout. "
        f"{'' if folder.is_dir() else 'The folder does not exist. '}Name the folder with --data-dir DIR."
    )


def _read_pair(folder: Path, part: str) -> tuple[Tensor, Tensor] | None:
    image_name, label_name = f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"
    image_path, label_path = find_idx(folder, image_name), find_idx(folder, label_name)
    if image_path is None and label_path is None:
        return None
    if image_path is None or label_path is None:
        missing, present = (image_name, label_path) if image_path is None else (label_name, image_path)
        raise InputError(f"{present} is there, but {missing} (plain or .gz) is missing in the same folder.")
    images, labels = read_idx(image_path, 3), read_idx(label_path, 1)
    if len(images) != len(labels):
        raise InputError(f"{image_path} holds {len(images)} images, but {label_path} holds {len(labels)} labels.")
    return _to_unit_range(torch.from_numpy(images.copy())), torch.from_numpy(labels.astype("int64"))


def _to_unit_range(images: Tensor) -> Tensor:
    return images.unsqueeze(1).float() / 255


def _batches(images: Tensor, labels: Tensor) -> Batches:
    starts = range(0, len(images), BATCH)
    return [(images[start : start + BATCH], labels[start : start + BATCH]) for start in starts]
