"""What all sections are made of: pictures with captions, and what is folded away."""

from __future__ import annotations

from collections.abc import Sequence

from .markup import Markup, tag

__all__ = ["captioned", "folded", "more"]


def captioned(content: Markup, caption: str, title: str = "") -> Markup:
    """A picture or a table with a heading and a caption; either may be empty."""
    above = tag("p", title, class_="name") if title else None
    return tag("figure", above, content, tag("figcaption", caption) if caption else None)


def folded(title: object, content: Markup) -> Markup:
    """Content that shows when its title is clicked."""
    return tag("details", tag("summary", title), content)


def more(rest: Sequence[object]) -> str:
    """How many layers are folded.

    >>> more(["a"]), more(["a", "b"])
    ('1 more layer', '2 more layers')
    """
    return f"{len(rest)} more layer{'' if len(rest) == 1 else 's'}"
