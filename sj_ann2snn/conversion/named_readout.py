"""Checks the readout that a plugin names for the networks that it takes part in."""

from __future__ import annotations

from typing import Any, TypeGuard

from ..errors import OptionError, PluginError
from ..hooks.choice import find
from ..hooks.kinds import READOUTS
from ..hooks.options import construct
from ..hooks.registry import Registry, culprit
from ..support.blame import Culprit
from ..support.wording import shown

__all__ = ["NamedReadout", "require_readout"]

NamedReadout = tuple[str, dict[str, Any]]
"""Name and options of a readout."""


def require_readout(registry: Registry, named: object, who: Culprit, how: str) -> NamedReadout:
    """`named`, if it is the name of a known readout and options that it takes.

    Args:
        registry: What plugins contribute.
        named: What the plugin named.
        who: The plugin's class, for messages.
        how: How it did so, for messages: "returned {} from readout()".

    Raises:
        PluginError: It is something else.
    """
    said = how.format(shown(named))
    if not _is_name_with_options(named):
        raise PluginError(
            f"{who} {said}; it must be the name and the options of a readout, such as "
            f'("delayed", {{"delay": 4}}). {who.advice}'
        )
    name, options = named
    try:
        found = find(registry, READOUTS, name)
        construct(found.cls, options, culprit(READOUTS, found.name, found.owner))
    except OptionError as error:
        raise PluginError(f"{who} {said}, which is not possible: {error} {who.advice}") from error
    return name, options


def _is_name_with_options(value: object) -> TypeGuard[NamedReadout]:
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], dict)
