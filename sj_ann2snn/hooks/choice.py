"""Resolves an argument, a name or an instance, to a class that plugins contribute."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import OptionError
from ..support.blame import Culprit
from ..support.wording import MOST, did_you_mean, listed, sentence, shortened, shown, with_article
from .conflicts import resolve
from .kinds import HookKind
from .known_plugins import KNOWN_PLUGINS, provider_of
from .registry import CALLER, Registered, Registry, culprit

__all__ = ["Choice", "choose", "class_given", "find", "unknown"]


@dataclass(frozen=True)
class Choice:
    """The class or instance that an argument means.

    Attributes:
        kind: The kind of class.
        found: The class, and the distribution that it comes from.
        instance: The instance that the caller gave; None if the argument is a name.
    """

    kind: HookKind
    found: Registered
    instance: Any = None

    @property
    def culprit(self) -> Culprit:
        """The class in messages."""
        return culprit(self.kind, self.found.name, self.found.owner)


def choose(registry: Registry, kind: HookKind, given: object, prefer: Sequence[str] = ()) -> Choice:
    """Resolve `given`, a name or an instance.

    Raises:
        OptionError: It is neither, or no class has that name.
        ConflictError: Several plugins claim that name.
    """
    if isinstance(given, kind.base):
        return Choice(kind, Registered(type(given), CALLER), given)
    if isinstance(given, str):
        return Choice(kind, find(registry, kind, given, prefer))
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
    hint = _hint(kind, (given if isinstance(given, str) else shown(given)).lower(), written)
    message = f"{kind.argument}={shown(given)} is not known.{' ' if hint else ''}{hint} Known {kind.plural}: {known}."
    message += f" {with_article(kind.noun).capitalize()} may also be given as an instance of {kind.base.__name__}."
    failed = [*map(str, registry.failures), *broken]
    if failed:
        message += " These plugins do not work, and one of them may provide it: " + sentence("; ".join(failed[:MOST]))
    return message


def _hint(kind: HookKind, given: str, known: Iterable[str]) -> str:
    """Where `given` comes from if it is not installed, or what it may be a misspelling of."""
    provider = provider_of(kind.hook, given)
    if provider is not None:
        return f"It comes with {provider}, which is not in use here."
    others = [name for one in KNOWN_PLUGINS for name in one.names.get(kind.hook, ())]
    hint = did_you_mean(given, dict.fromkeys([*(text.lower() for text in known), *others]))
    absent = [name for name in others if name not in known and repr(name) in hint]
    return " ".join([hint, *(f"{shown(name)} comes with {provider_of(kind.hook, name)}." for name in absent)])
