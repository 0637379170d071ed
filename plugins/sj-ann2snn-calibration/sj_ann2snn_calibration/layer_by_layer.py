"""Biases and initial potentials, layer by layer, against the ANN on the spikes that really arrive."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sj_ann2snn import Correction, OptionError, Trial, TrialSite

from .staircase import checked_steps

__all__ = ["LayerByLayer"]

SAMPLE_STEPS = 1 << 12
"""Samples times steps at the most: the currents of a layer are kept for all of them."""


class LayerByLayer(Correction):
    """Adds to every layer in turn what its neurons emit too little on average, by bias and by initial potential.

    >>> from sj_ann2snn import Converter
    >>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> x = torch.rand(64, 4)
    >>> snn = Converter([x], mode="staircase", T=4, corrections="layer-by-layer", progress=False)(ann)

    For each layer, everything before it being corrected already, the neurons fire on the currents of the calibration
    samples. What their mean output misses of the ANN's activation goes into the bias, averaged over samples and
    positions of a channel; several rounds of that, for the effect of a bias is not linear. What each neuron then still
    misses on average goes into its initial potential. The output's bias takes up the rest. Any neuron will do.

    Args:
        T: Number of time steps that the network is to run for.
        rounds: Rounds for the biases of a layer, and for its potentials.
        potentials: Correct the initial potential of every neuron, too.
        samples: Calibration samples to use at the most; fewer where T is large, 4,096 / T.

    Raises:
        OptionError: An option is out of range.

    Source: Li et al. 2021, "A free lunch from ANN: towards efficient, accurate spiking neural networks calibration",
    section 5 (bias and initial potential by the mean error, layer by layer).
    """

    name = "layer-by-layer"

    def __init__(
        self,
        *,
        T: int = 8,  # noqa: N803 - the field's name for the number of time steps
        rounds: int = 3,
        potentials: bool = True,
        samples: int = 256,
    ) -> None:
        self.T = checked_steps(T)
        for name, value in (("rounds", rounds), ("samples", samples)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise OptionError(f"{name}={value!r} is not allowed: it is an integer from 1 up.")
        self.rounds, self.potentials, self.samples = rounds, potentials, samples

    @torch.no_grad()
    def correct(self, trial: Trial) -> None:
        inputs: Any = trial.inputs(min(self.samples, max(1, SAMPLE_STEPS // self.T)))
        wanted = trial.activations(inputs)

        def corrected(site: TrialSite, currents: Tensor) -> Tensor:
            self._correct_site(trial, site, currents, wanted.sites[site.name])
            return site.fire(currents)

        answer = trial.run(inputs, self.T, corrected)
        if trial.adjusts_output:
            trial.adjust_output(trial.output_bias + (wanted.output - answer.mean(0)).mean(0))

    def _correct_site(self, trial: Trial, site: TrialSite, currents: Tensor, activation: Tensor) -> None:
        def missing() -> Tensor:
            return activation - site.fire(currents).mean(0)

        others = [0, *range(2, activation.dim())]
        for _ in range(self.rounds):
            trial.adjust(site.name, bias=site.bias + missing().mean(others))
        if not self.potentials:
            return
        for _ in range(self.rounds):
            # A potential counts once, where a current counts at every step.
            added = self.T * missing().mean(0) / site.along_channels(site.scale)
            trial.adjust(site.name, initial_potential=site.initial_potential + added)
