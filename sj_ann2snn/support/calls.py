"""Writes calls as users would type them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["call_text", "keywords", "literal"]


def call_text(function: str, arguments: Mapping[str, Any], *first: str) -> str:
    """A call with keywords.

    >>> call_text("Converter", {"mode": "99.9%", "T": 8}, "calibration")
    'Converter(calibration, mode="99.9%", T=8)'
    """
    return f"{function}({', '.join([*first, *keywords(arguments)])})"


def keywords(arguments: Mapping[str, Any]) -> list[str]:
    """Arguments as they are written in a call.

    >>> keywords({"mode": "max", "T": 8})
    ['mode="max"', 'T=8']
    """
    return [f"{name}={literal(value)}" for name, value in arguments.items()]


def literal(value: Any) -> str:
    """A value as it is written in code.

    >>> literal({"layer3.*": {"mode": "max", "levels": 4}})
    '{"layer3.*": {"mode": "max", "levels": 4}}'
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{literal(key)}: {literal(one)}" for key, one in value.items()) + "}"
    if isinstance(value, str) and '"' not in value and "\\" not in value:
        return f'"{value}"'
    return repr(value)
