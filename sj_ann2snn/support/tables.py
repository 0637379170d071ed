"""Tables of results: as text, for notebooks, and as plain data."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["html_table", "plain_data", "text_table"]


def text_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as aligned lines, the first column to the left; the first row is the header.

    >>> print(*text_table([("layer", "spikes"), ("conv", "12.5")]), sep="\\n")
    layer  spikes
    -----  ------
    conv     12.5
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return lines


def html_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as a table for notebooks; the first row is the header."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:])
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def plain_data(value: Any) -> Any:
    """`value` with strings for keys, lists for tuples, and None for what JSON cannot hold.

    >>> plain_data({1: (0.5, math.inf)})
    {'1': [0.5, None]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain_data(one) for key, one in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain_data(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
