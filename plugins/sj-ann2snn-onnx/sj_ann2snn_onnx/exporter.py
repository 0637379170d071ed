"""The exporter: one time step as an ONNX graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sj_ann2snn import (
    Exporter,
    ExportError,
    IntegerError,
    NetworkDescription,
    NodeDescription,
    NodeReference,
    integer_network,
    replacing,
    require_flag,
    require_shape,
)

from .drawing import Drawing
from .floating import draw_network
from .integers import draw_integers
from .running import replay
from .work import input_names, references

__all__ = ["Onnx"]

MOST_BYTES = 2**31 - 2**20
"""A file of protobuf ends at 2 GiB."""


class Onnx(Exporter):
    """Writes one time step of a converted network as an ONNX graph, the states of its layers as inputs and outputs.

    >>> import tempfile, torch
    >>> from pathlib import Path
    >>> from sj_ann2snn import Converter, check_export, export
    >>> from sj_ann2snn_onnx import Onnx
    >>> ann, x = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()), torch.rand(64, 4)
    >>> snn = Converter([x], weights="int8", progress=False)(ann)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export(snn, Path(folder) / "network.onnx", Onnx())
    ...     check_export(snn, Path(folder) / "network.onnx", x, T=100, format=Onnx()).agrees
    True

    A network converted with ``weights="int8"`` becomes a graph of integers, as above. Every other one computes in
    floating point.

    Args:
        input_shape: Shape of a sample, ``(3, 32, 32)`` or ``"3x32x32"``; for networks with several inputs, a dict of
            such shapes by the inputs' names, unless all are alike. Integer networks need none, and neither do networks
            that begin with a linear layer.
        spikes: Whether what each layer of neurons emits is among the outputs, named as the layer.

    Raises:
        OptionError: A shape is not made of positive integers, or `spikes` is not True or False.
    """

    name = "onnx"
    suffixes = (".onnx",)

    def __init__(
        self,
        *,
        input_shape: Sequence[int] | str | int | Mapping[str, Sequence[int] | str | int] | None = None,
        spikes: bool = False,
    ) -> None:
        self.spikes = require_flag("spikes", spikes)
        self.input_shape: tuple[int, ...] | dict[str, tuple[int, ...]] | None
        if isinstance(input_shape, Mapping):
            self.input_shape = {name: require_shape("input_shape", shape) for name, shape in input_shape.items()}
        else:
            self.input_shape = None if input_shape is None else require_shape("input_shape", input_shape)

    def export(self, network: NetworkDescription, path: Path) -> None:
        whole = bytes(self._model(network).SerializeToString())
        with replacing(path) as file:
            file.write(whole)

    def _model(self, network: NetworkDescription) -> Any:
        if any(node.operation in ("IntegerIF", "IntegerInput") for node in network.nodes):
            try:
                drawing = draw_integers(integer_network(network), network)
            except IntegerError as error:
                raise ExportError(str(error), error.problems) from error
            kind = "integers"
        else:
            dtype = _dtype(network)
            drawing, kind = draw_network(network, self._shapes(network), dtype), str(dtype).removeprefix("torch.")
        _require_size(drawing)
        notes = {"numbers": kind, "conversion": _call(network), "units": _units(network), **drawing.notes}
        return drawing.model(network.name, network.producer, notes, self.spikes)

    def _shapes(self, network: NetworkDescription) -> dict[str, tuple[int, ...]]:
        """The shape of a sample by the name of the input's node."""
        inputs = input_names(network)
        given = self.input_shape
        if isinstance(given, dict):
            unknown = sorted(set(given) - set(inputs.values()))
            if unknown:
                raise ExportError(
                    f"input_shape names {unknown[0]!r}, and the network's inputs are {', '.join(inputs.values())}"
                )
        shapes, missing = {}, []
        for name, label in inputs.items():
            shape = given.get(label) if isinstance(given, dict) else given
            shape = shape or _shape_by_reader(network, name)
            if shape is None:
                missing.append(label)
            else:
                shapes[name] = shape
        if missing:
            raise ExportError(
                f"the states have sizes, which follow from the size of a sample of {', '.join(missing)}: give "
                "input_shape=(3, 32, 32), say, or a dict of shapes by the inputs' names"
            )
        return shapes

    def replay(self, path: Path, x: Tensor, T: int) -> Mapping[str, Tensor]:  # noqa: N803 - as in the contract
        return replay(path, x, T)


def _shape_by_reader(network: NetworkDescription, name: str) -> tuple[int, ...] | None:
    """The shape of a sample, if a linear layer reads it."""
    readers = [node for node in network.nodes if name in references((node.args, dict(node.kwargs)))]
    sizes = [_features(node) for node in readers if node.args[:1] == (NodeReference(name),)]
    return (sizes[0],) if sizes and sizes[0] is not None else None


def _features(node: NodeDescription) -> int | None:
    return int(node.options["in_features"]) if node.operation == "Linear" else None


def _dtype(network: NetworkDescription) -> torch.dtype:
    found = [one.dtype for node in network.nodes for one in node.tensors.values() if one.is_floating_point()]
    dtype = found[0] if found else torch.float32
    if dtype not in (torch.float32, torch.float64):
        raise ExportError(
            f"the network computes in {dtype}, which ONNX Runtime has no neurons for; export it in single precision, "
            "snn.float()"
        )
    return dtype


def _call(network: NetworkDescription) -> str:
    """How the network was converted, in words."""
    if network.conversion is None:
        return ""
    return ", ".join(f"{key}={value!r:.200}" for key, value in dict(network.conversion.call).items())


def _units(network: NetworkDescription) -> dict[str, Any]:
    """What a spike of each layer of neurons is worth in the ANN's units: a number, or one for each channel."""
    sites = {} if network.conversion is None else network.conversion.sites
    return {
        label: site.unit.flatten().tolist() if site.unit.dim() else site.unit.item() for label, site in sites.items()
    }


def _require_size(drawing: Drawing) -> None:
    size = sum(one.nbytes for one in drawing.weights.values())
    if size > MOST_BYTES:
        raise ExportError(f"it has {size:,} bytes of weights, and an ONNX file ends at 2 GiB")
