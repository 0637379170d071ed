"""The graph while it is drawn: nodes, edges, and the weights that they hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from sj_ann2snn import NetworkDescription, NodeDescription, NodeReference

from .signals import NoNodeError, NoTensorError, Part, Signal, array
from .targets import Reader
from .windows import Window, diagonal, sizes_behind

__all__ = ["Drawing"]


class Drawing:
    """What has become of a network so far.

    Args:
        network: The network.
        reader: What the nodes must be, so that the reader takes them.

    Attributes:
        parts: The nodes by name, in order.
        edges: From node to node.
        kept: Tensors of the network that a node holds unchanged, with the node and the field.
        notes: What changes in the last bit.
        signals: The values of the network by the name of their node; None for those that have no node.
        users: How many nodes read a node.
    """

    def __init__(self, network: NetworkDescription, reader: Reader) -> None:
        self.network, self.reader = network, reader
        self.parts: dict[str, Part] = {}
        self.edges: list[tuple[str, str]] = []
        self.kept: list[tuple[Tensor, str, str]] = []
        self.notes: list[str] = []
        self.signals: dict[str, Signal | None] = {}
        self.users: dict[str, int] = {}

    def signal(self, reference: Any) -> Signal:
        if not isinstance(reference, NodeReference):
            raise NoNodeError(f"it reads {reference!r:.100}, but values that do not depend on the input have no node")
        if reference.name not in self.signals:
            raise NoTensorError  # a size
        found = self.signals[reference.name]
        if found is None:
            constant = any(node.name == reference.name and node.kind == "constant" for node in self.network.nodes)
            if constant:
                raise NoNodeError("it reads a constant tensor, which has no node; make it the bias of a layer")
            raise NoTensorError  # behind something that is reported already
        return found

    def input_of(self, node: NodeDescription) -> Signal:
        return self.signal(node.args[0] if node.args else node.kwargs.get("input"))

    def name(self, label: str) -> str:
        """A name that is an identifier, as the readers need it, and not in use."""
        plain = re.sub(r"\W", "_", label, flags=re.ASCII)
        plain = plain if plain[:1].isalpha() else f"layer_{plain}"
        name, number = plain, 2
        while name in self.parts or name in ("input", "output", "state"):
            name, number = f"{plain}_{number}", number + 1
        return name

    def put(self, name: str, kind: str, arguments: Mapping[str, Any], value: Signal, **metadata: Any) -> None:
        self.parts[name] = Part(kind, arguments, metadata)
        for source in value.sources:
            self.users[source] = self.users.get(source, 0) + 1
            self.edges.append((source, name))

    @staticmethod
    def require_channels(wanted: int, given: int, value: Signal) -> None:
        if wanted != given:
            raise NoNodeError(
                f"it reads {wanted} channels, and samples have the shape {value.shape} here. Is input_shape that of "
                "a sample?"
            )

    def convolve(self, name: str, arrays: dict[str, Any], window: Window, value: Signal, **metadata: Any) -> Signal:
        sizes = value.held[1:]
        after = sizes_behind(window, sizes)
        one = len(sizes) == 1
        self.put(
            name,
            f"Conv{len(sizes)}d",
            {
                "input_shape": sizes[0] if one else sizes,
                "weight": arrays["weight"],
                "stride": window.stride[0] if one else window.stride,
                "padding": window.padding[0] if one else window.padding,
                "dilation": window.dilation[0] if one else window.dilation,
                "groups": 1,
                "bias": arrays["bias"],
            },
            value,
            **metadata,
        )
        shape = (len(arrays["weight"]), *after)
        return Signal((name,), shape, shape)

    def arrays(self, name: str, factor: float, weight: Tensor, bias: Tensor | None) -> dict[str, Any]:
        """Weights times a factor, and a bias: readers lack layers without one."""
        arrays = {"weight": array(weight), "bias": np.zeros(len(weight), array(weight).dtype)}
        if factor == 1:
            self.kept.append((weight, name, "weight"))
        else:
            arrays["weight"] = (arrays["weight"] * np.float64(factor)).astype(arrays["weight"].dtype)
        if bias is not None:
            arrays["bias"] = array(bias)
            self.kept.append((bias, name, "bias"))
        return arrays

    def forget(self, name: str, key: str) -> None:
        self.kept = [one for one in self.kept if one[1:] != (name, key)]

    def scaled(self, value: Signal, label: str, scale: Any, bias: Any = None) -> Signal:
        """`value` times a number, or a number per channel: diagonal weights, whose products are the same."""
        channels = value.held[0]
        scales = np.broadcast_to(np.asarray(scale).reshape(-1), (channels,)) * np.float64(value.factor)
        dtype = np.asarray(scale).dtype if np.asarray(scale).dtype.kind == "f" else np.dtype("float32")
        offsets = np.zeros(channels, dtype) if bias is None else np.asarray(bias)
        weight = diagonal(scales.astype(dtype), len(value.held) - 1)
        name = self.name(label)
        plain = replace(value, factor=1.0)
        if len(value.held) == 1:
            self.put(name, "Affine", {"weight": weight, "bias": offsets}, plain, label=label)
        else:
            ones = (1,) * (len(value.held) - 1)
            self.convolve(name, {"weight": weight, "bias": offsets}, Window(ones), plain, label=label)
        return Signal((name,), value.shape, value.held)

    def plain(self, value: Signal, label: str) -> Signal:
        """`value` without a factor."""
        value = self.waiting(value)
        return value if value.factor == 1 else self.scaled(value, f"{label}_scale", np.float32(1))

    def waiting(self, value: Signal) -> Signal:
        """`value`, which must not carry a potential."""
        if value.potential is not None:
            raise NoNodeError(
                "NIR has no initial potential, and no neuron follows that could start from it. Put the potential right "
                "in front of a neuron, or convert without a correction that sets potentials"
            )
        return value
