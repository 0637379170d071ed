"""The built-in formats: an archive that any program can read, a torch file, and C."""

from __future__ import annotations

import contextlib
import io
import json
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sj_ann2snn import Exporter, ExportError, FormatError, NetworkDescription, hookimpl, replacing

from .c_exporter import C
from .zip_members import checked_members, most_unpacked

ANN2SNN_API = 1

EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The date of all members; a fixed date makes the same network give the same file."""

LONGEST_DOCUMENT = 1 << 26
"""Bytes of a document that are read: several hundred for each node."""

LONGEST_HEADER = 10_000
"""Bytes of the header of a .npy file; NumPy writes 128."""

STAND_INS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integers by size in bytes, to hold the bits of dtypes that NumPy lacks."""


class Archive(Exporter):
    """A zip file of one JSON document and one .npy file per tensor, readable without torch.

    >>> import tempfile
    >>> from sj_ann2snn import NetworkDescription, NodeDescription, NodeReference
    >>> from sj_ann2snn.builtin.exporters import Archive
    >>> network = NetworkDescription("Nothing", (
    ...     NodeDescription("x", "input", label="x"), NodeDescription("out", "output", args=(NodeReference("x"),))))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "network.zip"
    ...     Archive().export(network, path)
    ...     zipfile.ZipFile(path).namelist(), Archive().load(path) == network
    (['network.json'], True)

    `docs/export.md` describes the format.

    Args:
        compress: Write a smaller file, which takes longer.
    """

    name = "archive"
    suffixes = (".zip",)

    DOCUMENT = "network.json"

    def __init__(self, *, compress: bool = False) -> None:
        self.compress = compress

    def export(self, network: NetworkDescription, path: Path) -> None:
        document, tensors = network.as_document()
        places = {name: f"tensors/{number}.npy" for number, name in enumerate(tensors)}
        document["tensors"] = {
            name: {"file": places[name], "dtype": _dtype_name(tensor.dtype), "shape": list(tensor.shape)}
            for name, tensor in tensors.items()
        }
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False).encode("utf-8")
        if len(text) > LONGEST_DOCUMENT:
            raise ExportError(f"its document has {len(text):,} bytes; a reader takes {LONGEST_DOCUMENT:,}")
        with replacing(path) as file:
            with zipfile.ZipFile(file, "w") as archive:
                self._write(archive, self.DOCUMENT, text)
                for name, tensor in tensors.items():
                    content = io.BytesIO()
                    np.save(content, _as_numpy(tensor), allow_pickle=False)
                    self._write(archive, places[name], content.getbuffer())
            members = archive.infolist()
            packed, unpacked = sum(one.compress_size for one in members), sum(one.file_size for one in members)
            if unpacked > most_unpacked(packed):
                raise ExportError(
                    f"its {unpacked:,} bytes compress to {packed:,}, and a reader does not unpack so much from so "
                    "little; write it with compress=False"
                )

    def _write(self, archive: zipfile.ZipFile, name: str, content: bytes | memoryview) -> None:
        member = zipfile.ZipInfo(name, EARLIEST)
        member.compress_type = zipfile.ZIP_DEFLATED if self.compress else zipfile.ZIP_STORED
        archive.writestr(member, content)

    def load(self, path: Path) -> NetworkDescription:
        with _damage("it is not an archive of a network"), zipfile.ZipFile(path) as archive:
            members = checked_members(archive, path.stat().st_size, compressed=True)
            if members[self.DOCUMENT].file_size > LONGEST_DOCUMENT:
                raise FormatError(f"its document has more than {LONGEST_DOCUMENT:,} bytes.")
            document = json.loads(archive.read(self.DOCUMENT))
            listed = document.get("tensors", {}) if isinstance(document, dict) else {}
            places = [one["file"] for one in listed.values()]
            if len(set(places)) < len(places):
                # One member read for many names would make many tensors of one.
                raise FormatError("two of its tensors are in the same member.")
            tensors = {
                name: _read_tensor(archive, members[one["file"]], one["dtype"], one["shape"])
                for name, one in listed.items()
            }
        return NetworkDescription.from_document(document, tensors)


class Torch(Exporter):
    """A file of `torch.save`, read with ``weights_only=True``: a dict of the document and the tensors.

    >>> from sj_ann2snn.builtin.exporters import Torch
    >>> Torch().suffixes
    ('.pt', '.pth')
    """

    name = "torch"
    suffixes = (".pt", ".pth")

    def export(self, network: NetworkDescription, path: Path) -> None:
        document, tensors = network.as_document()
        # As plain tensors with their own memory: torch.save would write all of a memory that others share.
        plain = {name: _plain(tensor).clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
        with replacing(path) as file:
            torch.save({"document": document, "tensors": plain}, file)

    def load(self, path: Path) -> NetworkDescription:
        with _damage("it is not a file of torch.save"), zipfile.ZipFile(path) as archive:
            size = path.stat().st_size
            checked_members(archive, size, compressed=False)
        with _damage("torch.load refuses it"):
            # Mapped into memory, no tensor can reach beyond the end of the file.
            content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if not isinstance(content, dict) or set(content) != {"document", "tensors"}:
            raise FormatError("it is a torch file, but does not hold a network of sj-ann2snn.")
        with _damage("it does not hold the tensors of a network"):
            tensors = _own_tensors(content["tensors"], size)
        return NetworkDescription.from_document(content["document"], tensors)


@contextlib.contextmanager
def _damage(what: str) -> Iterator[None]:
    """Turn whatever a reader meets in a file into a `FormatError`: files are not this plugin's fault."""
    try:
        yield
    except (OSError, FormatError):
        raise
    except Exception as error:
        # torch's longer advice is how to execute what is in a file.
        reason = next(iter(str(error).splitlines()), "no reason given")
        raise FormatError(f"{what} ({type(error).__name__}: {reason[:200]}).") from error


def _own_tensors(found: Any, size: int) -> dict[str, Tensor]:
    """The tensors of a torch file of `size` bytes, as plain tensors that do not depend on the file."""
    for name, tensor in found.items():
        dense = isinstance(tensor, Tensor) and tensor.layout is torch.strided and not tensor.is_quantized
        if not dense or tensor.device.type != "cpu":
            raise TypeError(f"{name!r} is not a dense tensor")
    together = sum(tensor.numel() * tensor.element_size() for tensor in found.values())
    if together > size:
        raise ValueError(f"its tensors have {together:,} bytes, the file {size:,}")
    return {name: _plain(tensor).clone(memory_format=torch.contiguous_format) for name, tensor in found.items()}


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().as_subclass(Tensor).resolve_conj().resolve_neg()


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _as_numpy(tensor: Tensor) -> np.ndarray[Any, Any]:
    tensor = _plain(tensor).contiguous()
    try:
        return tensor.numpy()
    except TypeError:
        return tensor.view(STAND_INS[tensor.element_size()]).numpy()


def _read_tensor(archive: zipfile.ZipFile, member: zipfile.ZipInfo, dtype: str, shape: list[int]) -> Tensor:
    """The tensor in a member, once the member's size is that of the declared shape."""
    wanted = getattr(torch, dtype)
    if not isinstance(wanted, torch.dtype):
        raise ValueError(f"{dtype!r} is not a dtype")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"{shape!r} is not a shape")
    beside = member.file_size - math.prod(shape) * wanted.itemsize
    if not 0 < beside <= LONGEST_HEADER:
        raise ValueError(f"{member.filename} has {member.file_size:,} bytes, which is not what {dtype} {shape} takes")
    with archive.open(member) as file:
        values = np.lib.format.read_array(file, allow_pickle=False, max_header_size=LONGEST_HEADER)
        if file.read(1):  # at the end, zipfile compares the member's CRC
            raise ValueError(f"{member.filename} has bytes behind its values")
    tensor = torch.from_numpy(values)
    if list(tensor.shape) != shape or tensor.dtype not in (wanted, STAND_INS.get(wanted.itemsize)):
        raise ValueError(f"{member.filename} does not hold {dtype} {shape}")
    return tensor if tensor.dtype == wanted else tensor.view(wanted)


@hookimpl
def ann2snn_exporters() -> list[type[Exporter]]:
    return [Archive, C, Torch]
