"""A bias for every step and channel, found by forward passes, layer after layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sj_ann2snn import Correction, CorrectionError, Trial, TrialSite, require_integer, require_number

__all__ = ["ForwardTemporalBias"]

SAMPLE_STEPS = 1 << 12
"""Maximum of samples times steps; the currents of a layer are kept for all of them."""


class ForwardTemporalBias(Correction):
    """FTBC: makes the mean spike of every channel at every step the mean activation, by a bias of that step.

    >>> from sj_ann2snn import Converter
    >>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> x = torch.rand(64, 4)
    >>> snn = Converter([x], mode="99.9%", T=4, corrections="ftbc", progress=False)(ann)

    The layers are corrected from first to last, on the spikes that arrive from the corrected layers before them. At
    step t, the neurons of a layer fire on the currents of the calibration samples. `rate` times the difference between
    the ANN's activation and these spikes, averaged over the samples and positions of a channel, is added to the bias of
    that step, in the units of the current. The neurons then pass step t with the new bias, and step t + 1 follows.
    Several rounds repeat this for a layer before the next layer is corrected. No gradients and no labels are used.

    The biases suit a network that runs for T steps; later steps have none. There is one threshold, bias and initial
    potential for each channel as before.

    Args:
        T: Number of time steps for which the network will run.
        rounds: Rounds for each layer.
        rate: Share of the mean difference that is added to the bias of a step, above 0 and at most 1.
        samples: Maximum number of calibration samples to use; at most 4,096 / T.

    Raises:
        OptionError: An option is out of range.
        CorrectionError: The neurons are not plain IF neurons.

    Source: Wu et al. 2024, "FTBC: Forward Temporal Bias Correction for Optimizing ANN-SNN Conversion", the forward
    heuristic. There, each batch of data is a round for all layers; here, all rounds use the same samples, layer by
    layer.
    """

    name = "ftbc"

    def __init__(
        self,
        *,
        T: int = 8,  # noqa: N803 - the field's name for the number of time steps
        rounds: int = 4,
        rate: float = 0.5,
        samples: int = 256,
    ) -> None:
        self.T = require_integer("T", T, what="the number of time steps")
        self.rounds, self.samples = require_integer("rounds", rounds), require_integer("samples", samples)
        self.rate = require_number("rate", rate, above=0, most=1)

    @torch.no_grad()
    def correct(self, trial: Trial) -> None:
        others = [site.name for site in trial.sites if not site.binary]
        if others:
            raise CorrectionError(
                f"The correction 'ftbc' finds biases for plain IF neurons, and {', '.join(others)} have other ones. "
                "Convert with neuron='if', or leave the correction out."
            )
        inputs: Any = trial.inputs(min(self.samples, max(1, SAMPLE_STEPS // self.T)))
        wanted = trial.activations(inputs).sites

        def corrected(site: TrialSite, currents: Tensor) -> Tensor:
            trial.adjust(site.name, step_bias=self._found(site, currents, wanted[site.name]))
            return site.fire(currents)

        trial.run(inputs, self.T, corrected)

    def _found(self, site: TrialSite, currents: Tensor, activation: Tensor) -> Tensor:
        """The biases ``[T, C]`` for the currents ``[T, N, C, ...]`` of a site and its activation ``[N, C, ...]``."""
        found = torch.zeros(self.T, site.channels).to(site.bias)
        if site.step_bias is not None:
            kept = site.step_bias[: self.T]
            found[: len(kept)] = kept
        factor, bias = site.along_channels(site.scale), site.along_channels(site.bias)
        mean = _per_channel(activation)
        for _ in range(self.rounds):
            v = site.initial_potential.expand(activation.shape).clone()
            for t, current in enumerate(currents):
                v += (current + bias + site.along_channels(found[t])) / factor
                missing = self.rate * (mean - site.scale * _per_channel((v >= 1).to(v)))
                found[t] += missing
                v += site.along_channels(missing / site.scale)
                v -= (v >= 1).to(v)
        return found


def _per_channel(x: Tensor) -> Tensor:
    return x.mean([0, *range(2, x.dim())])
