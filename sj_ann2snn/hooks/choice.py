"""Resolves an argument, a name or an instance, to a class that plugins contribute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import OptionError
from ..support.wording import MOST, did_you_mean, listed, shortened, shown, with_article
from .conflicts import resolve
from .kinds import HookKind
from .registry import CALLER, Registered, Registry

__all__ = ["Choice", "choose", "class_given", "find", "unknown"]


@dataclass(frozen=True)
class Choice:
    """The class or instance that an argument means.

    Attributes:
        found: The class, and the distribution that it comes from.
        instance: The instance that the caller gave; None if the argument is a name.
    """

    found: Registered
    instance: Any = None


def choose(registry: Registry, kind: HookKind, given: object, prefer: Sequence[str] = ()) -> Choice:
    """Resolve `given`, a name or an instance.

    Raises:
        OptionError: It is neither, or no class has that name.
        ConflictError: Several plugins claim that name.
    """
    if isinstance(given, kind.base):
        return Choice(Registered(type(given), CALLER), given)
    if isinstance(given, str):
        return Choice(find(registry, kind, given, prefer))
    if isinstance(given, type):
        raise OptionError(class_given(kind, given))
    known = listed(shown(one.name) for one in registry.registered(kind))
    choices = f" ({known})" if known else ""
    otherwise = f"{kind.otherwise}, " if kind.otherwise else ""
    raise OptionError(
        f"{kind.argument}={shown(given)} is not allowed: give {otherwise}the name of "
        f"{with_article(kind.noun)}{choices} or an instance of {kind.base.__name__}."
    )


def class_given(kind: HookKind, given: type) -> str:
    """The message for a class in place of an instance."""
    name = shortened(given.__name__)
    return f"{kind.argument}={name} is a class; give an instance, {kind.argument}={name}(...)."


def find(registry: Registry, kind: HookKind, name: str, prefer: Sequence[str] = ()) -> Registered:
    """The class of `kind` that is called `name`, or that replaces it.

    Raises:
        OptionError: There is no such class.
        ConflictError: There are several.
    """
    wanted = name.lower()
    candidates = [one for one in registry.registered(kind) if one.name.lower() == wanted or wanted in one.replaces]
    if not candidates:
        raise OptionError(unknown(registry, kind, name))
    return resolve(candidates, prefer, f"{kind.argument}={shown(name)}", kind.settled_by)


def unknown(registry: Registry, kind: HookKind, given: object, broken: Sequence[str] = ()) -> str:
    """The message about an argument that no class of `kind` recognizes.

    Args:
        registry: The registered classes.
        kind: The kind of class that the argument names.
        given: The argument.
        broken: Classes that failed on it.
    """
    written = {
        (getattr(one.cls, "example", "") if kind.named_freely else "") or one.name: one
        for one in registry.registered(kind)
    }
    quoted = "{}".format if kind.named_freely else shown
    known = listed(f"{quoted(text)} ({one.owner})" for text, one in sorted(written.items()))
    hint = did_you_mean((given if isinstance(given, str) else shown(given)).lower(), [text.lower() for text in written])
    message = f"{kind.argument}={shown(given)} is not known.{' ' if hint else ''}{hint} Known {kind.plural}: {known}."
    message += f" {with_article(kind.noun).capitalize()} may also be given as an instance of {kind.base.__name__}."
    failed = [*map(str, registry.failures), *broken]
    if failed:
        message += " These plugins do not work, and one of them may provide it: " + "; ".join(failed[:MOST]) + "."
    return message
