"""Checks that values which a forward used in Python are what they were when the network was converted."""

from __future__ import annotations

from typing import Any

import torch.fx

from ..errors import InputError

__all__ = ["require_traced"]


@torch.fx.node.has_side_effect
def require_traced(value: Any, expected: Any, where: str) -> None:
    """Check a size that decided about a branch, a loop or a list in the ANN's forward.

    >>> import torch
    >>> require_traced(torch.zeros(2, 4).size(1), 4, "model.py:12")

    Such a size is part of the converted network: another one might take another branch.

    Args:
        value: What this input gives.
        expected: What the calibration data gave.
        where: File and line in the user's code.

    Raises:
        InputError: They differ.
    """
    found = type(expected)(value)
    if found != expected:
        place = f" at {where}" if where else ""
        raise InputError(
            f"The forward uses a size in Python{place} (in a branch, a loop or a list), so the converted network "
            f"holds only for what the calibration data gave there: {expected!r}. This input gives {found!r}. Convert "
            "the network again with calibration data of that size."
        )
