"""The built-in formats: an archive that any program can read, and a torch file."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sj_ann2snn import Exporter, FormatError, NetworkDescription, hookimpl

ANN2SNN_API = 1

EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The date of all members; a fixed date makes the same network give the same file."""

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
        written = {name: _as_numpy(tensor) for name, tensor in tensors.items()}
        document["tensors"] = {
            name: {"file": places[name], "dtype": _dtype_name(tensor.dtype), "shape": list(tensor.shape)}
            for name, tensor in tensors.items()
        }
        with _replacing(path) as part, zipfile.ZipFile(part, "w") as archive:
            text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
            self._write(archive, self.DOCUMENT, text.encode("utf-8"))
            for name, values in written.items():
                content = io.BytesIO()
                np.save(content, values, allow_pickle=False)
                self._write(archive, places[name], content.getbuffer())

    def _write(self, archive: zipfile.ZipFile, name: str, content: bytes | memoryview) -> None:
        member = zipfile.ZipInfo(name, EARLIEST)
        member.compress_type = zipfile.ZIP_DEFLATED if self.compress else zipfile.ZIP_STORED
        archive.writestr(member, content)

    def load(self, path: Path) -> NetworkDescription:
        try:
            with zipfile.ZipFile(path) as archive:
                document = json.loads(archive.read(self.DOCUMENT))
                listed = document.get("tensors", {}) if isinstance(document, dict) else {}
                tensors = {name: _from_numpy(archive.read(one["file"]), one["dtype"]) for name, one in listed.items()}
        except (zipfile.BadZipFile, KeyError, TypeError, AttributeError, ValueError, EOFError) as error:
            raise FormatError(f"it is not an archive of a network ({type(error).__name__}: {error}).") from error
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
        with _replacing(path) as part, part.open("wb") as file:
            torch.save({"document": document, "tensors": tensors}, file)

    def load(self, path: Path) -> NetworkDescription:
        try:
            with path.open("rb") as file:
                content: Any = torch.load(file, map_location="cpu", weights_only=True)
        except OSError:
            raise
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, IndexError) as error:
            raise FormatError(f"torch.load refuses it ({type(error).__name__}: {error}).") from error
        if not isinstance(content, dict) or set(content) != {"document", "tensors"}:
            raise FormatError("it is a torch file, but does not hold a network of sj-ann2snn.")
        return NetworkDescription.from_document(content["document"], content["tensors"])


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A path to write to; it replaces `path` once everything is written."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _as_numpy(tensor: Tensor) -> np.ndarray[Any, Any]:
    try:
        return tensor.numpy()
    except TypeError:
        return tensor.view(STAND_INS[tensor.element_size()]).numpy()


def _from_numpy(content: bytes, dtype: str) -> Tensor:
    tensor = torch.from_numpy(np.load(io.BytesIO(content), allow_pickle=False))
    wanted = getattr(torch, dtype)
    if not isinstance(wanted, torch.dtype):
        raise ValueError(f"{dtype!r} is not a dtype")
    return tensor if tensor.dtype == wanted else tensor.view(wanted)


@hookimpl
def ann2snn_exporters() -> list[type[Exporter]]:
    return [Archive, Torch]
