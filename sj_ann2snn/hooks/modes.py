"""Finds the strategy for a mode as users write it: ``"max"``, ``"99.9%"``, 0.5."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from ..contracts.normalization import Normalization
from ..errors import Ann2SnnError, ModeError, PluginWarning
from ..support.wording import described, is_fault, sentence, shown
from .choice import unknown
from .conflicts import resolve
from .kinds import MODES
from .options import declared_options
from .registry import Registered, Registry, culprit

__all__ = ["find_mode"]


def find_mode(
    registry: Registry, mode: object, options: Mapping[str, Any], prefer: Sequence[str] = ()
) -> tuple[Normalization, Registered]:
    """The strategy that `mode` means, and the class that claimed it.

    Raises:
        ModeError: No strategy recognizes the mode, or it is out of range.
        ConflictError: Several strategies claim it.
    """
    instances: dict[int, Normalization] = {}
    candidates = []
    broken: list[str] = []
    advice: list[str] = []
    for one in registry.registered(MODES):
        known = declared_options(one.cls)
        given = {name: value for name, value in options.items() if name in known}
        try:
            instance = one.cls.parse(mode, **given)
        except Ann2SnnError:
            raise
        except BaseException as error:
            if not is_fault(error):
                raise
            # Another strategy may still recognize the mode.
            broken.append(f"{_shown(one)} failed in parse({shown(mode)}) with {described(error)}")
            advice.append(culprit(MODES, one.name, one.owner).advice)
            continue
        if instance is not None and not isinstance(instance, Normalization):
            broken.append(f"{_shown(one)} returned {shown(instance)} from parse({shown(mode)})")
            advice.append(culprit(MODES, one.name, one.owner).advice)
            continue
        if instance is not None:
            instances[id(one)] = instance
            candidates.append(one)
    for what, to_do in zip(broken, advice, strict=True):
        warnings.warn(f"A mode does not work: {sentence(what)} {to_do}", PluginWarning, stacklevel=4)
    if not candidates:
        raise ModeError(unknown(registry, MODES, mode, broken))
    winner = resolve(candidates, prefer, f"mode={shown(mode)}")
    return instances[id(winner)], winner


def _shown(one: Registered) -> str:
    return f"{shown(one.name)} of {one.owner} (class {one.cls.__name__})"
