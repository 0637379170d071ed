"""Neurons of plugins: what their step computes, read off torch.export's trace of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from sj_ann2snn import InPlaceNeuron, NodeDescription

from .drawing import NoFormError
from .work import Work, array, label_of

__all__ = ["neuron"]

SAMPLES = 2

PLAIN = {
    "abs": "Abs",
    "ceil": "Ceil",
    "exp": "Exp",
    "floor": "Floor",
    "logical_not": "Not",
    "neg": "Neg",
    "reciprocal": "Reciprocal",
    "relu": "Relu",
    "round": "Round",
    "sign": "Sign",
    "sqrt": "Sqrt",
}
"""Operations on one tensor."""

ARITHMETIC = {"add": "Add", "div": "Div", "maximum": "Max", "minimum": "Min", "mul": "Mul", "sub": "Sub"}
"""Operations on two operands of the result's dtype."""

COMPARISONS = {"eq": "Equal", "ge": "GreaterOrEqual", "gt": "Greater", "le": "LessOrEqual", "lt": "Less"}

LOGICAL = {"logical_and": "And", "logical_or": "Or"}

SAME = frozenset({"_to_copy", "alias", "clone", "detach", "detach_", "lift_fresh_copy"})

FILLED = {"empty_like": 0.0, "full_like": None, "ones_like": 1.0, "zeros_like": 0.0}
"""Tensors of one number, by where that comes from."""


class _Step(nn.Module):
    """A step of a neuron as a function of its memories and the current."""

    def __init__(self, module: InPlaceNeuron) -> None:
        super().__init__()
        self.module = module

    def forward(self, states: Mapping[str, Tensor], x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        for key, value in states.items():
            setattr(self.module, key, value.clone())
        out = torch.empty_like(x)
        self.module.step(x.clone(), out)
        after = {key: getattr(self.module, key) for key in states}
        self.module.reset()
        return out, after


def neuron(work: Work, node: NodeDescription, module: nn.Module) -> str:
    """A neuron that is an `InPlaceNeuron` and remembers tensors only.

    Raises:
        NoFormError: It is something else, or computes something without a form.
    """
    if not isinstance(module, InPlaceNeuron):
        raise NoFormError(
            f"{node.operation} is a layer of a plugin, which has no form in ONNX. Convert without that plugin; of "
            "plugins, neurons that remember tensors alone have a form"
        )
    shape = work.shape(node.name)
    x = torch.zeros(SAMPLES * shape[0], *shape[1:], dtype=work.recording.few[node.name].dtype)
    module.reset()
    module.start(x)
    first = dict(module.named_memories())
    module.reset()
    odd = [f"{key} = {value!r:.60}" for key, value in first.items() if not isinstance(value, Tensor)]
    if odd:
        raise NoFormError(
            f"the neuron {node.operation} remembers {', '.join(odd)}, and a state in ONNX is a tensor. Convert with "
            "neuron='if'"
        )
    try:
        with torch.no_grad():
            program = torch.export.export(_Step(module), (first, x)).run_decompositions()
    except Exception as error:  # what a trace meets in a plugin's code
        reason = next(iter(str(error).splitlines()), "no reason given")
        raise NoFormError(
            f"torch.export cannot trace a step of the neuron {node.operation} ({type(error).__name__}: "
            f"{reason[:200]}). Convert with neuron='if'"
        ) from error
    return _Translator(work, node, first, shape).run(program)


class _Translator:
    """Walks through the trace of a step."""

    def __init__(self, work: Work, node: NodeDescription, first: Mapping[str, Tensor], shape: tuple[int, ...]) -> None:
        self.work, self.node, self.first, self.shape = work, node, first, shape
        self.label, self.drawing = label_of(node), work.drawing
        self.names: dict[str, str] = {}
        self.numbers: set[str] = set()

    def run(self, program: Any) -> str:
        states, before = [], []
        for key, value in self.first.items():
            state, held = self.drawing.started(f"{self.label}.{key}", self.shape, array(value, key)[::SAMPLES])
            states.append(state)
            before.append(held)
        current = self.work.input_of(self.node)
        given = dict(zip(program.graph_signature.user_inputs, [*before, current], strict=True))
        constants = {**program.state_dict, **program.constants}
        signature = program.graph_signature
        places = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        for one in program.graph.nodes:
            if one.op == "placeholder":
                self.names[one.name] = given.get(one.name) or self._constant(constants[places[one.name]], one)
            elif one.op == "call_function":
                self.names[one.name] = self._operation(one)
        spikes, *after = (self.names[name] for name in program.graph_signature.user_outputs)
        for state, name in zip(states, after, strict=True):
            self.drawing.next(state, self._whole(name, current))
        return self.drawing.put("Identity", [self._whole(spikes, current)], self.label)

    def _constant(self, value: Tensor, one: fx.Node) -> str:
        return self.drawing.weight(f"{self.label}.{one.name}", array(value, one.name))

    def _whole(self, value: str, like: str) -> str:
        """A tensor as large as a sample: one of a single number is repeated."""
        if value not in self.numbers:
            return value
        shape = self.drawing.put("Shape", [like], f"{self.label}.shape")
        return self.drawing.put("Expand", [value, shape], f"{self.label}.whole")

    def _operation(self, one: fx.Node) -> str:
        target: Any = one.target
        kind = target.overloadpacket.__name__ if isinstance(target, torch._ops.OpOverload) else str(target)
        name, dtype = f"{self.label}.{one.name}", getattr(one.meta["val"], "dtype", torch.float32)
        args: list[Any] = list(one.args)
        if kind in SAME:
            return self._cast(args[0], dtype)
        if kind == "copy":
            return self._cast(args[1], dtype)
        if kind in FILLED:
            number = args[1] if FILLED[kind] is None else FILLED[kind]
            made = self.drawing.weight(name, np.asarray(number, _numpy(dtype)))
            self.numbers.add(made)
            return made
        if kind in PLAIN and len(args) == 1:
            return self.drawing.put(PLAIN[kind], [self._cast(args[0], dtype)], name)
        if kind in ARITHMETIC and "rounding_mode" not in one.kwargs:
            first, second = (self._cast(value, dtype) for value in args)
            alpha = one.kwargs.get("alpha", 1)
            if alpha != 1:
                second = self.drawing.put("Mul", [second, self._cast(alpha, dtype)], f"{name}.product")
            return self.drawing.put(ARITHMETIC[kind], [first, second], name)
        if kind in COMPARISONS:
            common = next(value.meta["val"].dtype for value in args if isinstance(value, fx.Node))
            return self.drawing.put(COMPARISONS[kind], [self._cast(value, common) for value in args], name)
        if kind in LOGICAL:
            return self.drawing.put(LOGICAL[kind], [self._cast(value, torch.bool) for value in args], name)
        if kind == "where" and len(args) == 3:
            chosen = [self._cast(args[0], torch.bool), *(self._cast(value, dtype) for value in args[1:])]
            return self.drawing.put("Where", chosen, name)
        if kind in ("clamp", "clamp_min", "clamp_max"):
            return self._clamped(kind, one, name, dtype)
        raise NoFormError(
            f"a step of the neuron {self.node.operation} computes {kind}, which has no form in ONNX here. Convert with "
            "neuron='if'"
        )

    def _clamped(self, kind: str, one: fx.Node, name: str, dtype: torch.dtype) -> str:
        value, *ends = one.args
        low = ends[0] if ends and kind != "clamp_max" else one.kwargs.get("min")
        high = ends[-1] if ends and (kind == "clamp_max" or len(ends) == 2) else one.kwargs.get("max")
        made = self._cast(value, dtype)
        for which, end in (("Max", low), ("Min", high)):
            if end is not None:
                made = self.drawing.put(which, [made, self._cast(end, dtype)], name)
        return made

    def _cast(self, value: Any, dtype: torch.dtype) -> str:
        """The name of an operand, in a dtype."""
        if not isinstance(value, fx.Node):
            return self.drawing.weight(f"{self.label}.number", np.asarray(value, _numpy(dtype)))
        name = self.names[value.name]
        if value.meta["val"].dtype == dtype:
            return name
        from onnx import helper

        kind = int(helper.np_dtype_to_tensor_dtype(_numpy(dtype)))
        made = self.drawing.put("Cast", [name], f"{self.label}.cast", to=kind)
        if name in self.numbers:
            self.numbers.add(made)
        return made


def _numpy(dtype: torch.dtype) -> Any:
    return torch.empty(0, dtype=dtype).numpy().dtype
