"""Checks that a plugin keeps the contract of its hooks, and registers it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pluggy

from ..errors import Ann2SnnError, PluginError
from ..support.wording import LONGEST, described, did_you_mean, listed, sentence, shown
from .kinds import KINDS, HookKind
from .registry import Owner, Registry
from .specs import API_VERSION, PROJECT, HookSpecs

__all__ = ["register_plugin", "told"]


def register_plugin(registry: Registry, plugin: Any, owner: Owner) -> None:
    """Add the classes of `plugin` to `registry`, all of them or none.

    Raises:
        PluginError: The plugin breaks the contract of its hooks.
    """
    _require_plugin(plugin)
    if isinstance(plugin, type):
        plugin = plugin()
    wanted: Any = getattr(plugin, "ANN2SNN_API", API_VERSION)
    if not isinstance(wanted, int) or isinstance(wanted, bool):
        given = f"the text {shown(wanted)}" if isinstance(wanted, str) else shown(wanted)
        raise PluginError(f"ANN2SNN_API is {given}; it must be the number {API_VERSION}: ANN2SNN_API = {API_VERSION}.")
    if wanted != API_VERSION:
        raise PluginError(
            f"it was written for hook API version {shown(wanted)}, but this sj-ann2snn has version {API_VERSION}. "
            + ("Update sj-ann2snn." if wanted > API_VERSION else "Update the plugin.")
        )
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(HookSpecs)
    try:
        manager.register(plugin)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(f"{sentence(told(error))} {_known_hooks(_named_like_hooks(plugin))}") from error
    implemented = {caller.name for caller in manager.get_hookcallers(plugin) or ()}
    unmarked = [name for name in _named_like_hooks(plugin) if name not in implemented]
    unknown = [name for name in unmarked if name not in KINDS]
    if unknown:
        raise PluginError(f"{listed(unknown)} is no hook. {_known_hooks(unknown)}")
    if unmarked:
        raise PluginError(f"{listed(unmarked)} is not marked with @sj_ann2snn.hookimpl.")
    if not implemented:
        raise PluginError(f"it implements no hook. {_known_hooks(())}")
    contributed = {
        hook: [kind.check(cls) for cls in _require_classes(hook, getattr(manager.hook, hook)())]
        for hook, kind in KINDS.items()
        if hook in implemented
    }
    registry.add(contributed, owner)


def _require_plugin(given: Any) -> None:
    """Raises:
    PluginError: `given` is a class for a hook, or an instance of one, instead of an object with hooks.
    """
    for kind in KINDS.values():
        is_class = isinstance(given, type) and issubclass(given, kind.base)
        if is_class or isinstance(given, kind.base):
            name = (given if is_class else type(given)).__name__
            raise PluginError(
                f"it is {'the class' if is_class else 'an instance of'} {name}, a {kind.base.__name__}, but a plugin "
                f"is an object whose hooks return classes. Write {hook_for(kind, name)}."
            )


def hook_for(kind: HookKind, name: str) -> str:
    """How to write a plugin that only offers the class called `name`."""
    return f"types.SimpleNamespace({kind.hook}=sj_ann2snn.hookimpl(lambda: [{name}]))"


def _named_like_hooks(plugin: Any) -> list[str]:
    return [name for name in dir(plugin) if name.startswith("ann2snn_")]


def _known_hooks(names: Iterable[str]) -> str:
    """What the hooks are called, and which of them `names` may mean."""
    hints = [did_you_mean(name, KINDS, count=1) for name in names if name not in KINDS]
    return " ".join([*dict.fromkeys(filter(None, hints)), f"Hooks: {', '.join(KINDS)}."])


def _require_classes(hook: str, answers: list[Any]) -> Iterable[Any]:
    (answer,) = answers or [None]
    if not isinstance(answer, (list, tuple)):
        raise PluginError(f"{hook}() must return a list of classes, but it returned {shown(answer)}.")
    return answer


def told(error: BaseException) -> str:
    """The error's type and text on one line; the text alone of a `PluginError`."""
    text = described(error, 10 * LONGEST if isinstance(error, Ann2SnnError) else LONGEST)
    return text.removeprefix("PluginError: ")
