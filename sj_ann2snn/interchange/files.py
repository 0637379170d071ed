"""Writes converted networks to files and reads them back, through exporters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import fx, nn

from .._version import __version__
from ..contracts.exporter import Exporter
from ..contracts.network_description import NetworkDescription
from ..errors import ExportError, FormatError, OptionError, PluginError
from ..hooks.choice import choose
from ..hooks.conflicts import resolve
from ..hooks.discovery import load_plugins, using
from ..hooks.kinds import EXPORTERS
from ..hooks.options import construct
from ..hooks.registry import Registered, Registry, culprit
from ..support.blame import Culprit, blame
from ..support.makers import note_makers
from ..support.neutral import neutrally
from ..support.paths import AnyPath, checked_path
from ..support.untouched import Untouched
from ..support.wording import did_you_mean, listed, shown
from . import build, describe

__all__ = ["export", "find_exporter", "load_network"]


@neutrally
def export(
    snn: nn.Module,
    path: AnyPath,
    format: str | Exporter | None = None,
    *,
    plugins: Sequence[Any] = (),
    **options: Any,
) -> None:
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
        format: `"archive"` (a zip of JSON and .npy files), `"torch"` (a file for `torch.load`), `"c"` (C99, for
            networks of integers; only written), the name of any plugin's format, or an instance of `Exporter`; by
            default the format of the path's suffix.
        plugins: Plugin objects to use in addition to the installed ones, for their formats and layers.
        options: Options for a format given by name.

    Raises:
        ExportError: The network holds parts that a file cannot (a plugin's neuron that does not support it, your own
            layer), all listed in the message; or the file cannot be written.
        OptionError: The format or an option is unknown, or `path` is no path.
        ConflictError: Several plugins claim the format.
    """
    target = checked_path(path, ExportError, "written")
    registry = load_plugins() if plugins == () else load_plugins(plugins)
    exporter, who = _choose(registry, target, format, options)
    description = describe(snn, registry.exported_layers(), _producer(), registry.maker_of)
    held = [value for node in description.nodes for value in node.tensors.values()]
    if description.conversion is not None:
        held += description.conversion.tensors
    before = Untouched(held)
    try:
        # What the exporter builds from the description may hold layers of the caller's plugins.
        with using(registry), blame(who, f"asked to write {target}", exporter, "export"):
            try:
                exporter.export(description, target)
            except OSError as error:
                raise ExportError(f"{target} cannot be written: {error.strerror or error}.") from error
        if before.changed():
            raise PluginError(
                f"{who}, asked to write {target}, writes to the tensors of the description, in "
                f"{type(exporter).__name__}.export; the file may hold other values than the network. Work on copies "
                f"(tensor.clone()). {who.advice}"
            )
    except ExportError as error:
        if str(target) in str(error):
            raise
        raise ExportError(f"{target} cannot be written: {error}", error.problems) from error


@neutrally
def load_network(
    path: AnyPath,
    format: str | Exporter | None = None,
    *,
    plugins: Sequence[Any] = (),
    **options: Any,
) -> fx.GraphModule:
    """Read a network written by `export`: on the CPU, reset, in eval mode and in step mode "s".

    Nothing in the file is executed: it only names layers of `torch.nn`, of this package and of installed plugins, and
    functions of torch.

    Args:
        path: The file.
        format: As for `export`.
        plugins: As for `export`.
        options: Options for a format given by name.

    Raises:
        FormatError: The file cannot be read, has another format or a newer version, or names layers of plugins that
            are not installed.
        OptionError: The format or an option is unknown, or `path` is no path.
        ConflictError: Several plugins claim the format.
    """
    source = checked_path(path, FormatError, "read")
    registry = load_plugins() if plugins == () else load_plugins(plugins)
    exporter, who = _choose(registry, source, format, options)
    try:
        with blame(who, f"asked to read {source}", exporter, "load"):
            try:
                description: Any = exporter.load(source)
            except OSError as error:
                raise FormatError(error.strerror or str(error)) from error
        if not isinstance(description, NetworkDescription):
            raise PluginError(
                f"{who} returned {shown(description)} from load(); it must return a NetworkDescription. {who.advice}"
            )
        snn = build(description, registry.exported_layers())
    except FormatError as error:
        raise FormatError(f"{source} cannot be read: {error}") from error
    made = ((name, registry.maker_of(type(module))) for name, module in snn.named_modules() if name)
    note_makers(snn, {name: who for name, who in made if who is not None})
    return snn


def find_exporter(path: Path, given: object, options: dict[str, Any]) -> Exporter:
    """The exporter that `given` means; for None, the one for the suffix of `path`.

    Raises:
        OptionError: There is no such exporter, or it has no such option.
        ConflictError: Several exporters claim the name or the suffix.
    """
    return _choose(load_plugins(), path, given, options)[0]


def _choose(registry: Registry, path: Path, given: object, options: dict[str, Any]) -> tuple[Exporter, Culprit]:
    """The exporter, and its name in messages."""
    if isinstance(given, Exporter):
        if options:
            raise OptionError(
                f"format={shown(given.name)} is an instance with its own options; {listed(sorted(options))} would "
                "have no effect. Set the options when you make the instance."
            )
        return given, culprit(EXPORTERS, given.name)
    found = _format_of(path, registry) if given is None else choose(registry, EXPORTERS, given).found
    who = culprit(EXPORTERS, found.name, found.owner)
    return construct(found.cls, options, who), who


def _format_of(path: Path, registry: Registry) -> Registered:
    """The format for the suffix of `path`."""
    known = registry.registered(EXPORTERS)
    candidates = [one for one in known if any(path.name.lower().endswith(end) for end in one.cls.suffixes)]
    if not candidates:
        formats = listed(f"{shown(one.name)} ({', '.join(one.cls.suffixes) or 'no suffix'})" for one in known)
        hint = did_you_mean(path.suffix.lower(), [end for one in known for end in one.cls.suffixes])
        raise OptionError(
            f"The suffix of {shown(path.name)} belongs to no format. {hint}{' ' if hint else ''}Known "
            f"formats: {formats}. Use one of these suffixes, or name the format, format='archive'."
        )
    return resolve(candidates, (), f"The suffix of {shown(path.name)}", "Name the format with format=...")


def _producer() -> str:
    return f"sj-ann2snn {__version__}"
