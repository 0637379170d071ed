"""Finds plugins through entry points and loads each one on its own.

pluggy's own loader lets one broken plugin break all, loses duplicates and accepts misspelt hooks in
silence; hence this loop. A plugin that fails is recorded, reported once, and takes nothing else down.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import inspect
import os
import re
import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pluggy

from .errors import PluginError, PluginWarning
from .hookspecs import API_VERSION, PROJECT, HookSpecs
from .registry import BUILTIN, HOOK_BASES, Owner, PluginFailure, Registry

__all__ = [
    "BUILTIN_PLUGINS",
    "checked",
    "forget_plugins",
    "installed_plugins",
    "load_plugins",
    "one_line",
    "register_plugin",
    "using",
]

BUILTIN_PLUGINS = (
    "sj_ann2snn.builtin.normalizations",
    "sj_ann2snn.builtin.layers",
    "sj_ann2snn.builtin.pooling",
    "sj_ann2snn.builtin.neurons",
    "sj_ann2snn.builtin.exits",
    "sj_ann2snn.builtin.readouts",
    "sj_ann2snn.builtin.exporters",
)
"""The built-ins are plugins like any other."""

ALLOW_VARIABLE = "SJ_ANN2SNN_LOAD_PLUGINS"
DENY_VARIABLE = "SJ_ANN2SNN_DISABLE_PLUGINS"

_in_use: ContextVar[Registry | None] = ContextVar("_in_use", default=None)
"""What stands in for the installed plugins."""


def load_plugins() -> Registry:
    """The registry of the built-ins and of every installed plugin.

    Loaded once per process and setting of the environment variables; `SJ_ANN2SNN_LOAD_PLUGINS` (an
    allow-list of distributions or entry points, separated by commas; empty: built-ins only) and
    `SJ_ANN2SNN_DISABLE_PLUGINS` (the ones to leave out).
    """
    return _in_use.get() or _load(os.environ.get(ALLOW_VARIABLE), os.environ.get(DENY_VARIABLE, ""))


@contextmanager
def using(registry: Registry) -> Iterator[None]:
    """Have `load_plugins` answer `registry` inside, for this thread.

    >>> with using(Registry()):
    ...     load_plugins().normalizations
    []
    """
    token = _in_use.set(registry)
    try:
        yield
    finally:
        _in_use.reset(token)


def forget_plugins() -> None:
    """Have the next `load_plugins` look for plugins anew."""
    _load.cache_clear()


@functools.lru_cache(maxsize=8)
def _load(allow: str | None, deny: str) -> Registry:
    registry = Registry()
    version = _own_version()
    for name in BUILTIN_PLUGINS:
        register_plugin(registry, importlib.import_module(name), Owner(BUILTIN, version, name))
    allowed = None if allow is None else _names(allow)
    denied = _names(deny)
    for owner, entry_point in installed_plugins():
        names = {_normalized(owner.distribution), _normalized(owner.entry_point)}
        if (allowed is not None and not names & allowed) or names & denied:
            continue
        try:
            register_plugin(registry, entry_point.load(), owner)
        except (Exception, SystemExit) as error:
            failure = PluginFailure(owner, one_line(error), traceback.format_exc())
            registry.failures.append(failure)
            warnings.warn(
                f"A plugin could not be loaded: {failure}. Everything else works without it; "
                "`sj-ann2snn plugins` shows the traceback.",
                PluginWarning,
                stacklevel=2,
            )
    return registry


def installed_plugins() -> Iterator[tuple[Owner, importlib.metadata.EntryPoint]]:
    """Every entry point of the group, with the distribution it comes from, in a fixed order."""
    found: dict[tuple[str, str], tuple[Owner, importlib.metadata.EntryPoint]] = {}
    for distribution in importlib.metadata.distributions():
        for entry_point in distribution.entry_points:
            if entry_point.group == PROJECT:
                name = str(distribution.metadata["Name"])
                owner = Owner(name, distribution.version, entry_point.name)
                # A distribution may lie on the path twice; the first one is what Python imports.
                found.setdefault((_normalized(name), entry_point.name), (owner, entry_point))
    yield from sorted(found.values(), key=lambda item: item[0])


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


def _names(text: str) -> frozenset[str]:
    return frozenset(_normalized(part.strip()) for part in text.split(",") if part.strip())


def _normalized(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def one_line(error: BaseException) -> str:
    """The error's type and text on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text and not isinstance(error, PluginError) else text or repr(error)


def _own_version() -> str:
    from . import __version__

    return __version__
