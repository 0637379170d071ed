"""Whether a plugin keeps the contract of its hooks."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import pluggy

from ..errors import PluginError
from .registry import HOOK_BASES, Owner, Registry
from .specs import API_VERSION, PROJECT, HookSpecs

__all__ = ["checked", "one_line", "register_plugin"]


def register_plugin(registry: Registry, plugin: Any, owner: Owner) -> None:
    """Add what `plugin` contributes to `registry`, all of it or nothing.

    Raises:
        PluginError: The plugin does not keep the contract of its hooks.
    """
    if isinstance(plugin, type):
        plugin = plugin()
    wanted = getattr(plugin, "ANN2SNN_API", API_VERSION)
    if wanted != API_VERSION:
        raise PluginError(
            f"it was written for version {wanted!r} of the hooks, this sj-ann2snn has version {API_VERSION}. "
            + ("Update sj-ann2snn." if isinstance(wanted, int) and wanted > API_VERSION else "Update it.")
        )
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(HookSpecs)
    try:
        manager.register(plugin)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(f"{one_line(error)}. Hooks: {', '.join(HOOK_BASES)}.") from error
    implemented = {caller.name for caller in manager.get_hookcallers(plugin) or ()}
    unmarked = [name for name in dir(plugin) if name.startswith("ann2snn_") and name not in implemented]
    if unmarked:
        raise PluginError(f"{', '.join(unmarked)} is not marked with @sj_ann2snn.hookimpl.")
    if not implemented:
        raise PluginError(f"it implements no hook. Hooks: {', '.join(HOOK_BASES)}.")
    contributed = {
        hook: [checked(hook, cls) for cls in _returned(hook, getattr(manager.hook, hook)())]
        for hook in HOOK_BASES
        if hook in implemented
    }
    registry.add(contributed, owner)


def _returned(hook: str, answers: list[Any]) -> Iterable[Any]:
    (answer,) = answers or [None]
    if not isinstance(answer, (list, tuple)):
        raise PluginError(f"{hook}() must return a list of classes, it returned {answer!r}.")
    return answer


def checked(hook: str, cls: Any) -> type:
    """`cls`, if it keeps to what `hook` asks of a class.

    Raises:
        PluginError: It does not.
    """
    base = HOOK_BASES[hook]
    if not isinstance(cls, type) or not issubclass(cls, base):
        raise PluginError(f"{hook}() returned {cls!r}, which is not a subclass of sj_ann2snn.{base.__name__}.")
    name = getattr(cls, "name", None)
    if not isinstance(name, str) or not name.strip():
        raise PluginError(f"{cls.__qualname__}.name must be a non-empty string, it is {name!r}.")
    abstract = sorted(getattr(cls, "__abstractmethods__", ()))
    if abstract:
        raise PluginError(f"{cls.__qualname__} does not implement {', '.join(abstract)}.")
    replaces: Any = getattr(cls, "replaces", ())
    if isinstance(replaces, str) or not all(isinstance(one, str) for one in replaces):
        raise PluginError(f"{cls.__qualname__}.replaces must be a tuple of names, it is {replaces!r}.")
    if hook != "ann2snn_normalizations":
        required = [
            name
            for name, parameter in inspect.signature(cls).parameters.items()
            if parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        ]
        if required:
            raise PluginError(
                f"{cls.__qualname__}() requires {', '.join(required)}; options are keyword-only and have defaults."
            )
    exports: Any = getattr(cls, "exports", ())
    if not isinstance(exports, tuple) or not all(hasattr(one, "export_options") for one in exports):
        raise PluginError(
            f"{cls.__qualname__}.exports must be a tuple of layers with a method export_options, it is {exports!r}."
        )
    suffixes: Any = getattr(cls, "suffixes", ())
    if not isinstance(suffixes, tuple) or not all(isinstance(one, str) and one.startswith(".") for one in suffixes):
        raise PluginError(f"{cls.__qualname__}.suffixes must be a tuple of suffixes as '.zip', it is {suffixes!r}.")
    if hook == "ann2snn_layer_mappers":
        claimed = getattr(cls, "claims", None)
        if not isinstance(claimed, tuple) or not claimed:
            raise PluginError(f"{cls.__qualname__}.claims must be a non-empty tuple, it is {claimed!r}.")
        for claim in claimed:
            if not (isinstance(claim, str) or callable(claim)):
                raise PluginError(
                    f"{cls.__qualname__}.claims holds {claim!r}; allowed are module types, functions and "
                    "names of tensor methods."
                )
    return cls


def one_line(error: BaseException) -> str:
    """The error's type and text on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text and not isinstance(error, PluginError) else text or repr(error)
