"""Checks that a plugin keeps the contract of its hooks, and registers it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pluggy

from ..errors import Ann2SnnError, PluginError
from ..support.wording import LONGEST, described, listed, shown
from .kinds import KINDS
from .registry import Owner, Registry
from .specs import API_VERSION, PROJECT, HookSpecs

__all__ = ["register_plugin", "told"]


def register_plugin(registry: Registry, plugin: Any, owner: Owner) -> None:
    """Add the classes of `plugin` to `registry`, all of them or none.

    Raises:
        PluginError: The plugin breaks the contract of its hooks.
    """
    if isinstance(plugin, type):
        plugin = plugin()
    wanted = getattr(plugin, "ANN2SNN_API", API_VERSION)
    if wanted != API_VERSION:
        raise PluginError(
            f"it was written for hook API version {shown(wanted)}, but this sj-ann2snn has version {API_VERSION}. "
            + ("Update sj-ann2snn." if isinstance(wanted, int) and wanted > API_VERSION else "Update the plugin.")
        )
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(HookSpecs)
    try:
        manager.register(plugin)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(f"{told(error)}. Hooks: {', '.join(KINDS)}.") from error
    implemented = {caller.name for caller in manager.get_hookcallers(plugin) or ()}
    unmarked = [name for name in dir(plugin) if name.startswith("ann2snn_") and name not in implemented]
    if unmarked:
        raise PluginError(f"{listed(unmarked)} is not marked with @sj_ann2snn.hookimpl.")
    if not implemented:
        raise PluginError(f"it implements no hook. Hooks: {', '.join(KINDS)}.")
    contributed = {
        hook: [kind.check(cls) for cls in _require_classes(hook, getattr(manager.hook, hook)())]
        for hook, kind in KINDS.items()
        if hook in implemented
    }
    registry.add(contributed, owner)


def _require_classes(hook: str, answers: list[Any]) -> Iterable[Any]:
    (answer,) = answers or [None]
    if not isinstance(answer, (list, tuple)):
        raise PluginError(f"{hook}() must return a list of classes, but it returned {shown(answer)}.")
    return answer


def told(error: BaseException) -> str:
    """The error's type and text on one line; the text alone of a `PluginError`."""
    text = described(error, 10 * LONGEST if isinstance(error, Ann2SnnError) else LONGEST)
    return text.removeprefix("PluginError: ")
