"""Checksums that documents hold, so that damage in a file is noticed whatever its format."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import ExportError, FormatError

__all__ = ["KEY", "add_checksums", "require_document", "require_tensors", "why_not_plain"]

KEY = "checksums"
"""The document's key for them: an object with the checksum of the document and, by name, those of the tensors."""

COVERED = ("format", "version", "producer", "name", "readout", "nodes")
"""The keys of a document that its checksum covers; a format may add others."""

SINCE_3 = ("conversion",)
"""Further keys that it covers in documents of version 3 and later."""

DAMAGED = "It was damaged or changed after it was written. Copy or export it again."


def add_checksums(document: dict[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Add the checksums of the document and of its tensors to the document.

    SHA-256, because any program can compute it, and because processors have instructions for it: with them it is about
    twice as fast as BLAKE2.

    Raises:
        ExportError: A tensor has no plain values.
    """
    document[KEY] = {"tensors": {name: _of_tensor(name, tensor) for name, tensor in tensors.items()}}
    document[KEY]["document"] = _of_document(document)


def require_document(document: Mapping[str, Any]) -> None:
    """Check the document against its checksum.

    Raises:
        FormatError: They differ, or there is none.
    """
    found = document.get(KEY)
    if not isinstance(found, dict) or not isinstance(found.get("tensors"), dict):
        raise FormatError(f"It holds no checksums. {DAMAGED}")
    try:
        intact = found.get("document") == _of_document(document)
    except (TypeError, ValueError, RecursionError):
        intact = False
    if not intact:
        raise FormatError(f"The checksum of its document does not match. {DAMAGED}")


def require_tensors(document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Check the tensors against the checksums in the document, which is intact.

    Raises:
        FormatError: A tensor has another checksum, or none, or is missing.
    """
    listed = document[KEY]["tensors"]
    if listed.keys() != tensors.keys():
        apart = ", ".join(map(repr, sorted(listed.keys() ^ tensors.keys(), key=str)[:5]))
        raise FormatError(f"Its tensors are not those of its document: {apart}. {DAMAGED}")
    for name, tensor in tensors.items():
        try:
            intact = listed[name] == _of_tensor(name, tensor)
        except ExportError:
            intact = False
        if not intact:
            raise FormatError(f"The checksum of the tensor {name!r} does not match. {DAMAGED}")


def why_not_plain(tensor: Tensor) -> str:
    """What keeps a tensor from being written as plain values; empty for a tensor that can be written.

    >>> why_not_plain(torch.ones(2)), why_not_plain(torch.ones(2, device="meta"))
    ('', 'is on the meta device, which holds no values')
    """
    if tensor.is_meta:
        return "is on the meta device, which holds no values"
    if tensor.is_nested or tensor.layout is not torch.strided:
        layout = "nested" if tensor.is_nested else str(tensor.layout).removeprefix("torch.")
        return f"has the layout {layout}; call to_dense() on it before converting"
    if tensor.is_quantized:
        return "is quantized; call dequantize() on it before converting"
    return ""


def _of_document(document: Mapping[str, Any]) -> str:
    version = document.get("version")
    keys = (*COVERED, *SINCE_3) if isinstance(version, int) and version > 2 else COVERED
    covered = {key: document.get(key) for key in keys}
    covered[KEY] = document[KEY]["tensors"]
    text = json.dumps(covered, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _of_tensor(name: str, tensor: Tensor) -> str:
    """The checksum of a tensor's dtype and shape, and of its values in row-major order."""
    problem = why_not_plain(tensor)
    if problem:
        raise ExportError(f"the tensor {name!r} {problem}")
    dtype = str(tensor.dtype).removeprefix("torch.")
    checksum = hashlib.sha256(f"{dtype} {'x'.join(map(str, tensor.shape))}\n".encode())
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    checksum.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return checksum.hexdigest()
