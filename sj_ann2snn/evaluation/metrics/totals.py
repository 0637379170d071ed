"""Totals as plain data, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["plain_tensor", "tensor_from"]


def plain_tensor(totals: Tensor) -> dict[str, Any]:
    """Totals in double precision as their shape and values.

    >>> plain_tensor(torch.tensor([[1.0, 0.1]], dtype=torch.float64))
    {'shape': (1, 2), 'values': (1.0, 0.1)}
    """
    return {"shape": tuple(totals.shape), "values": tuple(totals.double().flatten().tolist())}


def tensor_from(plain: Mapping[str, Any]) -> Tensor:
    """The totals of which `plain_tensor` made this."""
    return torch.tensor(plain["values"], dtype=torch.float64).view(plain["shape"])
