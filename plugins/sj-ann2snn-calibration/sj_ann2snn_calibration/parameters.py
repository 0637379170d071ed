"""What the joint correction learns: three values per site and channel, and the biases of the outputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sj_ann2snn import Readout, Trial, TrialSite

from .gradients import fire

__all__ = ["Parameters"]


@dataclass
class _OfSite:
    """The parameters that are learnt at one site."""

    log_scale: Tensor
    bias: Tensor
    potential: Tensor
    step_bias: Tensor | None
    """``[T, C]``; None if it is not learnt."""

    @staticmethod
    def of(site: TrialSite, steps: int | None) -> _OfSite:
        potential = site.initial_potential
        if not any(size > 1 for size in potential.shape[1:]):
            potential = potential.expand(site.channels, *potential.shape[1:])
        per_step = None
        if steps is not None:
            before = site.bias.new_zeros(1, site.channels) if site.step_bias is None else site.step_bias
            per_step = site.along_steps(before, max(steps, len(before))).flatten(1).detach().clone().requires_grad_()
        scale, bias, start = (
            value.detach().clone().requires_grad_() for value in (site.scale.log(), site.bias, potential)
        )
        return _OfSite(scale, bias, start, per_step)

    def keep_to(self, site: TrialSite) -> None:
        """Limit the scale if the activation has an upper bound."""
        if site.largest_scale is not None:
            with torch.no_grad():
                self.log_scale.copy_(self.log_scale.minimum(site.largest_scale.log()))

    def tensors(self) -> list[Tensor]:
        learnt = [self.log_scale, self.bias, self.potential]
        return learnt if self.step_bias is None else [*learnt, self.step_bias]


class Parameters:
    """All parameters of a network on trial, which start from its adjustments so far.

    Args:
        trial: The network on trial. Its weights are learnt if the caller allows it.
        steps: Learn biases for so many steps; none by default.
    """

    def __init__(self, trial: Trial, *, steps: int | None = None) -> None:
        self.trial = trial
        self._sites = {site.name: _OfSite.of(site, steps) for site in trial.sites}
        self._weights = {layer.name: layer.weight.detach().clone().requires_grad_() for layer in trial.layers}
        self._outputs = {
            one.name: torch.zeros_like(one.bias).requires_grad_() for one in trial.outputs if one.adjustable
        }

    def tensors(self) -> list[Tensor]:
        """Everything that is learnt."""
        return [*self._without_weights(), *self._weights.values()]

    def groups(self, rate: float, weight_rate: float) -> list[dict[str, Any]]:
        """All of it for an optimizer.

        Args:
            rate: Learning rate of everything but weights.
            weight_rate: Learning rate of weights, in units of the root mean square of those of the same layer.
        """
        others: dict[str, Any] = {"params": self._without_weights(), "lr": rate}
        return [others] + [
            {"params": [weight], "lr": weight_rate * float(weight.detach().square().mean().sqrt())}
            for weight in self._weights.values()
        ]

    def run(self, inputs: Any, steps: int) -> Any:
        """The outputs ``[T, N, ...]`` before the biases of the outputs, with gradients."""
        return self.trial.run(inputs, steps, self._emit, weights=self._weights or None)

    def answers(self, outputs: Any, delay: int, steps: int) -> dict[str, Tensor]:
        """The means ``[N, ...]`` of `outputs` from step `delay` to step `steps`, by name, with the biases."""
        return self._answers(outputs, lambda value: value[delay:steps].mean(0))

    def read(self, outputs: Any, readout: Readout, steps: int) -> dict[str, Tensor]:
        """What a readout makes of the first `steps` of `outputs`, by name, with the biases."""
        return self._answers(
            outputs, lambda value: readout.last_answer(value[:steps], None, 0)[0] / readout.divisor(steps)
        )

    def _answers(self, outputs: Any, average: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        found = {}
        for one in self.trial.outputs:
            value = one.of(outputs)
            if not value.is_floating_point():
                continue
            # What was learnt in half precision is averaged in single.
            found[one.name] = average(value.to(torch.promote_types(value.dtype, torch.float32)))
            if one.adjustable:
                bias = one.along_channels(self._outputs[one.name], found[one.name].dim())
                found[one.name] = found[one.name] + bias
        return found

    def _without_weights(self) -> list[Tensor]:
        return [tensor for one in self._sites.values() for tensor in one.tensors()] + list(self._outputs.values())

    def multiply_scales(self, factor: float) -> None:
        """Multiply the scale of every site, as far as its activation's upper bound allows."""
        with torch.no_grad():
            for one in self._sites.values():
                one.log_scale += math.log(factor)
        self.keep_to_bounds()

    def keep_to_bounds(self) -> None:
        """Limit the scales of activations that have an upper bound."""
        for site in self.trial.sites:
            self._sites[site.name].keep_to(site)

    def apply(self) -> None:
        """Adjust the network on trial."""
        for site in self.trial.sites:
            own = self._sites[site.name]
            self.trial.adjust(site.name, scale=own.log_scale.exp(), bias=own.bias, initial_potential=own.potential)
            if own.step_bias is not None:
                self.trial.adjust(site.name, step_bias=own.step_bias)
        for name, weight in self._weights.items():
            self.trial.adjust_weight(name, weight)
        for one in self.trial.outputs:
            if one.adjustable:
                self.trial.adjust_output(one.bias + self._outputs[one.name].detach(), one.name)

    def _emit(self, site: TrialSite, currents: Tensor) -> Tensor:
        own = self._sites[site.name]
        per_step = site.step_bias if own.step_bias is None else own.step_bias
        if per_step is not None:
            currents = currents + site.along_steps(per_step, len(currents))
        return fire(currents, own.log_scale, own.bias, own.potential)
