"""``sj-ann2snn new-plugin``: writes a plugin distribution that works, to be changed from there."""

from __future__ import annotations

import argparse
import datetime
import importlib.resources
import keyword
import re
import subprocess
import sys
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
"""What can be written: what the description calls it, and its hook. Each has a folder of templates of its name."""

SUFFIXES = ("", "Mode", "Observer", "Layer", "Mapper", "Maker", "Neuron", "Correction", "Rule", "Readout", "Exporter")
"""What the templates put behind the plugin's name to name a class."""

PREFIX = "sj-ann2snn-"
LONGEST = 40
NAME = re.compile(r"[A-Z0-9]([A-Z0-9._-]*[A-Z0-9])?", re.IGNORECASE)
"""A distribution's name as PEP 508 has it."""

EXAMPLE = """\
examples:

    sj-ann2snn new-plugin low-latency --kind normalization
    sj-ann2snn new-plugin sj-ann2snn-lif --kind neuron --directory plugins/lif --author "Ada Lovelace"

Then, in the folder that was written: pip install -e ".[test]" && pytest
"""


def add_parser(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "new-plugin",
        help="write a plugin distribution to start from",
        description="Write a plugin distribution that can be installed, works, and passes the conformance tests of its "
        "hook. What it does is an example; change it to what you need.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="name of the distribution; what it adds is called the same")
    parser.add_argument("--kind", required=True, choices=list(KINDS), help="what the plugin adds")
    parser.add_argument("--directory", type=Path, metavar="DIR", help="folder to write (default: the name)")
    parser.add_argument(
        "--author", help="for the licence and the metadata (default: git's user.name, or 'the authors')"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the distribution and say where."""
    folder, files = new_plugin(args.name, args.kind, args.directory, args.author)
    print(f"Wrote {folder}:")
    for path in files:
        print(f"  {path}")
    print(f'Next: cd {folder} && pip install -e ".[test]" && pytest')
    return 0


def new_plugin(
    name: str, kind: str, directory: Path | None = None, author: str | None = None
) -> tuple[Path, list[PurePosixPath]]:
    """Write a distribution; its folder, and the files in it.

    Args:
        name: Of the distribution.
        kind: One of `KINDS`.
        directory: The folder, by default the name in the current one.
        author: For the licence and the metadata.

    Raises:
        InputError: The name cannot be used, or the folder holds something or cannot be written.
    """
    distribution = _checked_name(name)
    plugin = _checked_plugin_name(distribution, kind)
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
            f"{folder} exists and is {'not empty' if folder.is_dir() else 'no folder'}; nothing was written. "
            "Name another folder with --directory, or remove it first."
        )
    files = dict(sorted(_rendered(kind, words)))
    try:
        for path, text in files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror or error}. Name another --directory.") from error
    return folder, list(files)


def _rendered(kind: str, words: dict[str, str]) -> Iterator[tuple[PurePosixPath, str]]:
    """Every file of the distribution: its path in the folder and its text."""
    templates = importlib.resources.files(__package__) / "templates"
    for part in ("common", kind):
        for path, template in _files(templates / part):
            text = Template(template.read_text(encoding="utf-8")).substitute(words)
            yield _renamed(path, words["package"]), text


def _files(folder: Traversable, inside: PurePosixPath | None = None) -> Iterator[tuple[PurePosixPath, Traversable]]:
    for one in folder.iterdir():
        path = (inside or PurePosixPath()) / one.name
        if one.is_dir():
            yield from _files(one, path)
        elif one.name.endswith(".template"):
            yield path, one


def _renamed(template: PurePosixPath, package: str) -> PurePosixPath:
    """Where the file of a template goes."""
    parts = [package if part == "package" else part for part in template.parts[:-1]]
    return PurePosixPath(*parts, template.name.removesuffix(".template").replace("PACKAGE", package))


def _checked_name(name: str) -> str:
    """`name` as package indexes write it (PEP 503)."""
    if not NAME.fullmatch(name) or len(name) > LONGEST:
        raise InputError(
            f"{name!r} is no name for a distribution: letters, digits, '-', '_' and '.' are allowed, a letter or digit "
            f"first and last, {LONGEST} characters at most, as in low-latency."
        )
    distribution = re.sub(r"[-_.]+", "-", name).lower()
    package = distribution.replace("-", "_")
    if not package.isidentifier() or keyword.iskeyword(package):
        raise InputError(f"{name!r} gives the package {package}, which Python cannot import. Begin with a letter.")
    if package in sys.stdlib_module_names or package in ("sj_ann2snn", "spikingjelly", "torch"):
        raise InputError(
            f"{name!r} gives the package {package}, which would hide the one of that name. Use another name, such as "
            f"{PREFIX}{distribution.removeprefix('sj-ann2snn')}."
        )
    return distribution


def _checked_plugin_name(distribution: str, kind: str) -> str:
    """What the plugin is called in a user's code: the name without ``sj-ann2snn-``."""
    import sj_ann2snn

    name = distribution.removeprefix(PREFIX)
    taken = [one for one in load_plugins().classes[KINDS[kind][1]] if one.name.lower() == name]
    if taken:
        raise InputError(
            f"There is a {KINDS[kind][0].lower()} {name!r} already, of {taken[0].owner}. Use another name."
        )
    class_name = _class_name(name)
    hidden = [class_name + suffix for suffix in SUFFIXES if class_name + suffix in sj_ann2snn.__all__]
    if hidden or not class_name.isidentifier() or class_name.startswith("Test"):
        shown = hidden[0] if hidden else class_name
        raise InputError(
            f"{distribution!r} gives classes the name {shown}, which means something else already. Use another name."
        )
    return name


def _class_name(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in name.split("-"))


def _author(given: str | None) -> str:
    """The author's name, fit for a line of TOML."""
    name = (given or _git_user() or "the authors").strip()
    if not name.isprintable() or set('"\\') & set(name):
        raise InputError(f"--author {name!r} is not allowed: a name without quotes and backslashes, on one line.")
    return name


def _git_user() -> str:
    try:
        done = subprocess.run(["git", "config", "user.name"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    name = done.stdout.strip()
    return "" if set('"\\') & set(name) or not name.isprintable() else name


def _release() -> str:
    """Version of sj-ann2snn that is written into the requirements: this one, to the minor number."""
    return ".".join(__version__.split(".")[:2])
