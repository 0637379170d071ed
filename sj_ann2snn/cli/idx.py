"""Reads the idx format, in which MNIST is distributed."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import InputError

__all__ = ["find_idx", "read_idx"]

UNSIGNED_BYTE = 0x08


def find_idx(folder: Path, name: str) -> Path | None:
    """The file `name` in `folder`, plain or compressed (``.gz``), or None."""
    candidates = (folder / name, folder / f"{name}.gz")
    return next((path for path in candidates if path.is_file()), None)


def read_idx(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """The array of unsigned bytes in an idx file, plain or compressed (``.gz``).

    Args:
        path: The file.
        dimensions: The required number of dimensions: 3 for images, 1 for labels.

    Raises:
        InputError: The file cannot be read or is not such an array.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}. Download the file again.") from error
    if len(content) < 4 or content[:3] != bytes((0, 0, UNSIGNED_BYTE)) or content[3] != dimensions:
        raise InputError(
            f"{path} is not an idx file of unsigned bytes with {dimensions} dimension(s): it must start with the "
            f"bytes 0 0 8 {dimensions}, but starts with {' '.join(map(str, content[:4])) or 'nothing'}."
        )
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise InputError(f"{path} ends inside its header. Download the file again.")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    expected = int(np.prod(shape, dtype=np.int64))
    if len(content) - header != expected:
        raise InputError(
            f"{path} is damaged: its header announces an array of shape {shape}, {expected} bytes, but "
            f"{len(content) - header} bytes follow. Download the file again."
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
