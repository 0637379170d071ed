"""Adjusts biases and initial potentials to the ANN, layer by layer, on the spikes that actually arrive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sj_ann2snn import Activations, Correction, Trial, TrialLayer, TrialSite, require_integer

__all__ = ["Arriving", "LayerByLayer"]

Arriving = Callable[[TrialLayer, Tensor], None]
"""Takes a layer and what arrives there, as `Trial.run` passes it."""

SAMPLE_STEPS = 1 << 12
"""Maximum of samples times steps; the currents of a layer are kept for all of them."""


class LayerByLayer(Correction):
    """Corrects the mean error of every layer in turn, by bias and initial potential.

    >>> from sj_ann2snn import Converter
    >>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> x = torch.rand(64, 4)
    >>> snn = Converter([x], mode="staircase", T=4, corrections="layer-by-layer", progress=False)(ann)

    The layers are corrected from first to last. The neurons of a layer fire on the currents of the calibration samples.
    The difference between the ANN's activation and their mean output, averaged over samples and positions of a channel,
    is added to the bias, in several rounds because the effect of a bias is not linear. The mean difference that remains
    for each neuron is added to its initial potential. The biases of the outputs correct the rest. It works with any
    neuron.

    Args:
        T: Number of time steps for which the network will run.
        rounds: Rounds for the biases of a layer, and for its potentials.
        potentials: Also correct the initial potential of every neuron. The network then takes only inputs of the size
            of the calibration data.
        samples: Maximum number of calibration samples to use; at most 4,096 / T.

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
        self.T = require_integer("T", T, what="the number of time steps")
        self.rounds, self.samples = require_integer("rounds", rounds), require_integer("samples", samples)
        self.potentials = potentials

    @torch.no_grad()
    def correct(self, trial: Trial) -> None:
        inputs: Any = trial.inputs(min(self.samples, max(1, SAMPLE_STEPS // self.T)))
        wanted = trial.activations(inputs)

        def corrected(site: TrialSite, currents: Tensor) -> Tensor:
            self._correct_site(trial, site, currents, wanted.sites[site.name])
            return site.fire(currents)

        answer = trial.run(inputs, self.T, corrected, arriving=self._arriving(trial, wanted))
        for output in trial.outputs:
            if output.adjustable:
                missing = output.of(wanted.output) - output.of(answer).mean(0)
                trial.adjust_output(output.bias + output.mean_per_channel(missing), output.name)

    def _arriving(self, trial: Trial, wanted: Activations) -> Arriving | None:
        """What to do with the weights of a layer before it computes; None to leave them as they are."""
        return None

    def _correct_site(self, trial: Trial, site: TrialSite, currents: Tensor, activation: Tensor) -> None:
        def missing() -> Tensor:
            return activation - site.fire(currents).mean(0)

        others = [0, *range(2, activation.dim())]
        for _ in range(self.rounds):
            trial.adjust(site.name, bias=site.bias + missing().mean(others))
        if not self.potentials:
            return
        for _ in range(self.rounds):
            # A potential counts once, a current at every step.
            added = self.T * missing().mean(0) / site.along_channels(site.scale)
            trial.adjust(site.name, initial_potential=site.initial_potential + added)
