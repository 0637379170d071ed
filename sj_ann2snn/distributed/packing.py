"""Values as bytes for other ranks, and back."""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["digest", "packed", "unpacked"]

SMALL = 1 << 16
"""Bytes from which on compressing pays: counters are mostly zeros."""


def packed(value: Any) -> bytes:
    """`value` as bytes.

    >>> unpacked(packed({"a": torch.ones(2)}))
    {'a': tensor([1., 1.])}
    """
    buffer = io.BytesIO()
    torch.save(value, buffer)
    found = buffer.getvalue()
    return b"z" + zlib.compress(found, 1) if len(found) > SMALL else b"-" + found


def unpacked(data: bytes, device: torch.device | None = None) -> Any:
    """What `packed` was given; tensors of other accelerators come to `device`, by default the current one.

    The bytes come from a process of the same job, which could run any code here anyway.
    """
    found = zlib.decompress(data[1:]) if data[:1] == b"z" else data[1:]
    own = str(device) if device is not None else "cpu"
    if own == "cpu" and torch.cuda.is_available():
        own = f"cuda:{torch.cuda.current_device()}"

    def place(storage: Any, location: str) -> Any:  # shown storages on the CPU
        return storage if location == "cpu" else storage.to(torch.device(own))

    return torch.load(io.BytesIO(found), map_location=place, weights_only=False)


def digest(*values: Any) -> str:
    """A checksum of texts, tensors and networks, nested in tuples, lists and dicts; other values count by their type.

    >>> digest(torch.ones(2)) == digest(torch.ones(2)), digest(torch.ones(2)) == digest(torch.zeros(2))
    (True, False)
    """
    found = hashlib.sha256()
    for part in _parts(values):
        found.update(part)
    return found.hexdigest()


def _parts(value: Any) -> Iterable[bytes]:
    if isinstance(value, nn.Module):
        value = {"": type(value).__name__, **value.state_dict()}
    if isinstance(value, Tensor):
        yield f"{value.dtype}{tuple(value.shape)}".encode()
        if value.layout is torch.strided and not value.is_quantized:
            yield value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    elif isinstance(value, dict):
        for key, one in value.items():
            yield str(key).encode()
            yield from _parts(one)
    elif isinstance(value, (tuple, list)):
        yield str(len(value)).encode()
        for one in value:
            yield from _parts(one)
    elif isinstance(value, (str, int, float)):
        yield repr(value).encode()
    else:
        yield type(value).__name__.encode()
