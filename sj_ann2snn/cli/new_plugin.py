"""``sj-ann2snn new-plugin``: writes a working plugin distribution to start from."""

from __future__ import annotations

import argparse
import datetime
import importlib.resources
import re
import subprocess
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath
from string import Template

from .._version import __version__
from ..errors import InputError
from ..hooks.discovery import load_plugins
from ..hooks.specs import API_VERSION
from .arguments import Subparsers

__all__ = ["KINDS", "add_parser", "new_plugin", "run"]

KINDS = {
    "normalization": ("Normalization mode", "ann2snn_normalizations"),
    "mapper": ("Layer mapper", "ann2snn_layer_mappers"),
    "neuron": ("Spiking neuron", "ann2snn_neurons"),
    "correction": ("Correction", "ann2snn_corrections"),
    "exit-rule": ("Exit rule", "ann2snn_exit_rules"),
    "readout": ("Readout", "ann2snn_readouts"),
    "exporter": ("Exporter", "ann2snn_exporters"),
}
"""The kinds of plugins: the word for each in its description, and its hook. The templates are in a folder per kind."""

SUFFIXES = ("", "Mode", "Observer", "Layer", "Mapper", "Maker", "Neuron", "Correction", "Rule", "Readout", "Exporter")
"""The suffixes that the templates append to the plugin's name to name classes."""

PREFIX = "sj-ann2snn-"
LONGEST = 40
NAME = re.compile(r"[A-Z0-9]([A-Z0-9._-]*[A-Z0-9])?", re.IGNORECASE)
"""A distribution's name as defined by PEP 508."""

EXAMPLE = """\
examples:

    sj-ann2snn new-plugin low-latency --kind normalization
    sj-ann2snn new-plugin sj-ann2snn-lif --kind neuron --directory plugins/lif --author "Ada Lovelace"

Then, in the new folder: pip install -e ".[test]" && pytest
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "new-plugin",
        help="write a plugin distribution to start from",
        description="Write a plugin distribution that can be installed, works, and passes the conformance tests of its "
        "hook. Replace the example in it with your own code.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "name", metavar="NAME", help="name of what the plugin adds; the distribution is called sj-ann2snn-NAME"
    )
    parser.add_argument("--kind", required=True, choices=list(KINDS), help="what the plugin adds")
    parser.add_argument(
        "--directory", type=Path, metavar="DIR", help="folder to write (default: the distribution's name)"
    )
    parser.add_argument(
        "--author", help="for the licence and the metadata (default: git's user.name, or 'the authors')"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the distribution and print where it is."""
    folder, files = new_plugin(args.name, args.kind, args.directory, args.author)
    print(f"Wrote {folder}:")
    for path in files:
        print(f"  {path}")
    print(f'Next: cd {folder} && pip install -e ".[test]" && pytest')
    return 0


def new_plugin(
    name: str, kind: str, directory: Path | None = None, author: str | None = None
) -> tuple[Path, list[PurePosixPath]]:
    """Write a distribution; returns its folder and the files in it.

    Args:
        name: Name of what it adds, with or without ``sj-ann2snn-`` before it.
        kind: One of `KINDS`.
        directory: The folder to write; by default, a folder with the distribution's name in the current one.
        author: Author in the licence and the metadata.

    Raises:
        InputError: The name cannot be used, or the folder is not empty or cannot be written.
    """
    distribution = _check_name(name)
    plugin = _check_plugin_name(distribution, kind)
    words = {
        "api_version": str(API_VERSION),
        "author": _author(author),
        "class_name": _class_name(plugin),
        "distribution": distribution,
        "kind": KINDS[kind][0],
        "name": plugin,
        "package": distribution.replace("-", "_"),
        "version": _release(),
        "year": str(datetime.date.today().year),
    }
    folder = Path(distribution) if directory is None else directory
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            f"{folder} exists and is {'not empty' if folder.is_dir() else 'not a folder'}; nothing was written. "
            "Name another folder with --directory, or remove it first."
        )
    files = dict(sorted(_render(kind, words)))
    try:
        for path, text in files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror or error}. Name another --directory.") from error
    return folder, list(files)


def _render(kind: str, words: dict[str, str]) -> Iterator[tuple[PurePosixPath, str]]:
    """Every file of the distribution: its path in the folder and its text."""
    templates = importlib.resources.files(__package__) / "templates"
    for part in ("common", kind):
        for path, template in _files(templates / part):
            text = Template(template.read_text(encoding="utf-8")).substitute(words)
            yield _target_path(path, words["package"]), text


def _files(folder: Traversable, inside: PurePosixPath | None = None) -> Iterator[tuple[PurePosixPath, Traversable]]:
    for one in folder.iterdir():
        path = (inside or PurePosixPath()) / one.name
        if one.is_dir():
            yield from _files(one, path)
        elif one.name.endswith(".template"):
            yield path, one


def _target_path(template: PurePosixPath, package: str) -> PurePosixPath:
    """The path of a template's file in the distribution."""
    parts = [package if part == "package" else part for part in template.parts[:-1]]
    return PurePosixPath(*parts, template.name.removesuffix(".template").replace("PACKAGE", package))


def _check_name(name: str) -> str:
    """Check `name`, and return the distribution's, as package indexes write it (PEP 503)."""
    if not NAME.fullmatch(name) or len(name) > LONGEST:
        raise InputError(
            f"{name!r} is not a valid name for a distribution: use letters, digits, '-', '_' and '.', with a letter or "
            f"digit first and last, at most {LONGEST} characters, as in low-latency."
        )
    plugin = re.sub(r"[-_.]+", "-", name).lower().removeprefix(PREFIX)
    if plugin in ("", PREFIX.rstrip("-")):
        raise InputError(f"{name!r} is the name of this package; name what the plugin adds, as in low-latency.")
    if not plugin[0].isalpha():
        raise InputError(f"{name!r} gives classes a name that is not allowed in Python. Begin with a letter.")
    return PREFIX + plugin


def _check_plugin_name(distribution: str, kind: str) -> str:
    """Check and return the plugin's name in a user's code: the distribution's without ``sj-ann2snn-``."""
    import sj_ann2snn

    name = distribution.removeprefix(PREFIX)
    taken = [one for one in load_plugins().classes[KINDS[kind][1]] if one.name.lower() == name]
    if taken:
        raise InputError(
            f"There is already a {KINDS[kind][0].lower()} {name!r}, from {taken[0].owner}. Use another name."
        )
    class_name = _class_name(name)
    hidden = [class_name + suffix for suffix in SUFFIXES if class_name + suffix in sj_ann2snn.__all__]
    if hidden or not class_name.isidentifier() or class_name.startswith("Test"):
        shown = hidden[0] if hidden else class_name
        raise InputError(
            f"{distribution!r} gives classes the name {shown}, which already means something else. Use another name."
        )
    return name


def _class_name(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in name.split("-"))


def _author(given: str | None) -> str:
    """The author's name, checked to fit in a line of TOML."""
    name = (given or _git_user() or "the authors").strip()
    if not name.isprintable() or set('"\\') & set(name):
        raise InputError(f"--author {name!r} is not allowed: give a name on one line, without quotes and backslashes.")
    return name


def _git_user() -> str:
    try:
        done = subprocess.run(["git", "config", "user.name"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    name = done.stdout.strip()
    return "" if set('"\\') & set(name) or not name.isprintable() else name


def _release() -> str:
    """Version of sj-ann2snn for the requirements: the current one, major and minor."""
    return ".".join(__version__.split(".")[:2])
