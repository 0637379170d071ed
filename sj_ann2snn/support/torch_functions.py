"""Facts about torch's functions that torch itself does not list."""

from __future__ import annotations

__all__ = ["FACTORIES"]

FACTORIES = ("arange", "as_tensor", "empty", "eye", "full", "linspace", "ones", "tensor", "zeros")
"""Functions that make a tensor from numbers."""
