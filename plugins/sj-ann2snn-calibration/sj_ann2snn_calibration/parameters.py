"""What the joint correction learns: three values per site and channel, and the biases of the outputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sj_ann2snn import Trial, TrialSite

from .gradients import fire

__all__ = ["Parameters"]


@dataclass
class _OfSite:
    """The parameters that are learnt at one site."""

    log_scale: Tensor
    bias: Tensor
    potential: Tensor

    @staticmethod
    def of(site: TrialSite) -> _OfSite:
        potential = site.initial_potential
        if not any(size > 1 for size in potential.shape[1:]):
            potential = potential.expand(site.channels, *potential.shape[1:])
        values = site.scale.log(), site.bias, potential
        return _OfSite(*(value.detach().clone().requires_grad_() for value in values))

    def keep_to(self, site: TrialSite) -> None:
        """Limit the scale if the activation has an upper bound."""
        if site.largest_scale is not None:
            with torch.no_grad():
                self.log_scale.copy_(self.log_scale.minimum(site.largest_scale.log()))

    def tensors(self) -> list[Tensor]:
        return [self.log_scale, self.bias, self.potential]


class Parameters:
    """All parameters of a network on trial, which start from its adjustments so far."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self._sites = {site.name: _OfSite.of(site) for site in trial.sites}
        self._outputs = {
            one.name: torch.zeros_like(one.bias).requires_grad_() for one in trial.outputs if one.adjustable
        }

    def tensors(self) -> list[Tensor]:
        """Everything that is learnt."""
        return [tensor for one in self._sites.values() for tensor in one.tensors()] + list(self._outputs.values())

    def run(self, inputs: Any, steps: int) -> Any:
        """The outputs ``[T, N, ...]`` before the biases of the outputs, with gradients."""
        return self.trial.run(inputs, steps, self._emit)

    def answers(self, outputs: Any, delay: int) -> dict[str, Tensor]:
        """The means ``[N, ...]`` of `outputs` after `delay` steps, by name, with the biases."""
        found = {}
        for one in self.trial.outputs:
            value = one.of(outputs)
            if not value.is_floating_point():
                continue
            found[one.name] = value[delay:].mean(0)
            if one.adjustable:
                bias = one.along_channels(self._outputs[one.name], found[one.name].dim())
                found[one.name] = found[one.name] + bias
        return found

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
        for one in self.trial.outputs:
            if one.adjustable:
                self.trial.adjust_output(one.bias + self._outputs[one.name].detach(), one.name)

    def _emit(self, site: TrialSite, currents: Tensor) -> Tensor:
        own = self._sites[site.name]
        if site.step_bias is not None:  # of an earlier correction
            currents = currents + site.along_steps(site.step_bias, len(currents))
        return fire(currents, own.log_scale, own.bias, own.potential)
