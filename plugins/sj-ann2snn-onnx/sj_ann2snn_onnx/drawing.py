"""The graph of a step while it is drawn: nodes, weights, states, and what the network returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

__all__ = ["IR", "OPSET", "Drawing", "NoFormError", "State"]

OPSET = 17
"""Of ONNX's own operators; there are no others in the files."""

IR = 8
"""The file's own version, that of ONNX 1.12, whose operators these are."""


class NoFormError(Exception):
    """An operation has no form in ONNX; the text says why and what helps."""


@dataclass(frozen=True)
class State:
    """What a layer remembers from step to step.

    Attributes:
        input: The input of the graph that holds it before the step.
        output: The output of the graph that holds it after the step.
        shape: Its shape; the first number is how many rows each sample has, which is 1 but for windows.
        dtype: Of its elements, as NumPy calls it.
        initial: What each element is before the first step.
    """

    input: str
    output: str
    shape: tuple[int, ...]
    dtype: str
    initial: float


@dataclass
class Drawing:
    """What has become of a network so far.

    Attributes:
        dtype: In which the network computes.
        nodes: Operations of ONNX, in order.
        weights: Arrays by name.
        inputs: Shape of a sample by name.
        outputs: Name in the graph and shape, by the name of the output.
        spikes: By the label of the neurons, the name of their spikes in the graph.
        states: In order.
        names: All names in use.
        notes: For the metadata.
    """

    dtype: Any
    nodes: list[Any] = field(default_factory=list)
    weights: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, tuple[int, ...]] = field(default_factory=dict)
    outputs: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    spikes: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    states: list[State] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    notes: dict[str, Any] = field(default_factory=dict)

    def name(self, wanted: str) -> str:
        """A name that is not in use."""
        name, number = wanted, 2
        while name in self.names:
            name, number = f"{wanted}_{number}", number + 1
        self.names.add(name)
        return name

    def put(self, kind: str, reads: Sequence[str], name: str, **attributes: Any) -> str:
        """Add an operation; returns the name of its result."""
        return self.put_several(kind, reads, (name,), **attributes)[0]

    def put_several(self, kind: str, reads: Sequence[str], names: Sequence[str], **attributes: Any) -> list[str]:
        from onnx import helper

        made = [self.name(name) for name in names]
        self.nodes.append(helper.make_node(kind, list(reads), made, name=made[0], **attributes))
        return made

    def weight(self, name: str, value: Any) -> str:
        """Store an array, in its own precision; returns its name."""
        made = self.name(name)
        self.weights[made] = np.ascontiguousarray(value).reshape(np.shape(value))
        return made

    def number(self, name: str, value: Any) -> str:
        """Store an array in the network's precision."""
        return self.weight(name, np.asarray(value, self.dtype))

    def integers(self, name: str, value: Any) -> str:
        """Store an array of sizes or positions."""
        return self.weight(name, np.asarray(value, np.int64))

    def state(self, name: str, shape: Sequence[int], initial: float = 0.0, dtype: Any = None) -> str:
        """Declare what a layer remembers; returns the name of its value before the step. `next` sets that after it."""
        before = self.name(name)
        after = self.name(f"{name}.next")
        kind = np.dtype(self.dtype if dtype is None else dtype)
        self.states.append(State(before, after, tuple(shape), kind.name, initial))
        return before

    def started(self, name: str, shape: Sequence[int], initial: Any) -> tuple[str, str]:
        """Declare what a layer remembers, and starts from an array that broadcasts to a sample.

        Returns:
            The state, for `next`; and its value before the step. If the array's numbers differ, they are added in the
            first step, which another state tells.
        """
        value = np.asarray(initial)
        if value.size and (value == value.flat[0]).all():
            before = self.state(name, shape, float(value.flat[0]))
            return before, before
        before = self.state(name, shape)
        label = name.rpartition(".")[0] or name
        waiting = self.state(f"{label}.waiting", (shape[0], *(1 for _ in shape[1:])), 1.0)
        share = self.put("Mul", [waiting, self.number(f"{name}.initial", value)], f"{name}.share")
        self.next(waiting, self.put("Sub", [waiting, waiting], f"{label}.done"))
        return before, self.put("Add", [before, share], f"{name}.before")

    def next(self, before: str, value: str) -> None:
        """Set what a layer remembers after the step."""
        from onnx import helper

        (state,) = [one for one in self.states if one.input == before]
        self.nodes.append(helper.make_node("Identity", [value], [state.output], name=state.output))

    def output(self, name: str, value: str, shape: Sequence[int]) -> None:
        from onnx import helper

        made = self.name(name)
        self.nodes.append(helper.make_node("Identity", [value], [made], name=made))
        self.outputs[made] = (made, tuple(shape))

    def model(self, name: str, producer: str, notes: Mapping[str, Any], spikes: bool) -> Any:
        """The model; its metadata say how to start and to run it."""
        import json

        import onnx
        from onnx import helper, numpy_helper

        def value(name: str, shape: Sequence[int], dtype: Any) -> Any:
            rows = "N" if shape[:1] in ((), (1,)) else f"{shape[0]}*N"
            kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
            return helper.make_tensor_value_info(name, kind, [rows, *shape[1:]])

        out_dtype = notes.get("output_dtype", np.dtype(self.dtype).name)
        spike_dtype = notes.get("spike_dtype", np.dtype(self.dtype).name)
        reads = [value(one, (1, *shape), notes.get("input_dtype", self.dtype)) for one, shape in self.inputs.items()]
        reads += [value(one.input, one.shape, one.dtype) for one in self.states]
        gives = [value(one, shape, out_dtype) for one, shape in self.outputs.values()]
        gives += [value(one.output, one.shape, one.dtype) for one in self.states]
        if spikes:
            gives += [value(one, shape, spike_dtype) for one, shape in self.spikes.values()]
        weights = [numpy_helper.from_array(array, key) for key, array in self.weights.items()]
        graph = helper.make_graph(self.nodes, name, reads, gives, weights)
        made = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR, producer_name=producer
        )
        document = {
            **notes,
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "states": [asdict(one) for one in self.states],
            "spikes": {label: one for label, (one, _) in self.spikes.items()},
        }
        helper.set_model_props(made, {"sj_ann2snn": json.dumps(document)})
        onnx.checker.check_model(made, full_check=True)
        return made
