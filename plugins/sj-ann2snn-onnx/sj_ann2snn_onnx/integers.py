"""From an integer network to the graph of a step in integers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sj_ann2snn import IntegerNetwork, NetworkDescription

from .drawing import Drawing
from .windows import each, padding_of
from .work import input_names, named_results

__all__ = ["draw_integers"]

INT8 = (-128, 127)
NARROW = (0, 127)
"""Inputs whose products with 8-bit weights some processors add up in 16 bits two at a time, without overflow."""

ZERO = 128
"""The zero point that makes signed numbers unsigned."""


def draw_integers(network: IntegerNetwork, description: NetworkDescription) -> Drawing:
    """The graph of a step of an integer network: weights in 8 bits, spikes as bytes, sums and potentials in 32 bits."""
    return _Integers(network, description).run()


class _Integers:
    def __init__(self, network: IntegerNetwork, description: NetworkDescription) -> None:
        self.network = network
        self.layers = {node.label: node for node in description.nodes if node.kind == "layer"}
        self.inputs = iter(input_names(description).values())
        self.drawing = Drawing(np.int32)
        self.made: list[str] = []
        self.ranges: list[tuple[int, int]] = []
        self.bytes: dict[int, str] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.outputs = iter([name for name, _ in named_results(description.nodes[-1].args[0])])

    def run(self) -> Drawing:
        scales: dict[str, Any] = {}
        one: Any
        for number, one in enumerate(self.network.operations):
            write = getattr(self, f"_{one.kind}")
            made, low, high = write(one, number)
            self.made.append(made)
            self.ranges.append((low, high))
            self.shapes[made] = tuple(one.shape)
            if one.kind == "result":
                scales[list(self.drawing.outputs)[-1]] = _compact(one.scale.reshape(one.shape)).tolist()
        self.drawing.notes.update(
            {"scales": scales, "input_dtype": "float32", "output_dtype": "int32", "spike_dtype": "uint8"}
        )
        return self.drawing

    def _number(self, value: int) -> str:
        name = f"int32_{value}"
        return name if name in self.drawing.weights else self.drawing.number(name, value)

    def _shape(self, sizes: Sequence[int]) -> str:
        name = "shape_" + "x".join(map(str, sizes))
        return name if name in self.drawing.weights else self.drawing.integers(name, [-1, *sizes])

    def _reshaped(self, value: str, sizes: Sequence[int], name: str) -> str:
        if self.shapes.get(value) == tuple(sizes):
            return value
        made = self.drawing.put("Reshape", [value, self._shape(sizes)], name)
        self.shapes[made] = tuple(sizes)
        return made

    def _cast(self, value: str, to: Any, name: str) -> str:
        from onnx import helper

        return self.drawing.put("Cast", [value], name, to=int(helper.np_dtype_to_tensor_dtype(np.dtype(to))))

    def _source(self, one: Any, place: int = 0) -> tuple[str, int, int]:
        """An operand in 32 bits ``[N, ...]``, and its range."""
        number = one.sources[place]
        return (self.made[number], *self.ranges[number])

    def _input(self, one: Any, number: int) -> tuple[str, int, int]:
        drawing, name = self.drawing, self.drawing.name(next(self.inputs))
        drawing.inputs[name] = one.shape
        scale = drawing.weight(f"{one.name}.scale", np.float32(one.scale))
        ends = [
            drawing.weight(f"{one.name}.{key}", np.float32(end)) for key, end in (("low", one.low), ("high", one.high))
        ]
        units = drawing.put("Div", [name, scale], f"{one.name}.units")
        whole = drawing.put("Round", [units], f"{one.name}.whole")
        clipped = drawing.put("Clip", [whole, *ends], f"{one.name}.clipped")
        return self._cast(clipped, np.int32, one.name), one.low, one.high

    def _neuron(self, one: Any, number: int) -> tuple[str, int, int]:
        drawing, label = self.drawing, one.name
        current, _, _ = self._source(one)
        current = self._reshaped(current, one.shape, f"{label}.current")
        potential, threshold = (_compact(value.reshape(one.shape)) for value in (one.potential, one.threshold))
        v, before = drawing.started(f"{label}.v", (1, *one.shape), potential)
        charged = drawing.put("Add", [before, current], f"{label}.charged")
        limit = 1 << (one.bits - 1)
        ends = [self._number(-limit), self._number(limit - 1)]
        kept = drawing.put("Clip", [charged, *ends], f"{label}.kept")
        threshold = drawing.number(f"{label}.threshold", threshold)
        fires = drawing.put("GreaterOrEqual", [kept, threshold], f"{label}.fires")
        spikes = self._cast(fires, np.uint8, label)
        self.bytes[number] = spikes
        self.shapes[spikes] = tuple(one.shape)
        drawing.spikes[label] = (spikes, (1, *one.shape))
        whole = self._cast(fires, np.int32, f"{label}.spikes")
        lost = drawing.put("Mul", [whole, threshold], f"{label}.lost")
        drawing.next(v, drawing.put("Sub", [kept, lost], f"{label}.left"))
        return whole, 0, 1

    def _sum(self, one: Any, number: int) -> tuple[str, int, int]:
        total, low, high = "", 0, 0
        for place, sign in enumerate(one.signs):
            value, least, most = self._source(one, place)
            value = self._reshaped(value, one.shape, f"{one.name}.term")
            low, high = low + min(sign * least, sign * most), high + max(sign * least, sign * most)
            if not total:
                total = value if sign > 0 else self.drawing.put("Neg", [value], f"{one.name}.negative")
            else:
                total = self.drawing.put("Add" if sign > 0 else "Sub", [total, value], one.name)
        return total, low, high

    def _product(self, one: Any, number: int) -> tuple[str, int, int]:
        value, low, high = self._source(one)
        value = self._reshaped(value, one.shape, f"{one.name}.in_shape")
        factor, bias = (_compact(part.reshape(one.shape)) for part in (one.factor, one.bias))
        made = self.drawing.put(
            "Mul", [value, self.drawing.number(f"{one.name}.factor", factor)], f"{one.name}.product"
        )
        if np.any(bias):
            made = self.drawing.put("Add", [made, self.drawing.number(f"{one.name}.bias", bias)], one.name)
        ends = np.concatenate([one.factor * end + one.bias for end in (low, high)])
        return made, int(ends.min()), int(ends.max())

    def _gather(self, one: Any, number: int) -> tuple[str, int, int]:
        flat = []
        for place, source in enumerate(one.sources):
            size = self.network.operations[source].size
            flat.append(self._reshaped(self._source(one, place)[0], [size], f"{one.name}.flat"))
        low, high = (end([self.ranges[source][side] for source in one.sources]) for side, end in ((0, min), (1, max)))
        total = sum(self.network.operations[source].size for source in one.sources)
        if np.array_equal(one.index, np.arange(total)) and len(flat) == 1:
            return self._reshaped(flat[0], one.shape, one.name), low, high
        joined = self.drawing.put("Concat", flat, f"{one.name}.joined", axis=1) if len(flat) > 1 else flat[0]
        if (one.index < 0).any():
            low, high, joined = min(low, 0), max(high, 0), self._padded(joined, 2, 0, one.name)
        index = self.drawing.integers(f"{one.name}.index", np.where(one.index < 0, total, one.index).ravel())
        taken = self.drawing.put("Gather", [joined, index], f"{one.name}.taken", axis=1)
        return self._reshaped(taken, one.shape, one.name), low, high

    def _padded(self, value: str, rank: int, outside: int, name: str) -> str:
        """With one more element behind those of the last dimension."""
        pads = self.drawing.integers(f"{name}.pads", [0] * (2 * rank - 1) + [1])
        return self.drawing.put("Pad", [value, pads, self._number(outside)], f"{name}.padded")

    def _windows(self, value: str, channels: int, positions: int, windows: Any, outside: int, name: str) -> str:
        """``[N, channels, results, window]``."""
        value = self._reshaped(value, [channels, positions], f"{name}.rows")
        if (windows < 0).any():
            value = self._padded(value, 3, outside, name)
        index = self.drawing.integers(f"{name}.windows", np.where(windows < 0, positions, windows))
        return self.drawing.put("Gather", [value, index], f"{name}.windowed", axis=2)

    def _pool(self, one: Any, number: int) -> tuple[str, int, int]:
        value, low, high = self._source(one)
        size = self.network.operations[one.sources[0]].size
        positions = size // one.channels
        if one.reduce == "sum":
            seen = self._windows(value, one.channels, positions, one.windows, 0, one.name)
            axes = self.drawing.integers(f"{one.name}.axes", [3])
            made = self.drawing.put("ReduceSum", [seen, axes], f"{one.name}.sum", keepdims=0)
            times = one.windows.shape[1]
            low, high = min(low * times, 0), max(high * times, 0)
            return self._reshaped(made, one.shape, one.name), low, high
        if one.reduce == "largest":
            return self._reshaped(self._largest(value, one, positions), one.shape, one.name), low, high
        cumulative = self.drawing.state(f"{one.name}.cumulative", (1, one.channels, positions))
        emitted = self.drawing.state(f"{one.name}.emitted", (1, one.channels, len(one.windows)))
        rows = self._reshaped(value, [one.channels, positions], f"{one.name}.arriving")
        total = self.drawing.put("Add", [cumulative, rows], f"{one.name}.total")
        self.drawing.next(cumulative, total)
        now = self._largest(total, one, positions)
        self.drawing.next(emitted, now)
        grown = self.drawing.put("Sub", [now, emitted], f"{one.name}.growth")
        return self._reshaped(grown, one.shape, one.name), low, high

    def _largest(self, value: str, one: Any, positions: int) -> str:
        outside = int(np.iinfo(np.int32).min)  # never the largest, whatever the sign of the others
        seen = self._windows(value, one.channels, positions, one.windows, outside, one.name)
        return self.drawing.put("ReduceMax", [seen], f"{one.name}.largest", axes=[3], keepdims=0)

    def _weighted(self, one: Any, number: int) -> tuple[str, int, int]:
        value, low, high = self._source(one)
        low, high = min(low, 0), max(high, 0)
        total, planes = "", self._planes(value, one, low, high)
        for factor, weight in _bytes_of(one.weight):
            for share, operand, zero, ends in planes:
                part = self._products(one, weight, operand, zero, ends)
                if factor * share != 1:
                    part = self.drawing.put("Mul", [part, self._number(factor * share)], f"{one.name}.part")
                total = part if not total else self.drawing.put("Add", [total, part], f"{one.name}.parts")
        scale = (1 << one.shift).astype(np.int64)
        if (scale != 1).any():
            total = self.drawing.put(
                "Mul", [total, self._by_channel(one, _compact(scale), "shift")], f"{one.name}.shifted"
            )
        if one.bias.any():
            total = self.drawing.put("Add", [total, self._by_channel(one, one.bias, "bias")], one.name)
        rows = one.weight.reshape(len(one.weight), -1)
        above, below = np.maximum(rows, 0).sum(1), np.minimum(rows, 0).sum(1)
        least = ((above * low + below * high) << one.shift) + one.bias
        most = ((above * high + below * low) << one.shift) + one.bias
        return total, int(least.min()), int(most.max())

    def _by_channel(self, one: Any, value: Any, key: str) -> str:
        """A number for each channel of the result ``[N, channels, ...]``."""
        value = np.asarray(value)
        shaped = value.reshape(-1, *(1 for _ in one.shape[1:])) if value.ndim else value
        return self.drawing.number(f"{one.name}.{key}", shaped)

    def _planes(self, value: str, one: Any, low: int, high: int) -> list[tuple[int, str, int, tuple[int, int]]]:
        """An operand as bytes: for each, its weight, its name, its zero point and its range."""
        if one.sources[0] in self.bytes:
            return [(1, self.bytes[one.sources[0]], 0, (0, 1))]
        if low >= 0 and high <= 255:
            return [(1, self._cast(value, np.uint8, f"{one.name}.bytes"), 0, (low, high))]
        if low >= INT8[0] and high <= INT8[1]:
            return [(1, self._unsigned(value, one.name), ZERO, (0, 255))]
        # Wider numbers: their bytes, of which only the last one has a sign.
        base, planes, share = self._number(256), [], 1
        while low < INT8[0] or high > INT8[1]:
            rest = self.drawing.put("Mod", [value, base], f"{one.name}.low")
            planes.append((share, self._cast(rest, np.uint8, f"{one.name}.low_byte"), 0, (0, 255)))
            above = self.drawing.put("Sub", [value, rest], f"{one.name}.above")
            value = self.drawing.put("Div", [above, base], f"{one.name}.high")
            low, high, share = low // 256, high // 256, share * 256
        return [*planes, (share, self._unsigned(value, one.name), ZERO, (0, 255))]

    def _unsigned(self, value: str, name: str) -> str:
        above = self.drawing.put("Add", [value, self._number(ZERO)], f"{name}.above_zero")
        return self._cast(above, np.uint8, f"{name}.signed_byte")

    def _products(self, one: Any, weight: Any, operand: str, zero: int, ends: tuple[int, int]) -> str:
        """Sums of products of 8 bits, as ``[N, channels, ...]`` in 32 bits."""
        narrow = ends[0] >= NARROW[0] and ends[1] <= NARROW[1] and zero == 0
        shifted = 0 if narrow else ZERO
        held = (weight + shifted).astype(np.int8 if narrow else np.uint8)
        label, drawing = one.name, self.drawing
        points = [self._byte(zero), self._byte(shifted)] if zero or shifted else []
        source = self.network.operations[one.sources[0]]
        geometry = self._geometry(one, source)
        if geometry is not None:
            kernel = geometry["kernel_shape"]
            image = self._reshaped(operand, geometry.pop("image"), f"{label}.image")
            stored = drawing.weight(f"{label}.weight", held.reshape(*held.shape[:2], *kernel))
            reads = [image, stored, *points]
            return drawing.put("ConvInteger", reads, f"{label}.products", group=one.groups, **geometry)
        channels = one.weight.shape[1] * one.groups
        positions = source.size // channels
        results, width = one.windows.shape
        if one.groups == 1 and results == 1 and width == 1 and positions == 1:  # a linear layer
            stored = drawing.weight(f"{label}.weight", held[:, :, 0].T)
            flat = self._reshaped(operand, [channels], f"{label}.flat")
            sums = drawing.put("MatMulInteger", [flat, stored, *points], f"{label}.products")
            return self._reshaped(sums, one.shape, f"{label}.sums")
        seen = self._byte_windows(operand, channels, positions, one.windows, zero, label)
        split = self._reshaped(seen, [one.groups, channels // one.groups, results, width], f"{label}.groups")
        turned = drawing.put("Transpose", [split], f"{label}.turned", perm=[0, 1, 3, 2, 4])
        rows = self._reshaped(turned, [one.groups, results, channels // one.groups * width], f"{label}.columns")
        grouped = held.reshape(one.groups, -1, channels // one.groups * width)
        stored = drawing.weight(f"{label}.weight", grouped.transpose(0, 2, 1))
        sums = drawing.put("MatMulInteger", [rows, stored, *points], f"{label}.products")
        back = drawing.put("Transpose", [sums], f"{label}.back", perm=[0, 1, 3, 2])
        return self._reshaped(back, one.shape, f"{label}.sums")

    def _byte_windows(self, value: str, channels: int, positions: int, windows: Any, zero: int, name: str) -> str:
        value = self._reshaped(value, [channels, positions], f"{name}.rows")
        if (windows < 0).any():
            pads = self.drawing.integers(f"{name}.pads", [0, 0, 0, 0, 0, 1])
            value = self.drawing.put("Pad", [value, pads, self._byte(zero)], f"{name}.padded")
        index = self.drawing.integers(f"{name}.windows", np.where(windows < 0, positions, windows))
        return self.drawing.put("Gather", [value, index], f"{name}.windowed", axis=2)

    def _byte(self, value: int) -> str:
        name = f"byte_{value}"
        return name if name in self.drawing.weights else self.drawing.weight(name, np.uint8(value))

    def _geometry(self, one: Any, source: Any) -> dict[str, Any] | None:
        """The attributes of a convolution with these windows; None for a transposed one, and for linear layers."""
        layer = self.layers.get(one.name)
        if layer is None or layer.operation not in ("Conv1d", "Conv2d", "Conv3d"):
            return None
        options, spatial = layer.options, int(layer.operation[4])
        kernel, stride, dilation = (each(options[key], spatial) for key in ("kernel_size", "stride", "dilation"))
        before, after = padding_of(options, spatial)
        return {
            "image": source.shape,
            "kernel_shape": kernel,
            "strides": stride,
            "dilations": dilation,
            "pads": [*before, *after],
        }

    def _result(self, one: Any, number: int) -> tuple[str, int, int]:
        value, low, high = self._source(one)
        value = self._reshaped(value, one.shape, f"{one.name}.integers")
        self.drawing.output(next(self.outputs), value, (1, *one.shape))
        return value, low, high


def _bytes_of(weight: Any) -> list[tuple[int, Any]]:
    """Weights as sums of 8-bit numbers with a sign, each times a factor.

    >>> [(factor, part.tolist()) for factor, part in _bytes_of(np.array([[[300]], [[-1]]]))]
    [(1, [[[44]], [[-1]]]), (256, [[[1]], [[0]]])]
    """
    found, factor = [], 1
    while weight.min() < INT8[0] or weight.max() > INT8[1]:
        low = (weight + ZERO) % 256 - ZERO
        found.append((factor, low))
        weight, factor = (weight - low) // 256, factor * 256
    return [*found, (factor, weight)]


def _compact(value: Any) -> Any:
    """An array that broadcasts to `value`, without what is repeated.

    >>> _compact(np.array([[1, 1], [2, 2]])).tolist(), _compact(np.array([3, 3])).tolist()
    ([[1], [2]], 3)
    """
    value = np.asarray(value)
    if value.size and (value == value.flat[0]).all():
        return np.asarray(value.flat[0])
    for axis in range(value.ndim):
        first = value.take([0], axis=axis)
        if (value == first).all():
            value = first
    return value
