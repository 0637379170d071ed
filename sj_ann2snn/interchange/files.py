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
from ..hooks.discovery import load_plugins
from ..hooks.options import construct
from ..hooks.registry import resolve
from ..support.blame import blame
from . import build, describe

__all__ = ["export", "find_exporter", "load_network"]


def export(snn: nn.Module, path: str | os.PathLike[str], format: str | Exporter | None = None, **options: Any) -> None:
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
        snn: What `Converter` returned, on any device and in any state; it is written as it is after a reset. Hooks are
            not.
        path: The file, which is overwritten.
        format: `"archive"` (a zip of JSON and .npy files), `"torch"` (a file for `torch.load`), the name of any
            plugin's format, or an instance of `Exporter`; by default the one to which the suffix of the path belongs.
        options: Of a format that is given by name.

    Raises:
        ExportError: The network holds something that a file cannot (a plugin's neuron that does not declare how, a
            layer of your own): the message lists all of it. Or the file cannot be written.
        OptionError: The format or an option is unknown.
        ConflictError: Several plugins claim the format.
    """
    target = Path(path)
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


def load_network(path: str | os.PathLike[str], format: str | Exporter | None = None, **options: Any) -> fx.GraphModule:
    """The network that `export` wrote: on the CPU, reset, in eval mode and in step mode "s".

    Nothing in the file is executed: it names layers of `torch.nn`, of this package and of installed plugins, and
    functions of torch.

    Args:
        path: The file.
        format: As for `export`.
        options: Of a format that is given by name.

    Raises:
        FormatError: The file cannot be read, is of another format or of a newer version, or names layers of plugins
            that are not installed.
        OptionError: The format or an option is unknown.
        ConflictError: Several plugins claim the format.
    """
    source = Path(path)
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


def find_exporter(path: Path, given: object, options: dict[str, Any]) -> Exporter:
    """The exporter that `given` means, or for None the suffix of `path`.

    Raises:
        OptionError: There is none, or it has no such option.
        ConflictError: Several claim the name or the suffix.
    """
    if isinstance(given, Exporter):
        if options:
            raise OptionError(
                f"format={given.name!r} is an instance and has its options; {', '.join(sorted(options))} would have "
                "no effect. Give them to the instance."
            )
        return given
    registry = load_plugins()
    if isinstance(given, str):
        found = registry.find_exporter(given)
    else:
        known = ", ".join(f"{one.name!r} ({', '.join(one.cls.suffixes) or 'no suffix'})" for one in registry.exporters)
        if given is not None:
            raise OptionError(
                f"format={given!r} is not allowed: give the name of a format ({known}) or an instance of Exporter."
            )
        candidates = [
            one for one in registry.exporters if any(path.name.lower().endswith(end) for end in one.cls.suffixes)
        ]
        if not candidates:
            raise OptionError(
                f"The suffix of {path.name!r} belongs to no format. Known formats: {known}. "
                "Use such a suffix, or name the format, format='archive'."
            )
        found = resolve(candidates, (), f"The suffix of {path.name!r}", "Name the format with format=...")
    exporter: Exporter = construct(found.cls, options, f"format {found.name!r}")
    return exporter


def _producer() -> str:
    return f"sj-ann2snn {__version__}"
