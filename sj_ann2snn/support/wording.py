"""Wording that several messages share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["did_you_mean", "first_line", "sentence", "with_article"]


def did_you_mean(name: str, known: Iterable[str], count: int = 3) -> str:
    """A sentence that suggests the closest of `known`; empty if none is close.

    >>> did_you_mean("maximum", ["max", "99.9%"])
    "Did you mean 'max'?"
    """
    close = difflib.get_close_matches(name, list(known), n=count)
    return f"Did you mean {' or '.join(map(repr, close))}?" if close else ""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, without the details that torch may append.

    >>> first_line(ValueError("no such size\\nraised at ..."))
    'no such size'
    """
    return next(iter(str(error).splitlines()), repr(error))


def sentence(text: str) -> str:
    """`text` with a full stop at its end, unless it ends a sentence already.

    >>> sentence("it is closed"), sentence("Is it closed?")
    ('it is closed.', 'Is it closed?')
    """
    text = text.rstrip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def with_article(noun: str) -> str:
    """A noun behind its indefinite article.

    >>> with_article("exit rule"), with_article("mode")
    ('an exit rule', 'a mode')
    """
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
