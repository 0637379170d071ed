"""Finds plugins through entry points and loads each one on its own.

pluggy's own loader lets one broken plugin break all others, loses duplicates and silently accepts misspelt hooks;
hence this loop. A plugin that fails is recorded and reported once; everything else keeps working.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import os
import re
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from .._version import __version__
from ..errors import OptionError, PluginError, PluginWarning
from ..support.wording import is_fault, sentence, shortened, shown
from .registry import BUILTIN, CALLER, Owner, PluginFailure, Registry
from .specs import PROJECT
from .validation import register_plugin, told

__all__ = [
    "BUILTIN_PLUGINS",
    "forget_plugins",
    "installed_plugins",
    "load_plugins",
    "using",
]

BUILTIN_PLUGINS = (
    "sj_ann2snn.builtin.normalizations",
    "sj_ann2snn.builtin.activation_mappers",
    "sj_ann2snn.builtin.layer_mappers",
    "sj_ann2snn.builtin.arithmetic_mappers",
    "sj_ann2snn.builtin.shape_mappers",
    "sj_ann2snn.builtin.pool_mappers",
    "sj_ann2snn.builtin.neurons",
    "sj_ann2snn.builtin.exits",
    "sj_ann2snn.builtin.readouts",
    "sj_ann2snn.builtin.exporters",
)
"""The built-ins are plugins like any other."""

ALLOW_VARIABLE = "SJ_ANN2SNN_LOAD_PLUGINS"
DENY_VARIABLE = "SJ_ANN2SNN_DISABLE_PLUGINS"

LONGEST_TRACEBACK = 20_000
"""Characters of a plugin's traceback that are kept."""

_in_use: ContextVar[Registry | None] = ContextVar("_in_use", default=None)
"""The registry to use instead of the installed plugins."""


def load_plugins(plugins: Sequence[Any] = ()) -> Registry:
    """The registry of the built-ins, of every installed plugin, and of the caller's own `plugins`.

    Plugins are loaded once per process and setting of two environment variables. `SJ_ANN2SNN_LOAD_PLUGINS` is an
    allow-list of distributions or entry points, separated by commas; empty means built-ins only.
    `SJ_ANN2SNN_DISABLE_PLUGINS` lists the plugins to leave out.

    Args:
        plugins: Plugin objects that the caller passed; their classes win every conflict.

    Raises:
        OptionError: `plugins` is no list.
        PluginError: One of them breaks the contract of its hooks.
    """
    registry = _in_use.get() or _load(os.environ.get(ALLOW_VARIABLE), os.environ.get(DENY_VARIABLE, ""))
    if not isinstance(plugins, Sequence) or isinstance(plugins, str):
        raise OptionError(
            f"plugins={shown(plugins)} is not allowed: give a list of plugins, modules or objects with hooks. "
            "Installed plugins need not be given."
        )
    if not plugins:
        return registry
    registry = registry.copy()
    for position, plugin in enumerate(plugins):
        try:
            register_plugin(registry, plugin, CALLER)
        except BaseException as error:
            if not is_fault(error):
                raise
            raise PluginError(f"plugins[{position}] cannot be used: {sentence(told(error))}") from error
    return registry


@contextmanager
def using(registry: Registry) -> Iterator[None]:
    """While the context is open, let `load_plugins` return `registry` in this thread.

    >>> with using(Registry()):
    ...     load_plugins().failures
    []
    """
    token = _in_use.set(registry)
    try:
        yield
    finally:
        _in_use.reset(token)


def forget_plugins() -> None:
    """Let the next `load_plugins` search for plugins again."""
    _load.cache_clear()


@functools.lru_cache(maxsize=8)
def _load(allow: str | None, deny: str) -> Registry:
    registry = Registry()
    for name in BUILTIN_PLUGINS:
        register_plugin(registry, importlib.import_module(name), Owner(BUILTIN, __version__, name))
    allowed = None if allow is None else _split_names(allow)
    denied = _split_names(deny)
    for owner, entry_point in installed_plugins():
        names = {_normalize(owner.distribution), _normalize(owner.entry_point)}
        if (allowed is not None and not names & allowed) or names & denied:
            continue
        try:
            register_plugin(registry, entry_point.load(), owner)
        except BaseException as error:
            if not is_fault(error):
                raise
            failure = PluginFailure(owner, told(error), shortened(traceback.format_exc(), LONGEST_TRACEBACK))
            registry.failures.append(failure)
            warnings.warn(
                f"A plugin could not be loaded: {sentence(str(failure))} Everything else works without it; "
                "`sj-ann2snn plugins` shows the traceback.",
                PluginWarning,
                stacklevel=2,
            )
    return registry


def installed_plugins() -> Iterator[tuple[Owner, importlib.metadata.EntryPoint]]:
    """Every entry point of the group with its distribution, in a fixed order."""
    found: dict[tuple[str, str], tuple[Owner, importlib.metadata.EntryPoint]] = {}
    for distribution in importlib.metadata.distributions():
        for entry_point in distribution.entry_points:
            if entry_point.group == PROJECT:
                name = str(distribution.metadata["Name"])
                owner = Owner(name, distribution.version, entry_point.name)
                # A distribution may be on the path twice; Python imports the first one.
                found.setdefault((_normalize(name), entry_point.name), (owner, entry_point))
    yield from sorted(found.values(), key=lambda item: item[0])


def _split_names(text: str) -> frozenset[str]:
    return frozenset(_normalize(part.strip()) for part in text.split(",") if part.strip())


def _normalize(name: str) -> str:
    """A distribution's name in the form that package indexes compare."""
    return re.sub(r"[-_.]+", "-", name).lower()
