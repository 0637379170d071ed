"""Writes random networks as source code, learning every shape by running each line as it is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

T = TypeVar("T")

LARGEST = 640
"""Elements of one sample's largest activation; keeps an example at some ten milliseconds."""

SETTLE = '''
def settle(network, seed):
    """Random weights that keep activations of order one, random BatchNorm statistics."""
    draw = torch.Generator().manual_seed(seed)

    def uniform(tensor, low, high):
        tensor.data.copy_(torch.rand(tensor.shape, generator=draw, dtype=torch.float64) * (high - low) + low)

    for module in network.modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            uniform(module.running_mean, -0.4, 0.4)
            uniform(module.running_var, 0.5, 1.5)
            if weight is not None:
                uniform(weight, -0.3, 1.5)
                uniform(module.bias, -0.4, 0.4)
        elif isinstance(module, nn.PReLU):
            uniform(weight, -0.2, 0.5)
        elif weight is not None and weight.dim() > 1:
            transposed = isinstance(module, nn.modules.conv._ConvTransposeNd)
            reached = weight.shape[0] // module.groups if transposed else weight.shape[1]
            fan_in = reached * weight[0, 0].numel()
            if transposed:
                fan_in = max(1.0, fan_in / torch.tensor(module.stride).prod().item())
            bound = (5 / fan_in) ** 0.5
            uniform(weight, -bound, bound)
            if module.bias is not None:
                uniform(module.bias, -0.2, 0.2)
    for name, parameter in network.named_parameters(recurse=False):
        bound = 1.0 if parameter.dim() < 2 else (5 / parameter[0].numel()) ** 0.5
        uniform(parameter, -bound, bound)
    return network.eval()
'''
"""Part of every example that is printed, hence source code."""

HEAD = "import torch\nimport torch.nn.functional as F\nfrom torch import nn\n"


class Unusable(Exception):  # noqa: N818 - a signal between an operation and the builder, never seen by a test
    """The operation does not fit here; the builder takes back what it wrote."""


@dataclass(frozen=True)
class Network:
    """A random network: its source code, its input shapes and what may be expected of it."""

    source: str
    shapes: tuple[tuple[int, ...], ...]
    seed: int
    operations: tuple[str, ...]
    may_be_refused: bool = False
    """It changes memory of which another view is read later, or uses an operation that is not supported."""

    def make(self, dtype: torch.dtype = torch.float64) -> nn.Module:
        """The network, in eval mode."""
        namespace: dict[str, Any] = {}
        exec(HEAD + SETTLE + self.source, namespace)
        network: nn.Module = namespace["settle"](namespace["Network"](), self.seed)
        return network.to(dtype)

    def inputs(self, samples: int = 3, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
        """Input data, one tensor per input."""
        draw = torch.Generator().manual_seed(self.seed)
        return tuple(
            torch.rand(samples, *shape, generator=draw, dtype=torch.float64).mul(2).sub(0.5).to(dtype)
            for shape in self.shapes
        )

    def __repr__(self) -> str:
        """A script that shows the example on its own."""
        data = "".join(
            f"    torch.rand(3, *{shape}, generator=draw, dtype=torch.float64).mul(2).sub(0.5),\n"
            for shape in self.shapes
        )
        return (
            f"\n{HEAD}\nfrom sj_ann2snn import Converter, simulate\n\n{SETTLE}\n{self.source}\n\n"
            f"ann = settle(Network(), {self.seed}).double()\n"
            f"draw = torch.Generator().manual_seed({self.seed})\ninputs = (\n{data})\n"
            "snn = Converter([inputs], mode='max', progress=False)(ann)\n"
            "wanted, got = ann(*(x.clone() for x in inputs)), simulate(snn, inputs, T=1024)\n"
            "print(wanted, got)\n"
        )

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """How hypothesis prints a failing example."""
        printer.text(repr(self))


@dataclass
class Value:
    """A variable of the forward that is being written."""

    name: str
    varying: bool
    """True if it is computed from a spiking activation."""
    read: bool = False


@dataclass
class Builder:
    """Writes one network, statement by statement.

    Args:
        draw: Hypothesis's draw.
        shapes: Shapes of the inputs, without the samples.
    """

    draw: Callable[[st.SearchStrategy[Any]], Any]
    shapes: Sequence[tuple[int, ...]]
    init: list[str] = field(default_factory=list)
    body: list[str] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    operations: list[str] = field(default_factory=list)
    may_be_refused: bool = False
    stale: set[str] = field(default_factory=set)
    """Views of memory that was changed in place through another view."""

    def __post_init__(self) -> None:
        self.network = nn.Module().eval()
        self.environment: dict[str, Any] = {"torch": torch, "nn": nn, "F": F, "self": self.network}
        self.count = 0
        for index, shape in enumerate(self.shapes):
            name = ("x", "y", "z")[index]
            self.values.append(Value(name, varying=False))
            self.environment[name] = torch.rand(2, *shape) - 0.3

    # What operations ask --------------------------------------------------------------------------

    def pick(self, *choices: T) -> T:
        """One of `choices`; the first is the simplest."""
        return self.draw(st.sampled_from(choices))

    def chance(self, one_in: int) -> bool:
        """True once in `one_in` times."""
        return self.draw(st.integers(0, one_in - 1)) == one_in - 1

    def tensor(self, value: Value) -> Tensor:
        found: Tensor = self.environment[value.name]
        return found

    def shape(self, value: Value) -> tuple[int, ...]:
        """Shape without the samples."""
        return tuple(self.tensor(value).shape[1:])

    def size(self, value: Value) -> int:
        return self.tensor(value)[0].numel()

    def operand(self, fits: Callable[[Value], bool] = lambda value: True, *, ranks: tuple[int, ...] = ()) -> Value:
        """A value to work on, most often the last; `ranks` count the dimensions of one sample."""
        found = [one for one in reversed(self.values) if (not ranks or len(self.shape(one)) in ranks) and fits(one)]
        if not found:
            raise Unusable
        back = self.draw(st.integers(0, 2 * len(found)))
        value = found[max(0, back - len(found) - 1)]
        self.read(value)
        return value

    def read(self, value: Value) -> None:
        value.read = True
        if value.name in self.stale:
            self.may_be_refused = True

    # What operations write ------------------------------------------------------------------------

    def layer(self, expression: str, kind: str = "layer") -> str:
        """A module or parameter of the network; returns how to write it."""
        name = self._fresh(kind)
        self.init.append(f"self.{name} = {expression}")
        exec(self.init[-1], self.environment)
        self.network.eval()
        return f"self.{name}"

    def write(self, expression: str, *operands: Value, spikes: bool = False) -> Value:
        """``h7 = expression``."""
        name = self._fresh("h")
        self._run(f"{name} = {expression}")
        result = self.environment[name]
        if not isinstance(result, Tensor) or result.dim() < 2 or result.shape[0] != 2 or not result[0].numel() > 0:
            raise Unusable
        # A max pool whose window lies in the padding is infinite.
        if result[0].numel() > LARGEST or not torch.isfinite(result).all():
            raise Unusable
        value = Value(name, spikes or any(operand.varying for operand in operands))
        self.values.append(value)
        return value

    def write_all(self, count: int, expression: str, operand: Value) -> list[Value]:
        """``h7, h8 = expression``."""
        names = [self._fresh("h") for _ in range(count)]
        self._run(f"{', '.join(names)} = {expression}")
        made = [Value(name, operand.varying) for name in names]
        self.values += made
        return made

    def statement(self, text: str, changed: Value, *operands: Value, spikes: bool = False) -> None:
        """A statement that changes `changed` in place."""
        self.mark_changed(changed, spikes=spikes or any(operand.varying for operand in operands))
        self._run(text)

    def mark_changed(self, changed: Value, *, spikes: bool = False) -> None:
        """`changed` is about to be changed in place; what shares its memory changes with it."""
        target = self.tensor(changed)
        for value in self.values:
            other = self.tensor(value)
            if other.untyped_storage().data_ptr() != target.untyped_storage().data_ptr():
                continue
            ours, theirs = _places(target), _places(other)
            if not ours & theirs:
                continue
            value.varying = value.varying or spikes
            same = other.shape == target.shape and other.stride() == target.stride()
            flat = other.is_contiguous() and target.is_contiguous()
            if ours != theirs or not (same or flat):
                self.stale.add(value.name)

    def attempt(self, name: str, operation: Callable[[Builder], None]) -> None:
        """Write one operation, or nothing where it does not fit."""
        lengths = len(self.init), len(self.body), len(self.values)
        flags = [(value, value.varying, value.read) for value in self.values]
        stale, may_be_refused = set(self.stale), self.may_be_refused
        try:
            operation(self)
            self.operations.append(name)
        except (Unusable, RuntimeError, ValueError, IndexError):
            del self.init[lengths[0] :], self.body[lengths[1] :], self.values[lengths[2] :]
            for value, varying, read in flags:
                value.varying, value.read = varying, read
            self.stale, self.may_be_refused = stale, may_be_refused

    def finish(self, result: str, seed: int) -> Network:
        """The network that returns `result`."""
        inputs = ", ".join(("x", "y", "z")[: len(self.shapes)])
        init = "".join(f"        {line}\n" for line in self.init)
        body = "".join(f"        {line}\n" for line in self.body)
        source = (
            f"class Network(nn.Module):\n    def __init__(self):\n        super().__init__()\n{init}\n"
            f"    def forward(self, {inputs}):\n{body}        return {result}\n"
        )
        return Network(source, tuple(self.shapes), seed, tuple(self.operations), self.may_be_refused)

    def _fresh(self, kind: str) -> str:
        self.count += 1
        return f"{kind}{self.count}"

    def _run(self, line: str) -> None:
        with torch.no_grad():
            exec(line, self.environment)
        self.body.append(line)


def _places(tensor: Tensor) -> set[int]:
    """Where in its storage the elements of a tensor lie."""
    numbers = torch.arange(tensor.untyped_storage().nbytes() // tensor.element_size())
    return set(numbers.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset()).flatten().tolist())
