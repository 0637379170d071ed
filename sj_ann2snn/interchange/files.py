"""Writes converted networks to files and reads them back, through exporters."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import fx, nn

from .._version import __version__
from ..contracts.exporter import Exporter
from ..contracts.network_description import NetworkDescription
from ..errors import ExportError, FormatError, OptionError, PluginError
from ..hooks.choice import choose
from ..hooks.conflicts import resolve
from ..hooks.discovery import load_plugins
from ..hooks.kinds import EXPORTERS
from ..hooks.options import construct
from ..hooks.registry import Registered, Registry
from ..support.blame import blame
from ..support.neutral import neutrally
from . import build, describe

__all__ = ["export", "find_exporter", "load_network"]

AnyPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]


@neutrally
def export(snn: nn.Module, path: AnyPath, format: str | Exporter | None = None, **options: Any) -> None:
    """Write a converted network to a file.

    >>> import tempfile, torch
    >>> from pathlib import Path
    >>> from sj_ann2snn import Converter, export, load_network, simulate
    >>> ann, x = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()), torch.rand(64, 4)
    >>> snn = Converter([x], mode="max", progress=False)(ann)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export(snn, Path(folder) / "network.zip")
    ...     loaded = load_network(Path(folder) / "network.zip")
    >>> torch.equal(simulate(loaded, x, T=20), simulate(snn, x, T=20))
    True

    Args:
        snn: A network made by `Converter`, on any device and in any state. The file holds its state after a reset,
            without hooks.
        path: The file to write. An existing file is replaced once the new one is complete, and keeps its permissions; a
            symbolic link stays; a device or pipe is written to.
        format: `"archive"` (a zip of JSON and .npy files), `"torch"` (a file for `torch.load`), the name of any
            plugin's format, or an instance of `Exporter`; by default the format of the path's suffix.
        options: Options for a format given by name.

    Raises:
        ExportError: The network holds parts that a file cannot (a plugin's neuron that does not support it, your own
            layer), all listed in the message; or the file cannot be written.
        OptionError: The format or an option is unknown, or `path` is no path.
        ConflictError: Several plugins claim the format.
    """
    target = _path(path, ExportError, "written")
    exporter = find_exporter(target, format, options)
    description = describe(snn, load_plugins().exported_layers(), _producer())
    try:
        with blame(f"Format {exporter.name!r}, asked to write {target},"):
            try:
                exporter.export(description, target)
            except OSError as error:
                raise ExportError(f"{target} cannot be written: {error.strerror or error}.") from error
    except ExportError as error:
        if str(target) in str(error):
            raise
        raise ExportError(f"{target} cannot be written: {error}", error.problems) from error


@neutrally
def load_network(path: AnyPath, format: str | Exporter | None = None, **options: Any) -> fx.GraphModule:
    """Read a network written by `export`: on the CPU, reset, in eval mode and in step mode "s".

    Nothing in the file is executed: it only names layers of `torch.nn`, of this package and of installed plugins, and
    functions of torch.

    Args:
        path: The file.
        format: As for `export`.
        options: Options for a format given by name.

    Raises:
        FormatError: The file cannot be read, has another format or a newer version, or names layers of plugins that
            are not installed.
        OptionError: The format or an option is unknown, or `path` is no path.
        ConflictError: Several plugins claim the format.
    """
    source = _path(path, FormatError, "read")
    exporter = find_exporter(source, format, options)
    try:
        with blame(f"Format {exporter.name!r}, asked to read {source},"):
            try:
                description: Any = exporter.load(source)
            except OSError as error:
                raise FormatError(error.strerror or str(error)) from error
        if not isinstance(description, NetworkDescription):
            raise PluginError(
                f"Format {exporter.name!r} returned {description!r} from load(); it must return a NetworkDescription."
            )
        return build(description, load_plugins().exported_layers())
    except FormatError as error:
        raise FormatError(f"{source} cannot be read: {error}") from error


def _path(given: object, error: type[ExportError | FormatError], done: str) -> Path:
    """`given` as a path.

    Raises:
        OptionError: It is of a type that is no path.
        ExportError, FormatError: The `error`: no file can have that name.
    """
    try:
        path = os.fsdecode(given)  # type: ignore[arg-type]
    except TypeError:
        raise OptionError(
            f"path={given!r} is not allowed: give the path of a file as text, bytes or a pathlib.Path."
        ) from None
    try:
        allowed = b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        allowed = False
    if not allowed:
        raise error(f"{path!r} cannot be {done}: no file can have this name.")
    return Path(path)


def find_exporter(path: Path, given: object, options: dict[str, Any]) -> Exporter:
    """The exporter that `given` means; for None, the one for the suffix of `path`.

    Raises:
        OptionError: There is no such exporter, or it has no such option.
        ConflictError: Several exporters claim the name or the suffix.
    """
    if isinstance(given, Exporter):
        if options:
            raise OptionError(
                f"format={given.name!r} is an instance with its own options; {', '.join(sorted(options))} would have "
                "no effect. Set the options when you make the instance."
            )
        return given
    registry = load_plugins()
    found = _format_of(path, registry) if given is None else choose(registry, EXPORTERS, given).found
    exporter: Exporter = construct(found.cls, options, f"format {found.name!r}")
    return exporter


def _format_of(path: Path, registry: Registry) -> Registered:
    """The format for the suffix of `path`."""
    known = registry.registered(EXPORTERS)
    candidates = [one for one in known if any(path.name.lower().endswith(end) for end in one.cls.suffixes)]
    if not candidates:
        listed = ", ".join(f"{one.name!r} ({', '.join(one.cls.suffixes) or 'no suffix'})" for one in known)
        raise OptionError(
            f"The suffix of {path.name!r} belongs to no format. Known formats: {listed}. "
            "Use one of these suffixes, or name the format, format='archive'."
        )
    return resolve(candidates, (), f"The suffix of {path.name!r}", "Name the format with format=...")


def _producer() -> str:
    return f"sj-ann2snn {__version__}"
