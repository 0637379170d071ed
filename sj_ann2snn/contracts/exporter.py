"""The base class of exporters, which write converted networks to a file format."""

from __future__ import annotations

import abc
from pathlib import Path
from typing import ClassVar

from ..errors import FormatError
from .network_description import NetworkDescription

__all__ = ["Exporter"]


class Exporter(abc.ABC):
    """Writes the description of a converted network to a file, and optionally reads it back.

    >>> from pathlib import Path
    >>> from sj_ann2snn import Exporter, replacing
    >>> class Names(Exporter):
    ...     name = "names"
    ...     suffixes = (".txt",)
    ...     def export(self, network, path):
    ...         with replacing(path) as file:
    ...             file.write("\\n".join(node.label for node in network.nodes if node.kind == "layer").encode())

    ``export(snn, "net.txt", format=Names())`` uses it; a plugin offers it by name through the hook `ann2snn_exporters`,
    and ``format="names"`` or the suffix of the path then finds it. Options are keyword-only parameters of the
    constructor with defaults.

    The description holds everything that an exporter needs; it never sees the modules. Build the format from the nodes,
    or from ``network.as_document()`` and ``NetworkDescription.from_document(...)``, which convert to and from a JSON
    document and tensors.

    Attributes:
        suffixes: Suffixes of its files, including the dot; used for ``format=None``.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = ()
    replaces: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def export(self, network: NetworkDescription, path: Path) -> None:
        """Write `network` to `path`, best through `sj_ann2snn.replacing`.

        Raises:
            ExportError: The format cannot represent something in the network.
            OSError: The file cannot be written; the core turns this into an `ExportError`.
        """

    def load(self, path: Path) -> NetworkDescription:
        """Read the network from `path`, which `export` wrote. This must not execute anything in the file.

        Raises:
            FormatError: The format can only be written, or the file is damaged or has another format.
            OSError: The file cannot be read; the core turns this into a `FormatError`.
        """
        raise FormatError(f"the format {self.name!r} can be written but not read back")
