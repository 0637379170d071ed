"""``sj-ann2snn modes``: every available normalization mode."""

from __future__ import annotations

import argparse
import inspect
import json
from typing import Any

from ..hooks.discovery import load_plugins
from ..hooks.kinds import MODES
from ..hooks.options import declared_options
from ..hooks.registry import Registered
from .arguments import Subparsers, plain

__all__ = ["add_parser", "describe_mode", "run"]


def add_parser(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "modes",
        help="list every mode for Converter(mode=...)",
        description="List every normalization mode that Converter(mode=...) takes here: the built-in ones and the "
        "modes of installed plugins, each with its distribution and its options.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the modes."""
    found = [describe_mode(one) for one in load_plugins().registered(MODES)]
    if args.json:
        print(json.dumps({"modes": found}, indent=2, ensure_ascii=False))
        return 0
    width = max((len(mode["mode"]) for mode in found), default=0)
    for mode in found:
        print(f"{mode['mode']:<{width}}  {mode['description']}")
        print(f"{'':<{width}}  {_details(mode)}")
    return 0


def describe_mode(one: Registered) -> dict[str, Any]:
    """A mode's name, origin and options, as plain data."""
    return {
        "mode": one.cls.example or one.name,
        "name": one.name,
        "class": one.cls.__qualname__,
        "module": one.cls.__module__,
        "distribution": one.owner.distribution,
        "version": one.owner.version,
        "entry_point": one.owner.entry_point,
        "options": {
            name: {"required": option.default is option.empty}
            | ({} if option.default is option.empty else {"default": plain(option.default)})
            for name, option in declared_options(one.cls).items()
        },
        "description": (inspect.getdoc(one.cls) or "").partition("\n")[0],
    }


def _details(mode: dict[str, Any]) -> str:
    text = f"{mode['class']}, {mode['distribution']} {mode['version']}".rstrip()
    options = ", ".join(
        name if option["required"] else f"{name}={option['default']!r}" for name, option in mode["options"].items()
    )
    return f"{text}; options: {options}" if options else text
