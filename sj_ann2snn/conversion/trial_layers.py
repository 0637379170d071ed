"""The layers of a network on trial whose weights corrections may tune."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd

from ..compat import StepModule
from ..contracts.trial_layer import Arriving, TrialLayer
from ..layers import Stepwise
from ..support.shapes import along_axis
from .draft import Draft
from .graph.weights import channel_axis, scaled_weight, with_parameters

__all__ = ["LayerProbe", "make_layers", "put_weights"]


class LayerProbe(nn.Module, StepModule):  # type: ignore[misc]  # SpikingJelly is untyped
    """Takes the place of a layer of a network on trial, and runs it with the weights that are being tried.

    Args:
        layer: The layer as corrections see it.
        step: The rewritten layer, with scales folded in.
        folds: The factors of its input and output channels.
    """

    given: Tensor | None = None
    arriving: Arriving | None = None

    def __init__(self, layer: TrialLayer, step: nn.Module, folds: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.layer, self.step, self.folds = layer, step, folds
        self._weight = "operation.weight" if isinstance(step, Stepwise) else "weight"

    @property
    def step_mode(self) -> str:
        """That of the layer."""
        return str(self.step.step_mode)

    @step_mode.setter
    def step_mode(self, value: str) -> None:
        self.step.step_mode = value  # type: ignore[assignment]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.arriving is not None:
            self.arriving(self.layer, self._in_units(next(iter((*args, *kwargs.values())))))
        weight = self.given
        if weight is None:
            if not self.layer.changed:
                return self.step(*args, **kwargs)
            weight = self.layer.weight
        folded = scaled_weight(self.layer.module, weight, *self.folds)
        return torch.func.functional_call(self.step, {self._weight: folded}, args, kwargs)

    def _in_units(self, carried: Tensor) -> Tensor:
        """Inputs ``[T, N, ...]`` in the ANN's units; T is 1 for what does not vary over time."""
        x_seq = carried.detach() if self.step_mode == "m" else carried.detach().unsqueeze(0)
        factor = self.folds[0].to(x_seq)
        if factor.dim():
            samples = x_seq.dim() - 1
            factor = along_axis(factor, samples, channel_axis(self.layer.module, samples))
        return x_seq * factor


def make_layers(draft: Draft) -> dict[fx.Node, TrialLayer]:
    """The layers whose weights scales are folded into, in order of execution."""
    found = {}
    for node in draft.module.graph.nodes:
        layer = draft.layer(node) if node in draft.scales.folds else None
        if isinstance(layer, (nn.Linear, _ConvNd)):
            # Corrections see a copy, so that nothing they do to it reaches the network.
            found[node] = TrialLayer(draft.plan.decisions[node].site.name, copy.deepcopy(layer).requires_grad_(False))
    return found


def put_weights(draft: Draft, layers: Mapping[fx.Node, TrialLayer]) -> Draft:
    """The draft with the weights that corrections gave to `layers`."""
    tuned: dict[str, nn.Module] = {}
    for node, layer in layers.items():
        if layer.changed:
            own: Any = draft.layer(node)
            tuned[str(node.target)] = with_parameters(own, layer.weight.to(own.weight), None)
    return draft.evolve(layers={**draft.layers, **tuned}) if tuned else draft
