"""``sj-ann2snn plugins``: what is plugged in, what failed to load and why, and with ``--check`` what works in use."""

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
        description="List every plugin distribution with the hooks and classes it contributes, then the plugins that "
        "could not be loaded, each with its traceback, and what several plugins claim. The exit status is 1 if one "
        "failed or such a conflict is open.",
    )
    parser.add_argument(
        "--check", action="store_true", help="try every class of the installed plugins on a small network, too"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the plugins; 1 if one does not work."""
    # What a plugin prints is no part of the list.
    with redirect_stdout(sys.stderr), warnings.catch_warnings():
        # This command is where the warning sends its readers.
        warnings.simplefilter("ignore", PluginWarning)
        registry = load_plugins()
        tried = try_plugins(registry) if args.check else None
    found: dict[str, Any] = {
        "plugins": _loaded(registry),
        "failed": [
            {**_place(failure.owner), "error": failure.error, "traceback": failure.traceback}
            for failure in registry.failures
        ],
        "conflicts": [{"hook": hook, "error": error} for hook, error in registry.conflicts()],
        "unused": [_place(owner) for owner in _unused(registry)],
        "environment": {name: os.environ.get(name) for name in ENVIRONMENT},
    }
    if tried is not None:
        found["tried"] = tried
    print(json.dumps(found, indent=2, ensure_ascii=False) if args.json else _text(found))
    broken = any(one["status"] != WORKS for one in tried or ())
    return 1 if registry.failures or found["conflicts"] or broken else 0


def _loaded(registry: Registry) -> list[dict[str, Any]]:
    """Every plugin that contributes classes: the built-ins first, then by distribution."""
    by_owner: dict[Owner, dict[str, list[dict[str, str]]]] = {}
    for hook, classes in registry.classes.items():
        for one in classes:
            hooks = by_owner.setdefault(one.owner, {})
            hooks.setdefault(hook, []).append(
                {"name": one.name, "class": one.cls.__qualname__, "module": one.cls.__module__}
            )
    owners = sorted(by_owner, key=lambda owner: (owner.distribution != "sj-ann2snn", owner))
    return [{**_place(owner), "hooks": by_owner[owner]} for owner in owners]


def _unused(registry: Registry) -> list[Owner]:
    """Installed plugins that contribute nothing here: the environment leaves them out, or they are empty."""
    known = {one.owner for classes in registry.classes.values() for one in classes}
    known |= {failure.owner for failure in registry.failures}
    return [owner for owner, _ in installed_plugins() if owner not in known]


def _place(owner: Owner) -> dict[str, str]:
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
        lines += ["", f"{_named(plugin)} is installed and not in use: {_why_unused(found['environment'])}"]
    for plugin in found["failed"]:
        lines += ["", f"{_named(plugin)} could not be loaded: {plugin['error']}"]
        lines += textwrap.indent(plugin["traceback"].rstrip(), "    ").splitlines()
    for conflict in found["conflicts"]:
        lines += ["", f"Conflict in {conflict['hook']}: {conflict['error']}"]
    if "tried" in found:
        lines += ["", *_tried_text(found["tried"])]
    return "\n".join(lines)


def _tried_text(tried: list[dict[str, str]]) -> list[str]:
    if not tried:
        return ["Nothing to try: no plugin but the built-ins contributes a class."]
    lines = [f"Tried on a small network for T={STEPS}, each distribution as if it alone were installed:"]
    for one in tried:
        lines.append(f"  {one['distribution']} {one['version']} {one['hook']} {one['name']!r}: {one['status']}")
    return lines


def _named(plugin: dict[str, str]) -> str:
    return f"{plugin['distribution']} {plugin['version']} (entry point {plugin['entry_point']})"


def _why_unused(environment: dict[str, str | None]) -> str:
    in_force = [f"{name}={value!r}" for name, value in environment.items() if value is not None]
    if in_force:
        return f"{' and '.join(in_force)} leaves it out, or it contributes no class."
    return "it contributes no class."
