"""What several messages say in the same words."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["did_you_mean", "first_line"]


def did_you_mean(name: str, known: Iterable[str], count: int = 3) -> str:
    """A sentence that names the closest of `known`, or nothing if none is close.

    >>> did_you_mean("maximum", ["max", "99.9%"])
    "Did you mean 'max'?"
    """
    close = difflib.get_close_matches(name, list(known), n=count)
    return f"Did you mean {' or '.join(map(repr, close))}?" if close else ""


def first_line(error: BaseException) -> str:
    """What an error says, without the pages that torch may add.

    >>> first_line(ValueError("no such size\\nraised at ..."))
    'no such size'
    """
    return next(iter(str(error).splitlines()), repr(error))
