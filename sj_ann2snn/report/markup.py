"""Builds HTML and SVG; every text that is not markup already is escaped."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable

__all__ = ["Markup", "attributes", "joined", "tag", "visible"]

VOID = ("br", "hr", "link", "meta")
"""Elements without content."""


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def visible(text: object) -> str:
    r"""Foreign text, such as the name of a layer, with all that cannot be seen or turns the text around spelt out.

    >>> visible("conv\x00"), visible("a\u202eb"), visible("\ud800")
    ('conv\\x00', 'a\\u202eb', '\\ud800')
    """
    return "".join(_visible(letter) for letter in str(text))


def _visible(letter: str) -> str:
    if letter in "\n\t" or unicodedata.category(letter) not in ("Cc", "Cf", "Cs"):
        return letter
    return letter.encode("unicode_escape").decode()


def tag(name: str, /, *children: object, **given: object) -> Markup:
    """An element.

    >>> tag("p", "a < b ", tag("b", "c"), class_="x", aria_label='"d"')
    '<p class="x" aria-label="&quot;d&quot;">a &lt; b <b>c</b></p>'

    Args:
        name: Of the element.
        children: `Markup`, or anything else as text; None and False are left out.
        given: Its attributes, `_` for `-`, with `_` behind Python's words; None and False are left out, True stands for
            an attribute that is its own value.
    """
    start = f"<{name}{attributes(**given)}"
    return Markup(f"{start}/>" if name in VOID else f"{start}>{joined(children)}</{name}>")


def attributes(**given: object) -> str:
    """Attributes, each behind a space."""
    found = []
    for key, value in given.items():
        if value is None or value is False:
            continue
        name = key.rstrip("_").replace("_", "-") if key != "viewBox" else key
        text = name if value is True else value if isinstance(value, str) else f"{value:g}"
        found.append(f' {name}="{html.escape(visible(text))}"')
    return "".join(found)


def joined(children: Iterable[object]) -> Markup:
    """Children behind each other, those that are no markup escaped."""
    return Markup(
        "".join(
            one if isinstance(one, Markup) else html.escape(visible(one))
            for one in children
            if one is not None and one is not False
        )
    )
