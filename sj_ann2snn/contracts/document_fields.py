"""Reads the fields of a document, and says which is missing or of another type."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..errors import FormatError

__all__ = ["field_of", "tensor_of"]


def field_of(document: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
    """A field of an object in a document.

    Args:
        document: The object.
        key: The name of the field.
        kind: The type that it must have.
        where: The object in messages, at the beginning of a sentence.

    Raises:
        FormatError: It is missing, or of another type.
    """
    value = document.get(key)
    if not isinstance(value, kind):
        raise FormatError(f"{where} has {reprlib.repr(value)} as {key}; it must be of type {kind.__name__}.")
    return value


def tensor_of(name: Any, key: str, tensors: Mapping[str, Tensor], where: str) -> Tensor:
    """The tensor called `name`.

    Raises:
        FormatError: There is none.
    """
    if not isinstance(name, str) or not isinstance(tensors.get(name), Tensor):
        raise FormatError(f"{where} lacks the tensor {name!r}, its {key}; the file is incomplete.")
    return tensors[name]
