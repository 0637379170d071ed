"""Wording that several messages share, and the one way for foreign text into a message: bounded, and never failing."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable

__all__ = [
    "LONGEST",
    "described",
    "did_you_mean",
    "first_line",
    "is_fault",
    "listed",
    "sentence",
    "shortened",
    "shown",
    "with_article",
]

LONGEST = 300
"""Characters of a foreign text, such as a value's `repr` or an error's message, that a message quotes."""

MOST = 100
"""Entries of a list that a message quotes."""


def did_you_mean(name: str, known: Iterable[str], count: int = 3) -> str:
    """A sentence that suggests the closest of `known`; empty if none is close.

    >>> did_you_mean("maximum", ["max", "99.9%"])
    "Did you mean 'max'?"
    """
    if len(name) > LONGEST:
        return ""
    close = difflib.get_close_matches(name, list(known), n=count)
    return f"Did you mean {' or '.join(map(shown, close))}?" if close else ""


def shortened(text: str, longest: int = LONGEST) -> str:
    """`text`, or its beginning if it is longer than `longest`.

    >>> shortened("a" * 1000, longest=5)
    'aaaaa... (1,000 characters)'
    """
    return text if len(text) <= longest else f"{text[:longest]}... ({len(text):,} characters)"


def shown(value: object, longest: int = LONGEST) -> str:
    """The `repr` of a foreign value on one line, for messages; if that fails, its type.

    >>> shown([1, "two"]), shown("a" * 1000, longest=5)
    ("[1, 'two']", "'aaaa... (1,002 characters)")
    """
    return shortened(_one_line(_text(lambda: repr(value), f"<{_type(value)}>")), longest)


def described(error: BaseException, longest: int = LONGEST) -> str:
    """The type and the text of an error on one line.

    >>> described(ValueError("no such\\nsize")), described(ValueError())
    ('ValueError: no such size', 'ValueError')
    """
    text = shortened(_one_line(_text(lambda: str(error), "")), longest)
    return f"{_type(error)}: {text}" if text else _type(error)


def first_line(error: BaseException) -> str:
    """The first line of an error's text, without the details that torch may append; without a text, its `repr`.

    >>> first_line(ValueError("no such size\\nraised at ..."))
    'no such size'
    """
    lines = _text(lambda: str(error), "").splitlines()
    return shortened(lines[0]) if lines else shown(error)


def listed(names: Iterable[object], most: int = MOST) -> str:
    """Names behind each other, the first `most` of them.

    >>> listed(["a", "b", "c"]), listed(range(1000), most=2)
    ('a, b, c', '0, 1 and 998 more')
    """
    every = [_name(name) for name in names]
    left = len(every) - most
    return ", ".join(every[:most]) + (f" and {left:,} more" if left > 0 else "")


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


def is_fault(error: BaseException) -> bool:
    """False for what foreign code may not swallow: Ctrl-C, and the closing of a generator.

    A plugin's `sys.exit()`, or an exception of its own that is no `Exception`, is a fault like any other.

    >>> is_fault(SystemExit(0)), is_fault(KeyboardInterrupt())
    (True, False)
    """
    return not isinstance(error, (KeyboardInterrupt, GeneratorExit))


def _text(make: Callable[[], str], otherwise: str) -> str:
    try:
        return make()
    except BaseException as error:
        if not is_fault(error):
            raise
        return otherwise


def _name(value: object) -> str:
    return shortened(_text(lambda: str(value), f"<{_type(value)}>"), LONGEST // 3)


def _one_line(text: str) -> str:
    return re.sub(r"\s*\n\s*", " ", text).strip()


def _type(value: object) -> str:
    return shortened(type(value).__name__, LONGEST // 3)
