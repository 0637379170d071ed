"""The base class of exporters: what writes a converted network to a format."""

from __future__ import annotations

import abc
from pathlib import Path
from typing import ClassVar

from ..errors import FormatError
from .network_description import NetworkDescription

__all__ = ["Exporter"]


class Exporter(abc.ABC):
    """Writes the description of a converted network to a file, and may read it back.

    >>> from pathlib import Path
    >>> from sj_ann2snn import Exporter
    >>> class Names(Exporter):
    ...     name = "names"
    ...     suffixes = (".txt",)
    ...     def export(self, network, path):
    ...         path.write_text("\\n".join(node.label for node in network.nodes if node.kind == "layer"))

    ``export(snn, "net.txt", format=Names())`` uses it; a plugin offers it by name through the hook `ann2snn_exporters`,
    and ``format="names"`` or the suffix of the path then finds it. Options are keyword-only parameters of the
    constructor with defaults.

    What it needs of the network stands in the description; it has no business with the modules themselves. A format of
    its own may be built from the nodes, or from ``network.as_document()`` and
    ``NetworkDescription.from_document(...)``, which are a JSON document and tensors.

    Attributes:
        suffixes: With which the names of its files end, the dot included; for ``format=None``.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = ()
    replaces: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def export(self, network: NetworkDescription, path: Path) -> None:
        """Write `network` to `path`.

        Raises:
            ExportError: The format has no form for something in the network.
            OSError: The file cannot be written; the message is made of it.
        """

    def load(self, path: Path) -> NetworkDescription:
        """The network in the file `path`, which `export` wrote. It must not run anything that the file contains.

        Raises:
            FormatError: The format can only be written, or the file is not of it.
            OSError: The file cannot be read; the message is made of it.
        """
        raise FormatError(f"the format {self.name!r} can be written but not read back")
