"""From the description of a network to the nodes and edges of a NIR graph."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor

from sj_ann2snn import ExportError, NetworkDescription, NodeDescription, NodeReference

from .targets import Reader
from .windows import Window, dense, diagonal, dilated, output_size, square

__all__ = ["Translation", "translate"]


@dataclass(frozen=True)
class Part:
    """A node of the graph, as the name of its class and the arguments of it."""

    kind: str
    arguments: Mapping[str, Any]
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Signal:
    """A value of the network: the sum of what some nodes give, times a factor.

    Attributes:
        sources: Names of these nodes.
        shape: Of a sample in the network.
        held: Of a sample in the graph; another than `shape` where a Flatten is left to the next linear layer.
        factor: Of a pool, for the next weights.
        potential: What the next neurons start from, in addition to their own.
    """

    sources: tuple[str, ...]
    shape: tuple[int, ...]
    held: tuple[int, ...]
    factor: float = 1.0
    potential: Any = None


class _NoNodeError(Exception):
    """NIR has no node for an operation; the text says why and what helps."""


class _NoTensorError(Exception):
    """An operation computes sizes rather than values."""


@dataclass(frozen=True)
class Translation:
    """What became of a network.

    Attributes:
        parts: The nodes by name, in order.
        edges: From node to node.
        labels: For each IF node, the label of the layer.
        kept: Where tensors of the network are, unchanged: node and field by their memory.
        notes: What changes in the last bit.
    """

    parts: Mapping[str, Part]
    edges: Sequence[tuple[str, str]]
    kept: Sequence[tuple[Tensor, str, str]]
    notes: Sequence[str]

    def holds(self, name: str, tensor: Tensor) -> str | None:
        """The path of the node's field that holds just this tensor."""
        for known, node, key in self.kept:
            if known is tensor:
                return f"nodes/{node}/{key}"
        return None

    def graph(self, metadata: Mapping[str, Any]) -> Any:
        """The graph of the package nir, its types checked."""
        import nir

        nodes = {
            name: getattr(nir, part.kind)(**part.arguments, metadata=dict(part.metadata))
            for name, part in self.parts.items()
        }
        return nir.NIRGraph(nodes=nodes, edges=list(self.edges), metadata=dict(metadata))


def translate(network: NetworkDescription, shape: tuple[int, ...] | None, reader: Reader) -> Translation:
    """The nodes and edges for `network`.

    Args:
        network: The network.
        shape: Of a sample; None if it follows from the first layer.
        reader: What the nodes must be, so that the reader takes them.

    Raises:
        ExportError: Something in the network has no node; the message names all of it.
    """
    return _Translator(network, shape, reader).run()


class _Translator:
    def __init__(self, network: NetworkDescription, shape: tuple[int, ...] | None, reader: Reader) -> None:
        self.network, self.shape, self.reader = network, shape, reader
        self.parts: dict[str, Part] = {}
        self.edges: list[tuple[str, str]] = []
        self.kept: list[tuple[Tensor, str, str]] = []
        self.notes: list[str] = []
        self.signals: dict[str, Signal | None] = {}
        self.users: dict[str, int] = {}

    def run(self) -> Translation:
        problems: list[tuple[str, str]] = []
        for node in self.network.nodes:
            try:
                self.signals[node.name] = self._translate(node)
            except _NoNodeError as error:
                problems.append((node.label or node.operation or node.kind, str(error)))
                self.signals[node.name] = self._assumed(node)
            except _NoTensorError:
                pass
        if not self.reader.branches:
            for source, number in self.users.items():
                if number > 1 and source in self.parts:
                    problems.append((self._label(source), f"{self.reader.release} reads a chain of layers only, and "
                                     f"{number} layers read this one. Choose another target"))  # fmt: skip
        if problems:
            listed = "".join(f"\n  {where}: {why}." for where, why in problems)
            raise ExportError(f"NIR cannot hold the network:{listed}", tuple(problems))
        return Translation(self.parts, self.edges, self.kept, self.notes)

    def _assumed(self, node: NodeDescription) -> Signal | None:
        """What a node without translation would give, so that the layers behind it are examined; None if unknown."""
        try:
            value = replace(self._input_of(node), potential=None)
        except (_NoNodeError, _NoTensorError):
            return None
        if node.operation == "IFNode" or "." in node.operation:
            return value  # neurons, also of plugins
        if node.kind != "layer" or "kernel_size" not in node.options or len(value.held) < 2:
            return None
        try:
            window = _windows({"dilation": 1, **node.options}, len(value.held) - 1)
        except _NoNodeError:
            return None
        sizes = tuple(output_size(window, place, size) for place, size in enumerate(value.held[1:]))
        shape = (node.options.get("out_channels", value.held[0]), *sizes)
        return Signal(value.sources, shape, shape)

    def _label(self, name: str) -> str:
        return str(self.parts[name].metadata.get("label", name))

    # Nodes ---------------------------------------------------------------------------------------

    def _translate(self, node: NodeDescription) -> Signal | None:
        if node.kind == "input":
            return self._input(node)
        if node.kind == "constant":
            return None
        if node.kind == "output":
            return self._output(node)
        kind = node.operation.rpartition(".")[2] if node.kind == "function" else node.operation
        translate = (LAYERS if node.kind == "layer" else CALLS).get(kind)
        if translate is None:
            raise _NoNodeError(_why_not(node))
        return translate(self, node)

    def _input(self, node: NodeDescription) -> Signal:
        if "input" in self.parts:
            raise _NoNodeError("the readers take graphs with one input, and this is a second one")
        shape = self.shape or self._shape_of_first_layer()
        if shape is None:
            raise _NoNodeError(
                "NIR nodes have sizes, which follow from the size of a sample: give input_shape=(3, 32, 32), say"
            )
        self.parts["input"] = Part("Input", {"input_type": {"input": np.array(shape)}})
        return Signal(("input",), shape, shape)

    def _shape_of_first_layer(self) -> tuple[int, ...] | None:
        """The shape of a sample, if a linear layer is the first to read it."""
        for node in self.network.nodes:
            if node.kind not in ("input", "constant"):
                size = node.options.get("in_features") if node.operation == "Linear" else None
                return None if size is None else (size,)
        return None

    def _output(self, node: NodeDescription) -> Signal | None:
        (returned,) = node.args
        if not isinstance(returned, NodeReference):
            raise _NoNodeError("the readers take graphs with one output, and this network returns several values")
        if self.signals.get(returned.name) is None:
            return None  # its own problem is known
        value = self._plain(self._signal(returned), "output")
        if len(value.sources) > 1:  # nirtorch returns the inputs of an output without a sum
            value = self._scaled(value, "output_sum", np.float32(1))
        self._put("output", "Output", {"output_type": {"output": np.array(value.held)}}, value)
        return value

    def _signal(self, reference: Any) -> Signal:
        if not isinstance(reference, NodeReference):
            raise _NoNodeError(f"it reads {reference!r:.100}, but values that do not depend on the input have no node")
        if reference.name not in self.signals:
            raise _NoTensorError  # a size
        found = self.signals[reference.name]
        if found is None:
            constant = any(node.name == reference.name and node.kind == "constant" for node in self.network.nodes)
            if constant:
                raise _NoNodeError("it reads a constant tensor, which has no node; make it the bias of a layer")
            raise _NoTensorError  # behind something that is reported already
        return found

    def _input_of(self, node: NodeDescription) -> Signal:
        return self._signal(node.args[0] if node.args else node.kwargs.get("input"))

    def _name(self, label: str) -> str:
        """A name that is an identifier, as the readers need it, and not in use."""
        plain = re.sub(r"\W", "_", label, flags=re.ASCII)
        plain = plain if plain[:1].isalpha() else f"layer_{plain}"
        name, number = plain, 2
        while name in self.parts or name in ("input", "output", "state"):
            name, number = f"{plain}_{number}", number + 1
        return name

    def _put(self, name: str, kind: str, arguments: Mapping[str, Any], value: Signal, **metadata: Any) -> None:
        self.parts[name] = Part(kind, arguments, metadata)
        for source in value.sources:
            self.users[source] = self.users.get(source, 0) + 1
            self.edges.append((source, name))

    # Weights -------------------------------------------------------------------------------------

    def linear(self, node: NodeDescription) -> Signal:
        value = self._waiting(self._input_of(node))
        weight, bias = node.tensors["weight"], node.tensors.get("bias")
        if len(value.shape) != 1:
            raise _NoNodeError(
                f"NIR's Affine takes vectors, and this linear layer reads samples of the shape {value.shape}"
            )
        self._require(weight.shape[1], value.shape[0], value)
        name = self._name(node.label)
        arrays = self._arrays(name, value.factor, weight, bias)
        outputs = len(weight)
        if len(value.held) == 1:
            self._put(name, "Affine", arrays, value, label=node.label)
            return Signal((name,), (outputs,), (outputs,))
        channels, height, width = value.held
        if height != width:
            raise _NoNodeError(
                f"{self.reader.release} does not read Flatten as NIR means it; the layer becomes a convolution, "
                f"which NIR 1.0.8 knows for square maps only, and this map is {height} x {width}"
            )
        arrays["weight"] = arrays["weight"].reshape(outputs, channels, height, width)
        self._forget(name, "weight")
        self._convolution(name, arrays, Window((height, width)), value, label=node.label)
        return Signal((name,), (outputs,), (outputs, 1, 1))

    def convolution(self, node: NodeDescription) -> Signal:
        value = self._waiting(self._input_of(node))
        options, dims = node.options, 1 if node.operation == "Conv1d" else 2
        if dims == 1 and not self.reader.conv1d:
            raise _NoNodeError(f"{self.reader.release} does not read Conv1d. Choose another target")
        if options["padding_mode"] != "zeros":
            raise _NoNodeError(
                f"NIR pads with zeros, and this convolution with padding_mode={options['padding_mode']!r}"
            )
        if len(value.held) != dims + 1:
            raise _NoNodeError(f"it reads samples of the shape {value.shape}, without channels")
        self._require(options["in_channels"], value.held[0], value)
        window = _windows(options, dims)
        name = self._name(node.label)
        arrays = self._arrays(name, value.factor, node.tensors["weight"], node.tensors.get("bias"))
        if options["groups"] > 1:
            # NIR 1.0.8 takes the channels of the input from the weights; readers refuse groups or ignore them.
            arrays["weight"] = dense(arrays["weight"], options["groups"])
            self._forget(name, "weight")
        if not self.reader.dilation and max(window.dilation) > 1:
            arrays["weight"], window = dilated(arrays["weight"], window)
            self._forget(name, "weight")
        if dims == 2 and len(set(window.kernel)) > 1:
            made = square(arrays["weight"], window)
            if made is None:
                raise _NoNodeError(
                    f"NIR 1.0.8 computes the size of the output of square kernels only, and {window.kernel} cannot be "
                    "made square with zeros on both sides. Pad the kernel in the ANN"
                )
            arrays["weight"], window = made
            self._forget(name, "weight")
        return self._convolution(name, arrays, window, value, label=node.label)

    @staticmethod
    def _require(wanted: int, given: int, value: Signal) -> None:
        if wanted != given:
            raise _NoNodeError(
                f"it reads {wanted} channels, and samples have the shape {value.shape} here. Is input_shape that of "
                "a sample?"
            )

    def _convolution(self, name: str, arrays: dict[str, Any], window: Window, value: Signal, **metadata: Any) -> Signal:
        sizes = value.held[1:]
        after = _sizes_behind(window, sizes)
        one = len(sizes) == 1
        self._put(
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

    def _arrays(self, name: str, factor: float, weight: Tensor, bias: Tensor | None) -> dict[str, Any]:
        """Weights times a factor, and a bias: readers lack layers without one."""
        arrays = {"weight": _array(weight), "bias": np.zeros(len(weight), _array(weight).dtype)}
        if factor == 1:
            self.kept.append((weight, name, "weight"))
        else:
            arrays["weight"] = (arrays["weight"] * np.float64(factor)).astype(arrays["weight"].dtype)
        if bias is not None:
            arrays["bias"] = _array(bias)
            self.kept.append((bias, name, "bias"))
        return arrays

    def _forget(self, name: str, key: str) -> None:
        self.kept = [one for one in self.kept if one[1:] != (name, key)]

    def _scaled(self, value: Signal, label: str, scale: Any, bias: Any = None) -> Signal:
        """`value` times a number, or a number per channel: diagonal weights, whose products are the same."""
        channels = value.held[0]
        scales = np.broadcast_to(np.asarray(scale).reshape(-1), (channels,)) * np.float64(value.factor)
        dtype = np.asarray(scale).dtype if np.asarray(scale).dtype.kind == "f" else np.dtype("float32")
        offsets = np.zeros(channels, dtype) if bias is None else np.asarray(bias)
        weight = diagonal(scales.astype(dtype), len(value.held) - 1)
        name = self._name(label)
        plain = replace(value, factor=1.0)
        if len(value.held) == 1:
            self._put(name, "Affine", {"weight": weight, "bias": offsets}, plain, label=label)
        else:
            ones = (1,) * (len(value.held) - 1)
            self._convolution(name, {"weight": weight, "bias": offsets}, Window(ones), plain, label=label)
        return Signal((name,), value.shape, value.held)

    def _plain(self, value: Signal, label: str) -> Signal:
        """`value` without a factor."""
        value = self._waiting(value)
        return value if value.factor == 1 else self._scaled(value, f"{label}_scale", np.float32(1))

    def _waiting(self, value: Signal) -> Signal:
        """`value`, which must not carry a potential."""
        if value.potential is not None:
            raise _NoNodeError("NIR has no initial potential, and no neuron follows that could start from it")
        return value

    # Neurons -------------------------------------------------------------------------------------

    def neuron(self, node: NodeDescription) -> Signal:
        given = self._input_of(node)
        value = self._plain(replace(given, potential=None), node.label)
        start: Any = np.float32(node.options.get("initial_potential", 0.0))
        if given.potential is not None:
            start = np.broadcast_to(start + given.potential, given.shape).reshape(value.held).astype(np.float32)
        if np.any(start != 0) and not self.reader.potentials:
            able = "target='sinabs', 'spikingjelly', 'spyx' or 'snntorch', whose neurons can be given it after reading"
            raise _NoNodeError(
                "NIR has no initial potential, and this neuron starts from one. Convert with initial_potential=0 and "
                f"without a correction that sets potentials, or give {able}"
            )
        reset = node.options.get("v_reset")
        threshold = np.full(value.held, node.options["v_threshold"], np.float32)
        name = self._name(node.label)
        self._put(
            name,
            "IF",
            {
                "r": np.full(value.held, 1 / self.reader.dt, np.float32),
                "v_threshold": threshold,
                "v_reset": np.full(value.held, 0.0 if reset is None else reset, np.float32),
            },
            value,
            label=node.label,
            reset="subtract" if reset is None else "value",
            **({"initial_potential": start} if np.any(start != 0) else {}),
        )
        return Signal((name,), value.shape, value.held)

    def potential(self, node: NodeDescription) -> Signal:
        value = self._input_of(node)
        given = np.broadcast_to(_array(node.tensors["potential"]), value.shape)
        return replace(value, potential=given if value.potential is None else value.potential + given)

    # Scales, sums, shapes ------------------------------------------------------------------------

    def scaler(self, node: NodeDescription) -> Signal:
        return self._per_channel(node, _array(node.tensors["scale"]))

    def affine(self, node: NodeDescription) -> Signal:
        if node.options.get("axis", 1) != 1:
            raise _NoNodeError("it scales along a dimension that holds no channels, for which there is no node")
        return self._per_channel(node, _array(node.tensors["weight"]), _array(node.tensors["bias"]))

    def _per_channel(self, node: NodeDescription, scale: Any, bias: Any = None) -> Signal:
        value = self._waiting(self._input_of(node))
        sizes = [size for size in np.shape(scale) if size != 1]
        ahead = np.ndim(scale) - len(value.shape)
        if np.size(scale) > 1 and bias is None and (ahead != 0 or np.shape(scale)[0] != np.size(scale)):
            raise _NoNodeError(
                f"it scales by a tensor of the shape {np.shape(scale)}; a node takes one scale per channel"
            )
        if sizes and value.shape[0] != sizes[0]:
            raise _NoNodeError(f"it scales {sizes[0]} channels of samples of the shape {value.shape}")
        return self._scaled(value, node.label, scale, bias)

    def negative(self, node: NodeDescription) -> Signal:
        return self._scaled(self._waiting(self._input_of(node)), node.label or node.name, np.float32(-1))

    def total(self, node: NodeDescription) -> Signal:
        one, other = self._operands(node)
        return self._sum(node, one, other)

    def difference(self, node: NodeDescription) -> Signal:
        one, other = self._operands(node)
        return self._sum(node, one, self._scaled(other, f"{node.name}_negative", np.float32(-1)))

    def _operands(self, node: NodeDescription) -> tuple[Signal, Signal]:
        if len(node.args) != 2 or node.kwargs:
            raise _NoNodeError("it is called with more than two operands")
        one, other = (self._plain(self._signal(given), node.name) for given in node.args)
        return one, other

    def _sum(self, node: NodeDescription, one: Signal, other: Signal) -> Signal:
        if one.held != other.held:
            raise _NoNodeError(f"it adds samples of the shapes {one.shape} and {other.shape}; edges need equal ones")
        if set(one.sources) & set(other.sources):
            other = self._scaled(other, f"{node.name}_copy", np.float32(1))
        if not self.reader.branches:
            raise _NoNodeError(f"{self.reader.release} reads a chain of layers only. Choose another target")
        return Signal((*one.sources, *other.sources), one.shape, one.held)

    def product(self, node: NodeDescription) -> Signal:
        numbers = [given for given in node.args if isinstance(given, (int, float))]
        values = [given for given in node.args if isinstance(given, NodeReference)]
        if len(numbers) != 1 or len(values) != 1:
            raise _NoNodeError("NIR has no product of two values")
        return self._scaled(self._waiting(self._signal(values[0])), node.label or node.name, np.float32(numbers[0]))

    def flatten(self, node: NodeDescription) -> Signal:
        value = self._input_of(node)
        named = {**dict(zip(("start_dim", "end_dim"), node.args[1:], strict=False)), **node.kwargs, **node.options}
        start, end = named.get("start_dim", 1 if node.kind == "layer" else 0), named.get("end_dim", -1)
        if start != 1 or end not in (-1, len(value.shape)):
            raise _NoNodeError(f"it flattens dimensions {start} to {end}; all but the samples are supported, 1 to -1")
        return self._flat(node, value)

    def view(self, node: NodeDescription) -> Signal:
        value = self._input_of(node)
        if len(node.args) != 3 or node.args[2] not in (-1, math.prod(value.shape)):
            raise _NoNodeError("it changes the shape of a sample to something else than a vector")
        return self._flat(node, value)

    def _flat(self, node: NodeDescription, value: Signal) -> Signal:
        size = math.prod(value.shape)
        if len(value.held) == 1:
            return value
        if not self.reader.flattens and len(value.held) == 3:
            return replace(value, shape=(size,), potential=None if value.potential is None else value.potential.ravel())
        name = self._name(node.label or node.name)
        arguments = {"input_type": {"input": np.array(value.held)}, "start_dim": 0, "end_dim": -1}
        self._put(name, "Flatten", arguments, value)
        potential = None if value.potential is None else value.potential.ravel()
        return Signal((name,), (size,), (size,), value.factor, potential)

    def same(self, node: NodeDescription) -> Signal:
        return self._input_of(node)

    def size(self, node: NodeDescription) -> Signal:
        raise _NoTensorError

    # Pools ---------------------------------------------------------------------------------------

    def pool(self, node: NodeDescription) -> Signal:
        names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
        named = {**dict(zip(names, node.args[1:], strict=False)), **node.kwargs, **node.options}
        kernel = _pair(named["kernel_size"])
        window = Window(kernel, _pair(named.get("stride") or kernel), _pair(named.get("padding", 0)))
        value = self._input_of(node)
        if len(value.held) != 3:
            raise _NoNodeError(f"it pools samples of the shape {value.shape}; the node takes channels x height x width")
        if any(window.padding) and not named.get("count_include_pad", True):
            raise _NoNodeError(
                "it divides by the number of pixels without the padding, which differs from place to place"
            )
        if named.get("ceil_mode") and any(
            (size - k) % s for size, k, s in zip(value.held[1:], kernel, window.stride, strict=True)
        ):
            raise _NoNodeError("with ceil_mode, its last windows are cut, for which NIR has no node")
        return self._pool(node, window, named.get("divisor_override") or math.prod(kernel), value)

    def adaptive_pool(self, node: NodeDescription) -> Signal:
        value = self._input_of(node)
        given = node.options.get("output_size", node.args[1] if len(node.args) > 1 else node.kwargs.get("output_size"))
        sizes = [size if one is None else one for one, size in zip(_pair(given), value.held[1:], strict=True)]
        if len(value.held) != 3 or any(size % one for size, one in zip(value.held[1:], sizes, strict=True)):
            raise _NoNodeError(f"its windows have several sizes for samples of the shape {value.shape}")
        kernel = _pair([size // one for size, one in zip(value.held[1:], sizes, strict=True)])
        return self._pool(node, Window(kernel, kernel), math.prod(kernel), value)

    def mean(self, node: NodeDescription) -> Signal:
        value = self._input_of(node)
        named = {**dict(zip(("dim", "keepdim"), node.args[1:], strict=False)), **node.kwargs}
        dims = named.get("dim")
        over = sorted(d % 4 for d in dims) if isinstance(dims, (tuple, list)) else []
        if len(value.held) != 3 or over != [2, 3]:
            raise _NoNodeError("it takes a mean over other dimensions than height and width")
        kernel = _pair(value.held[1:])
        pooled = self._pool(node, Window(kernel, kernel), math.prod(kernel), value)
        return pooled if named.get("keepdim") else self._flat(node, pooled)

    def _pool(self, node: NodeDescription, window: Window, divisor: int, value: Signal) -> Signal:
        value = self._waiting(value)
        label = node.label or node.name
        if math.prod(window.kernel) == 1 and max(window.stride) == 1:
            return replace(value, factor=value.factor / divisor)
        factor = value.factor / divisor
        average = self.reader.pools == "average"
        if math.log2(divisor) % 1 and not average:
            self.notes.append(
                f"{label}: the next weights are divided by {divisor}, which is no power of two, so their last bits "
                "change and spikes may move by a step."
            )
        name = self._name(label)
        if any(window.padding):  # readers ignore the padding of a pool
            ones = diagonal(np.ones(value.held[0], np.float32), 2)
            weight = np.repeat(np.repeat(ones, window.kernel[0], 2), window.kernel[1], 3)
            made = square(weight, window)
            if made is None:
                raise _NoNodeError(f"it pads windows of {window.kernel}; NIR 1.0.8 lacks pools with padding in readers")
            bias = np.zeros(value.held[0], np.float32)
            done = self._convolution(name, {"weight": made[0], "bias": bias}, made[1], value, label=label)
            return replace(done, factor=factor)
        after = _sizes_behind(window, value.held[1:])
        kernel, stride, padding = (np.array(one) for one in (window.kernel, window.stride, window.padding))
        arguments = {"kernel_size": kernel, "stride": stride, "padding": padding}
        self._put(name, "AvgPool2d" if average else "SumPool2d", arguments, value, label=label)
        shape = (value.held[0], *after)
        return Signal((name,), shape, shape, factor * (math.prod(window.kernel) if average else 1))


Translate = Callable[[_Translator, NodeDescription], Signal]

LAYERS: dict[str, Translate] = {
    "AdaptiveAvgPool2d": _Translator.adaptive_pool,
    "AvgPool2d": _Translator.pool,
    "ChannelAffine": _Translator.affine,
    "Conv1d": _Translator.convolution,
    "Conv2d": _Translator.convolution,
    "Dropout": _Translator.same,
    "Dropout1d": _Translator.same,
    "Dropout2d": _Translator.same,
    "Flatten": _Translator.flatten,
    "IFNode": _Translator.neuron,
    "Identity": _Translator.same,
    "InitialPotential": _Translator.potential,
    "Linear": _Translator.linear,
    "Scaler": _Translator.scaler,
}
"""How layers are written, by their type."""

CALLS: dict[str, Translate] = {
    "adaptive_avg_pool2d": _Translator.adaptive_pool,
    "add": _Translator.total,
    "avg_pool2d": _Translator.pool,
    "contiguous": _Translator.same,
    "flatten": _Translator.flatten,
    "getattr": _Translator.size,
    "getitem": _Translator.size,
    "mean": _Translator.mean,
    "mul": _Translator.product,
    "neg": _Translator.negative,
    "reshape": _Translator.view,
    "size": _Translator.size,
    "sub": _Translator.difference,
    "view": _Translator.view,
}
"""How functions and methods are written, by their name."""


def _why_not(node: NodeDescription) -> str:
    if node.operation in ("CumulativeMaxPool", "CumulativeMax", "MomentumMaxPool"):
        return "NIR has no max pool. Convert with maxpool='avg', or train the ANN with average pools"
    if node.kind == "layer" and "." in node.operation:
        return (
            f"NIR has no node for {node.operation}. Convert with neuron='if' and without analog layers; a plugin's "
            "layers have no node"
        )
    what = node.operation or node.kind
    return f"NIR has no node for {what}; the nodes are linear layers, convolutions, pools, sums, Flatten and IF neurons"


def _sizes_behind(window: Window, sizes: Sequence[int]) -> tuple[int, ...]:
    after = tuple(output_size(window, place, size) for place, size in enumerate(sizes))
    if min(after) < 1:
        raise _NoNodeError(
            f"its window of {window.kernel} does not fit into {tuple(sizes)}. Is input_shape that of a sample?"
        )
    return after


def _array(tensor: Tensor) -> Any:
    try:
        return tensor.detach().contiguous().numpy()
    except TypeError as error:
        raise _NoNodeError(f"it holds {tensor.dtype}, which HDF5 lacks; convert the network in float32") from error


def _windows(options: Mapping[str, Any], dims: int) -> Window:
    kernel, stride, dilation = (_sizes(options[name], dims) for name in ("kernel_size", "stride", "dilation"))
    padding = options["padding"]
    if padding == "valid":
        padding = 0
    if padding == "same":
        spans = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        if any(span % 2 for span in spans):
            raise _NoNodeError("padding='same' of an even kernel pads one side more, for which NIR has no node")
        padding = [span // 2 for span in spans]
    return Window(kernel, stride, _sizes(padding, dims), dilation)


def _sizes(given: Any, dims: int) -> tuple[int, ...]:
    return (int(given),) * dims if isinstance(given, int) else tuple(int(one) for one in given)


def _pair(given: Any) -> tuple[Any, ...]:
    return (given, given) if isinstance(given, int) or given is None else tuple(given)
