"""The built-in neuron: SpikingJelly's IF with soft reset."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from sj_ann2snn import NeuronMaker, NeuronSite, hookimpl, make_if_neuron, require_number

ANN2SNN_API = 1


class IFNeuron(NeuronMaker):
    """Integrate-and-fire with threshold 1 and soft reset.

    >>> from sj_ann2snn import IFNeuron
    >>> IFNeuron(initial_potential=0.5).initial_potential
    0.5

    Args:
        initial_potential: Membrane potential after a reset, as a fraction of the threshold. Zero is the tutorial's
            value; one half rounds the rate to the nearest step instead of down.
        backend: `"torch"` or `"cupy"` for the neurons of SpikingJelly 0.0.0.0.14; None leaves the choice to the
            simulator.

    Source: Rueckauer et al. 2017, equation 2 (soft reset, "reset by subtraction"); Bu et al. 2022,
    "Optimized potential initialization for low-latency spiking neural networks".
    """

    name = "if"
    tunable: ClassVar = {"initial_potential": (0.0, 0.5)}

    def __init__(self, *, initial_potential: float = 0.0, backend: str | None = None) -> None:
        self.initial_potential = require_number(
            "initial_potential", initial_potential, least=0, below=1, noun="a fraction of the threshold"
        )
        self.backend = backend

    def make(self, site: NeuronSite) -> nn.Module:
        return make_if_neuron(initial_potential=self.initial_potential, backend=self.backend)


@hookimpl
def ann2snn_neurons() -> list[type[NeuronMaker]]:
    return [IFNeuron]
