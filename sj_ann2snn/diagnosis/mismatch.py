"""Finds the layers at which a converted network computes something else than the ANN, each with the right input."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..conversion.graph.naming import node_label
from ..conversion.prepare import prepare
from ..errors import Ann2SnnError, InputError
from ..support.structures import open_values
from .answers import AnswerSums, real
from .network import SpikingNetwork, run_once
from .probes import ActivationProbe
from .table import percent

__all__ = ["ALLOWED", "Mismatch", "find_mismatches", "not_of_this_ann"]

ALLOWED = 1e-2
"""Divergence of the network without time from the ANN up to which rounding explains it."""


@dataclass(frozen=True)
class Mismatch:
    """A part that computes something else.

    Attributes:
        layer: The spiking layer behind it; empty for the network's output, and a part's name for that of a part.
        error: Relative difference there, with the ANN's values in front.
        batchnorm: Name of a BatchNorm in that part; empty if there is none.
    """

    layer: str
    error: float
    batchnorm: str


def find_mismatches(network: SpikingNetwork, ann: nn.Module, inputs: tuple[Any, ...]) -> list[Mismatch] | None:
    """The parts that differ from the ANN, in order; None if the network is not made of this ANN.

    Args:
        network: The converted network.
        ann: The ANN, in eval mode.
        inputs: Some samples.
    """
    wanted = _activations(ann, inputs, network.device)
    folded = network.ann()
    known: dict[str, tuple[ActivationProbe, Tensor]] = {}
    for layer in network.layers:
        probe = folded.get_submodule(layer.target)
        value = wanted.get(layer.name.removeprefix(network.prefix))
        if layer.is_neuron and isinstance(probe, ActivationProbe) and value is not None:
            probe.forced = (value / layer.unit).to(value.dtype)
            known[layer.name.removeprefix(network.prefix)] = probe, probe.forced
    if not known:
        return None
    try:
        outputs = real(open_values(run_once(folded, inputs))[0])
    except (RuntimeError, ValueError, TypeError, IndexError):
        return None  # the values of another network do not fit
    errors = {}
    for name, (probe, value) in known.items():
        if probe.seen is None or probe.seen.shape != value.shape:
            return None
        errors[name] = _relative(probe.seen, value)
    sums = AnswerSums()
    sums.add(outputs, real(open_values(_run(ann, inputs))[0]))
    errors[""] = sums.divergence
    wrong = [name for name, error in errors.items() if not error <= ALLOWED]
    if not wrong or len(wrong) > len(errors) / 2:
        return None
    norms = _batchnorms(ann, inputs, list(known))

    def named(name: str) -> str:
        return f"{network.prefix}{name}".removesuffix(".")

    return [Mismatch(named(name), errors[name], named(norms[name]) if norms.get(name) else "") for name in wrong]


def not_of_this_ann(error: float) -> InputError:
    """The error for a network that was made of another ANN."""
    return InputError(
        f"The network is not made of this ANN: without time, its answers differ from the ANN's by {percent(error)} on "
        "the given data, in most of its layers. Give the ANN with the weights that were converted (in eval mode, with "
        "the same preprocessing of the data), or convert it again."
    )


def _activations(ann: nn.Module, inputs: tuple[Any, ...], device: torch.device) -> dict[str, Tensor]:
    """The results of the ANN's operations, by qualified name; empty if torch.fx cannot follow it."""
    with suppress(Ann2SnnError):
        batch = inputs if len(inputs) > 1 else inputs[0]
        draft = prepare(ann, batch, device=device, leaf_types=(), leaf_modules=(), fuse_batchnorm=True)
        recorder = _Recorder(draft.module)
        with torch.no_grad():
            recorder.run(*inputs)
        return recorder.seen
    return {}


class _Recorder(fx.Interpreter):
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.extra_traceback = False
        self.graph_module = module
        self.seen: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor) and result.is_floating_point():
            self.seen[node_label(self.graph_module, n)] = result
        return result


def _batchnorms(ann: nn.Module, inputs: tuple[Any, ...], names: Sequence[str]) -> dict[str, str]:
    """For every layer that is a module, the last BatchNorm that runs before it, behind the layer before."""
    order: list[tuple[str, bool]] = []
    modules = dict(ann.named_modules())
    handles = []
    for name, module in modules.items():
        norm = isinstance(module, _BatchNorm)
        if norm or name in names:

            def note(*_: Any, name: str = name, norm: bool = norm) -> None:
                order.append((name, norm))

            handles.append(module.register_forward_hook(note))
    try:
        _run(ann, inputs)
    finally:
        for handle in handles:
            handle.remove()
    found: dict[str, str] = {}
    last = ""
    for name, norm in order:
        if norm:
            last = name
        else:
            found[name], last = last, ""
    found[""] = last
    return found


def _run(ann: nn.Module, inputs: tuple[Any, ...]) -> Any:
    with torch.no_grad():
        return ann(*inputs)


def _relative(value: Tensor, wanted: Tensor) -> float:
    norm = float(wanted.double().norm())
    return float((value.double() - wanted.double()).norm()) / (norm or 1.0)
