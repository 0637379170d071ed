"""Decides which plugin wins when several claim the same thing.

Registration order never decides anything. A class replaces another only by naming it in `replaces`; the caller settles
every remaining conflict with `prefer`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from torch import nn

from ..contracts.layer_mapper import Claim
from ..contracts.site import Site
from ..errors import ConflictError
from ..support.wording import did_you_mean, listed, shown
from .kinds import BY_PREFER, KINDS, LAYER_MAPPERS, HookKind
from .registry import BUILTIN, CALLER, Registered, Registry

__all__ = ["claims", "find_mapper", "open_conflicts", "resolve"]


def resolve(
    candidates: Sequence[Registered], prefer: Iterable[str], what: str, settled_by: str = BY_PREFER
) -> Registered:
    """The candidate that wins: the only one that is not replaced, otherwise the one named in `prefer`.

    Args:
        candidates: At least one.
        prefer: Names of distributions or of classes that win an open conflict.
        what: What they all claim, for the message.
        settled_by: How the caller settles an open conflict, for the message; ``{first}`` is a distribution.

    Raises:
        ConflictError: Several candidates remain, or they replace each other.
    """
    own = [one for one in candidates if one.owner == CALLER]
    alive = _drop_replaced(own or candidates)
    if len(alive) == 1:
        return alive[0]
    wanted = {name.lower() for name in prefer}
    preferred = [
        one for one in alive or candidates if one.name.lower() in wanted or one.owner.distribution.lower() in wanted
    ]
    if len(preferred) == 1:
        return preferred[0]
    claimants = " and ".join(
        f"{shown(one.name)} of {one.owner}" for one in sorted(candidates, key=lambda one: (one.owner, one.name))
    )
    first = min(one.owner.distribution for one in candidates)
    raise ConflictError(
        f"{what} is claimed by {claimants}, and nothing says which one wins. "
        f"{settled_by.format(first=first)}, uninstall one of them, or disable one with SJ_ANN2SNN_DISABLE_PLUGINS."
        f"{_replacing(candidates)}{_without_effect(candidates, wanted, preferred)}"
    )


def _replacing(candidates: Sequence[Registered]) -> str:
    """How the author of a plugin settles a conflict with built-ins."""
    builtin = [one.name for one in candidates if one.owner.distribution == BUILTIN]
    others = [one.cls.__name__ for one in candidates if one.owner.distribution != BUILTIN]
    if not builtin or not others:
        return ""
    written = ", ".join(map(repr, builtin)) + ("," if len(builtin) == 1 else "")
    return f" A plugin takes the place of a built-in by declaring it: replaces = ({written}) in {others[0]}."


def _without_effect(candidates: Sequence[Registered], wanted: Collection[str], preferred: Sequence[Registered]) -> str:
    """What `prefer` names, if it does not settle the conflict."""
    if not wanted or preferred:
        return ""
    known = {name for one in candidates for name in (one.name, one.owner.distribution)}
    hint = did_you_mean(min(wanted), known)
    return f" prefer names {listed(map(shown, sorted(wanted)))}, which is none of them.{' ' if hint else ''}{hint}"


def _drop_replaced(candidates: Sequence[Registered]) -> list[Registered]:
    return [
        one
        for one in candidates
        if not any(one.name.lower() in other.replaces for other in candidates if other is not one)
    ]


def open_conflicts(registry: Registry) -> list[tuple[str, str]]:
    """Every unsettled conflict between plugins: the hook, and the message of the error."""
    found = []
    for hook, kind in KINDS.items():
        for claim, candidates in _find_claimants(kind, registry.registered(kind)).items():
            try:
                resolve(candidates, (), claim, kind.settled_by)
            except ConflictError as error:
                found.append((hook, str(error)))
    return found


def find_mapper(registry: Registry, site: Site, prefer: Sequence[str] = ()) -> Registered | None:
    """The mapper that claims `site`, or None.

    Raises:
        ConflictError: Several claim it.
    """
    candidates = [one for one in registry.registered(LAYER_MAPPERS) if claims(one.cls.claims, site.operation)]
    if not candidates:
        return None
    return resolve(candidates, prefer, f"{site.name} ({site.operation_name})")


def _find_claimants(kind: HookKind, known: Sequence[Registered]) -> dict[str, list[Registered]]:
    """Every name and operation that a class in `known` claims, with all classes that claim it."""
    mappers = kind is LAYER_MAPPERS
    # Several mappers may replace the same one, each for other operations.
    found = {
        f"{kind.argument}={shown(name)}": [
            one for one in known if name == one.name.lower() or (not mappers and name in one.replaces)
        ]
        for name in sorted({one.name.lower() for one in known})
    }
    for claimant in known if mappers else ():
        for claim in claimant.cls.claims:
            found[claim if isinstance(claim, str) else _qualified_name(claim)] = [
                one for one in known if claims(one.cls.claims, claim)
            ]
    return found


def claims(claimed: Sequence[Claim], operation: type[nn.Module] | Callable[..., Any] | str) -> bool:
    """True if `operation` is in `claimed`: types match by identity, methods by name, functions by either."""
    if isinstance(operation, str):
        return operation in claimed
    named = "" if isinstance(operation, type) else _qualified_name(operation)
    return any(claim == named if isinstance(claim, str) else claim is operation for claim in claimed)


def _qualified_name(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"
