"""``sj-ann2snn plugins``: which plugins are loaded, which failed and why, and with ``--check`` which of them work."""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
import warnings
from contextlib import redirect_stdout
from typing import Any

from ..errors import PluginWarning
from ..hooks.conflicts import open_conflicts
from ..hooks.discovery import ALLOW_VARIABLE, DENY_VARIABLE, installed_plugins, load_plugins
from ..hooks.registry import Owner, Registry
from .arguments import Subparsers
from .attempts import STEPS, WORKS, try_plugins

__all__ = ["add_parser", "run"]

ENVIRONMENT = (ALLOW_VARIABLE, DENY_VARIABLE)


def add_parser(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "plugins",
        help="list the loaded plugins and those that failed",
        description="List every plugin distribution with its hooks and classes, then the plugins that could not be "
        "loaded, each with its traceback, and the conflicts between plugins. The exit status is 1 if a plugin failed "
        "or a conflict is open.",
    )
    parser.add_argument(
        "--check", action="store_true", help="also try every class of the installed plugins on a small network"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the plugins; 1 if one does not work."""
    # A plugin's own output is not part of the list.
    with redirect_stdout(sys.stderr), warnings.catch_warnings():
        # The warning refers to this command.
        warnings.simplefilter("ignore", PluginWarning)
        registry = load_plugins()
        tried = try_plugins(registry) if args.check else None
    found: dict[str, Any] = {
        "plugins": _list_loaded(registry),
        "failed": [
            {**_owner_as_dict(failure.owner), "error": failure.error, "traceback": failure.traceback}
            for failure in registry.failures
        ],
        "conflicts": [{"hook": hook, "error": error} for hook, error in open_conflicts(registry)],
        "unused": [_owner_as_dict(owner) for owner in _list_unused(registry)],
        "environment": {name: os.environ.get(name) for name in ENVIRONMENT},
    }
    if tried is not None:
        found["tried"] = tried
    print(json.dumps(found, indent=2, ensure_ascii=False) if args.json else _text(found))
    broken = any(one["status"] != WORKS for one in tried or ())
    return 1 if registry.failures or found["conflicts"] or broken else 0


def _list_loaded(registry: Registry) -> list[dict[str, Any]]:
    """Every plugin that contributes classes: the built-ins first, then by distribution."""
    by_owner: dict[Owner, dict[str, list[dict[str, str]]]] = {}
    for hook, classes in registry.classes.items():
        for one in classes:
            hooks = by_owner.setdefault(one.owner, {})
            hooks.setdefault(hook, []).append(
                {"name": one.name, "class": one.cls.__qualname__, "module": one.cls.__module__}
            )
    owners = sorted(by_owner, key=lambda owner: (owner.distribution != "sj-ann2snn", owner))
    return [{**_owner_as_dict(owner), "hooks": by_owner[owner]} for owner in owners]


def _list_unused(registry: Registry) -> list[Owner]:
    """Installed plugins that contribute nothing here, because the environment disables them or they have no class."""
    known = {one.owner for classes in registry.classes.values() for one in classes}
    known |= {failure.owner for failure in registry.failures}
    return [owner for owner, _ in installed_plugins() if owner not in known]


def _owner_as_dict(owner: Owner) -> dict[str, str]:
    return {"distribution": owner.distribution, "version": owner.version, "entry_point": owner.entry_point}


def _text(found: dict[str, Any]) -> str:
    lines: list[str] = []
    for plugin in found["plugins"]:
        head = f"{plugin['distribution']} {plugin['version']}".rstrip()
        if head not in lines:
            lines.append(head)
        lines.append(f"  {plugin['entry_point']}")
        for hook, classes in plugin["hooks"].items():
            lines += textwrap.wrap(
                f"{hook}: " + ", ".join(one["class"] for one in classes),
                width=100,
                initial_indent="    ",
                subsequent_indent="      ",
            )
    for plugin in found["unused"]:
        lines += ["", f"{_title(plugin)} is installed but not in use: {_why_unused(found['environment'])}"]
    for plugin in found["failed"]:
        lines += ["", f"{_title(plugin)} could not be loaded: {plugin['error']}"]
        lines += textwrap.indent(plugin["traceback"].rstrip(), "    ").splitlines()
    for conflict in found["conflicts"]:
        lines += ["", f"Conflict in {conflict['hook']}: {conflict['error']}"]
    if "tried" in found:
        lines += ["", *_tried_text(found["tried"])]
    return "\n".join(lines)


def _tried_text(tried: list[dict[str, str]]) -> list[str]:
    if not tried:
        return ["Nothing to try: no installed plugin contributes a class."]
    lines = [f"Tried on a small network for T={STEPS}, each distribution as if no other were installed:"]
    for one in tried:
        lines.append(f"  {one['distribution']} {one['version']} {one['hook']} {one['name']!r}: {one['status']}")
    return lines


def _title(plugin: dict[str, str]) -> str:
    return f"{plugin['distribution']} {plugin['version']} (entry point {plugin['entry_point']})"


def _why_unused(environment: dict[str, str | None]) -> str:
    in_force = [f"{name}={value!r}" for name, value in environment.items() if value is not None]
    if in_force:
        return f"{' and '.join(in_force)} disables it, or it contributes no class."
    return "it contributes no class."
