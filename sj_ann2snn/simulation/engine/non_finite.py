"""Finds NaN and infinite values that a simulation would hide.

A neuron whose membrane potential is NaN never fires, and one whose potential is infinite fires at every step, so that
the answer is finite where the ANN's is not. Nobody would notice; nor would anybody see NaN among the outputs that
`evaluate` compares.

The normal case must cost nothing, so the guard looks only at what is small next to a simulation: the weights once,
what reaches the varying part of the network once per tile, and the potentials at the end of a tile. An attention mask
may hold -inf, and padding may hold NaN that the network cuts off, so what it finds need not matter. To know that, it
runs a single step, once as it is and once with ReLUs, which pass NaN on, in place of the neurons, and compares.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from ...compat import memories, reset_net, step_modes
from ...errors import NonFiniteError
from ...layers import Stepwise
from ...layers.stepwise import operation_label
from ...support.finite import affected_samples, all_are_finite, all_finite, kind_of
from ...support.structures import open_nodes, open_values
from ...support.trees import map_tensors, tensors
from .flow import Flow
from .numbers.firing import is_spiking

__all__ = ["Guard", "TileGuard", "explain_non_finite"]


class Guard:
    """Looks for NaN and infinite values during the simulation of one network; shared by its tiles.

    Args:
        snn: The network.
    """

    def __init__(self, snn: nn.Module) -> None:
        self.snn = snn
        self._weights_are_finite: bool | None = None

    def start(self, inputs: tuple[Any, ...], currents: Iterable[Any]) -> TileGuard:
        """Look at the weights and at what does not vary over time.

        Args:
            inputs: The inputs of a tile.
            currents: What reaches the varying part of the network from the part that does not vary.

        Raises:
            _Poisoned: The answer would hide it; `explain_non_finite` says it in words.
        """
        if self._weights_are_finite is None:
            self._weights_are_finite = all_are_finite((*self.snn.parameters(), *self.snn.buffers()))
        tile = TileGuard(self.snn, inputs)
        if not self._weights_are_finite or not all_are_finite(tensors(list(currents))):
            tile.look_closer()
        return tile


class TileGuard:
    """Looks for NaN and infinite values in one tile."""

    def __init__(self, snn: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._snn, self._inputs = snn, inputs
        self._expected: frozenset[str] | None = None
        """The neurons that values that are not finite reach without harm; None if nobody has looked."""

    def look_at_potentials(self, modules: Mapping[str, nn.Module]) -> None:
        """Look at the state of the neurons among `modules`, which they keep once it is not finite.

        Raises:
            _Poisoned: As for `Guard.start`.
        """
        states = {
            name: tensors(memories(module))
            for name, module in modules.items()
            if is_spiking(module) and (self._expected is None or name not in self._expected)
        }
        if all_are_finite(x for values in states.values() for x in values):
            return
        for name, values in states.items():
            if self._expected is not None and name in self._expected:
                continue
            if not all_are_finite(values):
                self.look_closer()
                if name not in self._expected:  # type: ignore[operator]
                    raise _Poisoned("time", _label(name, modules[name]), "not finite")

    def look_closer(self) -> None:
        """Find out whether values that are not finite matter.

        Raises:
            _Poisoned: They do.
        """
        if self._expected is not None:
            return
        network = _own_copy(self._snn)
        plain, rates = _run(network, self._inputs), _Rates(network)
        if _hides(plain, rates.run(self._inputs)):
            cleaned, inputs = _Rates(network), map_tensors(self._inputs, _cleaned)
            is_input = not _hides(_run(network, inputs), cleaned.run(inputs))
            weights = not all(map(all_finite, (*network.parameters(), *network.buffers())))
            cause = "input" if is_input else "weights" if weights else "network"
            where, kind = (rates if is_input else cleaned).first
            raise _Poisoned(cause, where, kind)
        self._expected = frozenset(rates.reached)


@contextmanager
def explain_non_finite(snn: nn.Module, inputs: tuple[Any, ...]) -> Iterator[None]:
    """Say what is NaN or infinite, and which samples have it.

    Raises:
        NonFiniteError: Instead of the exception of a `TileGuard`.
    """
    try:
        yield
    except _Poisoned as found:
        raise NonFiniteError(_message(found, snn, inputs)) from None


@dataclass
class _Poisoned(Exception):  # noqa: N818 - always caught
    """A value that is not finite takes part in the answer.

    Attributes:
        cause: `"input"`, `"weights"`, `"network"` (a step makes it from finite values) or `"time"` (many steps do).
        where: The first layer whose result is not finite.
        kind: What that result is.
    """

    cause: str
    where: str
    kind: str


@dataclass
class _Rates:
    """Runs one step of a network whose neurons are replaced by ReLUs, and notes where values are not finite."""

    network: nn.Module
    reached: set[str] = field(default_factory=set)
    _found: list[tuple[str, str]] = field(default_factory=list)
    _negative: list[tuple[str, str]] = field(default_factory=list)

    @property
    def first(self) -> tuple[str, str]:
        """The first layer whose result is not finite, and whether it is NaN or infinite.

        A result with no other such value than -inf is usually a mask, so it comes last.
        """
        return next(iter(self._found or self._negative), ("", ""))

    def run(self, inputs: tuple[Any, ...]) -> Any:
        handles = [module.register_forward_hook(self._hook(name)) for name, module in _layers(self.network)]
        try:
            return _run(self.network, inputs)
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], Any]:
        def passing_on(module: nn.Module, args: tuple[Any, ...], out: Any) -> Any:
            if is_spiking(module) and args and isinstance(args[0], Tensor):
                out = torch.relu(args[0])
                if not all_finite(args[0]):
                    self.reached.add(name)
            for y in tensors(out):
                if not all_finite(y):
                    bad = y[~torch.isfinite(y)]
                    only_negative = not bad.is_complex() and bool((bad == -torch.inf).all())
                    (self._negative if only_negative else self._found).append((_label(name, module), kind_of(y)))
            return out

        return passing_on


def _own_copy(snn: nn.Module) -> nn.Module:
    """A copy with its own memories and the same weights, because other tiles may be running.

    It returns only what its neurons have a part in; nothing hides in the rest.
    """
    shared: dict[int, Any] = {id(x): x for x in (*snn.parameters(), *snn.buffers())}
    network: nn.Module = copy.deepcopy(snn, shared)
    for module in network.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    for module, _ in step_modes(network):
        module.step_mode = "s"  # type: ignore[assignment]
    flow = Flow.of(network)
    if flow is not None:
        (output,) = (node for node in flow.graph.nodes if node.op == "output")
        output.args = fx.map_arg(open_nodes(output.args)[0], lambda node: node if node in flow.varying else None)
        network.recompile()  # type: ignore[operator]
    return network


def _run(network: nn.Module, inputs: tuple[Any, ...]) -> Any:
    reset_net(network)
    return open_values(network(*map_tensors(inputs, Tensor.clone)))[0]


def _cleaned(x: Tensor) -> Tensor:
    return x if all_finite(x) else torch.where(torch.isfinite(x), x, torch.zeros_like(x))


def _hides(plain: Any, rates: Any) -> bool:
    """True if an output is NaN, or infinite with ReLUs where that of the neurons is finite.

    An infinite output that both have is a mask of the network's own.
    """
    for spiking, exact in zip(tensors(plain), tensors(rates), strict=True):
        if bool((torch.isnan(exact) | torch.isnan(spiking) | (torch.isfinite(spiking) & torch.isinf(exact))).any()):
            return True
    return False


def _layers(network: nn.Module) -> list[tuple[str, nn.Module]]:
    if isinstance(network, fx.GraphModule):
        called = dict.fromkeys(str(node.target) for node in network.graph.nodes if node.op == "call_module")
        return [(name, network.get_submodule(name)) for name in called]
    return [(name, module) for name, module in network.named_modules() if name]


def _label(name: str, module: nn.Module) -> str:
    inner = module.operation if isinstance(module, Stepwise) else module
    return f"{name} ({operation_label(inner) or type(inner).__name__})"


def _message(found: _Poisoned, snn: nn.Module, inputs: tuple[Any, ...]) -> str:
    reaches = f"; it first shows at {found.where}" if found.where else ""
    if found.cause == "input":
        return (
            f"{_bad_input(snn, inputs)}{reaches}. A neuron cannot hold such a value, so the answer would be "
            "wrong. Clean the input (torch.nan_to_num) or leave these samples out."
        )
    if found.cause == "weights":
        return (
            f"{_bad_weight(snn)}{reaches}. A neuron cannot hold such a value, so the answer would be wrong. "
            "Check the trained weights."
        )
    if found.cause == "time":
        what = f"The membrane potential of {found.where} becomes NaN or infinite over the steps"
    else:
        what = f"The result of {found.where} is {found.kind}"
    return (
        f"{what}, although the input and the weights are finite: something overflows or divides by zero. A neuron "
        "cannot hold such a value, so the answer would be wrong. Scale the input as in training, and check "
        "the operations before that layer."
    )


def _bad_input(snn: nn.Module, inputs: tuple[Any, ...]) -> str:
    nodes = snn.graph.nodes if isinstance(snn, fx.GraphModule) else ()
    names = [str(node.target) for node in nodes if node.op == "placeholder"]
    bad = [(position, x) for position, value in enumerate(inputs) for x in tensors(value) if not all_finite(x)]
    if not bad:  # it became infinite on its way to the network's own dtype
        return "The input becomes infinite in the network's own dtype"
    position, x = next((one for one in bad if kind_of(one[1]) == "NaN"), bad[0])
    which = f" {names[position] if position < len(names) else position!r}" if len(inputs) > 1 else ""
    samples = affected_samples(x) if x.dim() else []
    listed = f" (first affected samples of {len(x)}: {', '.join(map(str, samples))})" if samples else ""
    return f"The input{which} is {kind_of(x)} in {int((~torch.isfinite(x)).sum())} value(s){listed}"


def _bad_weight(snn: nn.Module) -> str:
    named = [(name, x) for name, x in (*snn.named_parameters(), *snn.named_buffers()) if not all_finite(x)]
    name, x = next((one for one in named if kind_of(one[1]) == "NaN"), named[0])
    others = f" (and {len(named) - 1} more tensor(s))" if len(named) > 1 else ""
    return f"The weight {name} is {kind_of(x)} in {int((~torch.isfinite(x)).sum())} value(s){others}"
