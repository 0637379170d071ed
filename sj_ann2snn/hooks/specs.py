"""The hooks that a plugin can implement.

>>> from sj_ann2snn import hookimpl
>>> @hookimpl
... def ann2snn_normalizations():
...     return [MyMode]

A plugin is a module (or any object) with such functions; an entry point of the group ``sj_ann2snn`` names it. Every
hook returns a list of classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pluggy

from .kinds import KINDS, HookKind

__all__ = ["API_VERSION", "PROJECT", "HookSpecs", "hookimpl"]

PROJECT = "sj_ann2snn"
"""Name of the pluggy project and of the entry-point group."""

API_VERSION = 1
"""A plugin may declare the hook API version it was written for: ``ANN2SNN_API = 1``. Any other version is refused."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


def _specification(kind: HookKind) -> Callable[..., Any]:
    def specification(self: Any) -> Any:
        raise NotImplementedError  # a specification is never called

    specification.__name__ = kind.hook
    specification.__qualname__ = f"HookSpecs.{kind.hook}"  # the dot makes pluggy ignore self, as for a method
    specification.__doc__ = kind.summary
    specification.__annotations__ = {"return": f"list[type[{kind.base.__name__}]]"}
    return hookspec(specification)


HookSpecs = type(
    "HookSpecs",
    (),
    {"__doc__": "Specifications of all hooks.", **{hook: _specification(kind) for hook, kind in KINDS.items()}},
)
