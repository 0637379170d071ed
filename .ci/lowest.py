"""Prints the lowest version of every dependency that pyproject.toml allows, as constraints for pip.

    .venv/bin/python .ci/lowest.py [EXTRA ...]

A dependency without a lower bound, or with one that is no plain version, is an error: the bound is a promise, and
docs/release.md tells how it is kept.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def lowest(requirements: list[str], own: str, extras: dict[str, list[str]]) -> dict[str, str]:
    """The lowest versions by name; extras of the project itself are followed."""
    found: dict[str, str] = {}
    for requirement in requirements:
        name, inner, bounds = re.fullmatch(r"([\w.-]+)(?:\[([\w,-]+)\])?([^;]*)(?:;.*)?", requirement).groups()  # type: ignore[union-attr]
        if name == own:
            for extra in inner.split(","):
                found |= lowest(extras[extra], own, extras)
            continue
        bound = re.search(r">=\s*([\w.+]+)", bounds)
        if bound is None:
            sys.exit(f"{requirement!r} in pyproject.toml has no lower bound, NAME>=VERSION.")
        found[name] = bound[1]
    return found


def main() -> None:
    project = tomllib.loads(PROJECT.read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(one for extra in sys.argv[1:] for one in extras[extra])]
    for name, version in sorted(lowest(wanted, project["name"], extras).items()):
        print(f"{name}=={version}")


if __name__ == "__main__":
    main()
