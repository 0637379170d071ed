"""The base class of exporters, which write converted networks to a file format."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from ..errors import ExportError, FormatError
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

    A format that depends on the size of the inputs, which the description does not hold, has an option `input_shape`, a
    tuple of numbers without the samples. ``sj-ann2snn export`` sets it to the shape of a sample of the data.

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

    def replay(self, path: Path, x: Tensor, T: int) -> Mapping[str, Tensor]:  # noqa: N803 - as in simulate
        """Run a file that `export` wrote in another program, for `check_export` and ``sj-ann2snn export --check``.

        Optional. Nothing of sj-ann2snn takes part in the computation, or the check proves nothing. The core compares
        the spikes with the network's own.

        Args:
            path: The file.
            x: The inputs ``[N, ...]``, the same at every step.
            T: Number of time steps.

        Returns:
            What the neurons of each layer emit at every step, ``[T, N, ...]``, by the label that their node has in the
            description; ``...`` may have another shape with the neurons in the same order. Under ``"output"`` the
            network's output at every step, if the other program shows it.

        Raises:
            ExportError: The format has no check, or the other program is missing or cannot run the file.
            OSError: The file cannot be read; the core turns this into an `ExportError`.
        """
        raise ExportError(f"the format {self.name!r} has no check: no other program that runs its files is known to it")
