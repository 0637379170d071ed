"""How large and how deeply nested documents may be, so that a small file cannot use up the machine."""

from __future__ import annotations

from typing import Any

__all__ = ["MOST_NODES", "beyond_limits"]

MOST_NODES = 100_000
"""Nodes of a network. ResNet-152 has about 500; 100,000 take about a minute to build."""

MOST_VALUES = 5_000_000
"""Values in a document, counted wherever they are used."""

DEEPEST = 100
"""How deep values may be nested, the document itself included. Documents of converted networks reach 10."""


def beyond_limits(document: Any) -> str:
    """What is too large about a document; empty if nothing is.

    >>> beyond_limits({"nodes": [[1, 2]]}), beyond_limits({"nodes": [0] * 100_001})
    ('', 'holds more than 100,000 nodes')
    """
    nodes = document.get("nodes") if isinstance(document, dict) else None
    if isinstance(nodes, list) and len(nodes) > MOST_NODES:
        return f"holds more than {MOST_NODES:,} nodes"
    level, count = [document], 0
    for _ in range(DEEPEST):
        # One level at a time, without recursion: pickles can hold values that contain themselves.
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inner.extend(value.values())
            elif isinstance(value, (list, tuple)):
                inner.extend(value)
            if len(inner) > MOST_VALUES - count:
                return f"holds more than {MOST_VALUES:,} values"
        if not inner:
            return ""
        count += len(inner)
        level = inner
    return f"is nested more than {DEEPEST} levels deep"
