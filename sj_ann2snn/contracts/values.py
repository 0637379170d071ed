"""Converts values that JSON lacks to a form that it can hold, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import ExportError, FormatError
from ..support.wording import shown

__all__ = ["TORCH_VALUES", "NodeReference", "decode", "encode"]


@dataclass(frozen=True)
class NodeReference:
    """Refers to another node among the arguments of a node."""

    name: str


TORCH_VALUES = {"dtype": torch.dtype, "memory_format": torch.memory_format}
"""Constants of torch, written by name."""


def encode(value: Any) -> Any:
    """`value` in a form that JSON can hold: tuples become arrays; other values that JSON lacks, an object with one key.

    >>> encode((1, [2], slice(None, 3), ..., torch.float32, NodeReference("x"), float("inf")))
    [1, {'list': [2]}, {'slice': [None, 3, None]}, {'ellipsis': True}, {'dtype': 'float32'}, {'node': 'x'}, \
{'float': 'inf'}]

    Raises:
        ExportError: The value has no such form.
    """
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": str(float(value))}
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, NodeReference):
        return {"node": value.name}
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    if isinstance(value, list):
        return {"list": [encode(item) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[encode(key), encode(item)] for key, item in value.items()]}
    if isinstance(value, slice):
        return {"slice": [encode(item) for item in (value.start, value.stop, value.step)]}
    if value is ...:
        return {"ellipsis": True}
    if isinstance(value, complex):
        return {"complex": [encode(value.real), encode(value.imag)]}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    for key, kind in TORCH_VALUES.items():
        if isinstance(value, kind):
            return {key: str(value).removeprefix("torch.")}
    raise ExportError(
        f"it holds {shown(value)} of type {type(value).__name__}, which cannot be written; allowed are numbers, text, "
        "tuples, lists, dicts, slices, dtypes and devices"
    )


def decode(value: Any) -> Any:
    """The value that `encode` turned into `value`.

    >>> decode([1, {"list": [2]}, {"slice": [None, 3, None]}, {"ellipsis": True}])
    (1, [2], slice(None, 3, None), Ellipsis)

    Raises:
        FormatError: `encode` returns nothing of this form.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, list):
        return tuple(decode(item) for item in value)
    if isinstance(value, dict) and len(value) == 1:
        ((key, content),) = value.items()
        try:
            return _tagged(key, content)
        except Exception:  # whatever torch or Python makes of content that is none
            pass
    raise FormatError(f"It holds {shown(value)}, which does not represent a value.")


def _tagged(key: str, content: Any) -> Any:
    if key == "float":
        return float(content)
    if key == "node" and isinstance(content, str):
        return NodeReference(content)
    if key == "list":
        return [decode(item) for item in content]
    if key == "dict":
        return {decode(name): decode(item) for name, item in content}
    if key == "slice":
        start, stop, step = content
        return slice(decode(start), decode(stop), decode(step))
    if key == "ellipsis":
        return ...
    if key == "complex":
        real, imaginary = content
        return complex(decode(real), decode(imaginary))
    if key == "device":
        return torch.device(content)
    found = getattr(torch, content)
    if isinstance(found, TORCH_VALUES.get(key, ())):
        return found
    raise ValueError(content)
