"""The exporter: NIR files."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from sj_ann2snn import Exporter, ExportError, NetworkDescription, OptionError, replacing, require_shape

from .document import read_document, write_document
from .readers import replay
from .targets import PLAIN, READERS, Reader, ReaderWarning
from .translation import translate

__all__ = ["Nir"]


class Nir(Exporter):
    """Writes a converted network as a NIR graph (an HDF5 file), and reads it back equal.

    >>> import torch
    >>> from sj_ann2snn_nir import Nir
    >>> Nir(target="sinabs", input_shape="1x28x28").input_shape
    (1, 28, 28)

    Weights become Affine and Conv nodes, pools sum pools with divided weights or average pools, sums edges into one
    node, scales diagonal weights. NIR's IF neuron is reset to a value; the soft reset of a converted network stands in
    the metadata of every neuron, ``reset: subtract``, and so does an initial potential. The document of sj-ann2snn is
    in the metadata of the graph; `load_network` reads it and the nodes' weights.

    Args:
        target: The reader that the file is meant for: `"sinabs"`, `"spikingjelly"`, `"spyx"`, `"snntorch"`,
            `"norse"`, `"lava"` or `"rockpool"`. The nodes are then those that it reads; a `ReaderWarning` says what it
            makes of them unless it is told. None writes what NIR's own definitions say.
        input_shape: Shape of a sample, ``(3, 32, 32)`` or ``"3x32x32"``. A network that begins with a linear layer
            needs none.

    Raises:
        OptionError: There is no such reader, or the shape is not made of positive integers.
    """

    name = "nir"
    suffixes = (".nir",)

    def __init__(self, *, target: str | None = None, input_shape: Sequence[int] | str | int | None = None) -> None:
        if target is not None and target not in READERS:
            raise OptionError(
                f"target={target!r:.300} is not known. Allowed are {', '.join(map(repr, READERS))}, None."
            )
        self.target = target
        self.input_shape = None if input_shape is None else require_shape("input_shape", input_shape)

    def export(self, network: NetworkDescription, path: Path) -> None:
        import nir

        reader = PLAIN if self.target is None else READERS[self.target]
        if reader.refuses:
            raise ExportError(
                f"{reader.release} cannot read the network: {reader.refuses}. Choose another target: "
                f"{', '.join(name for name, one in READERS.items() if not one.refuses)}."
            )
        translation = translate(network, self.input_shape, reader)
        graph = translation.graph({"sj_ann2snn": write_document(network, translation, reader)})
        whole = io.BytesIO()
        nir.write(whole, graph)
        self._warn(reader, path, translation.notes)
        with replacing(path) as file:
            file.write(whole.getbuffer())

    @staticmethod
    def _warn(reader: Reader, path: Path, notes: Sequence[str]) -> None:
        """Say what the reader makes of the file, before it is written: a warning may be an error."""
        for note in notes:
            warnings.warn(ReaderWarning(note), stacklevel=3)
        if reader.differs:
            advice = f" Set after reading: {reader.sets}." if reader.sets else ""
            told = f"{reader.release} reads {path.name} differently: {reader.differs}.{advice}"
            warnings.warn(ReaderWarning(told), stacklevel=3)

    def load(self, path: Path) -> NetworkDescription:
        return read_document(path)

    def replay(self, path: Path, x: Tensor, T: int) -> Mapping[str, Tensor]:  # noqa: N803 - as in the contract
        return replay(path, x, T, self.target)
