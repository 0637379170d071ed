"""Reads the integer network off a converted network or its description, and sets the width of its potentials."""

from __future__ import annotations

import copy

from torch import fx, nn

from ..contracts.network_description import NetworkDescription
from ..errors import IntegerError, OptionError
from ..hooks.discovery import load_plugins
from ..integers.network import IntegerNetwork
from ..integers.purity import Obstacle
from ..integers.reading import read_network
from ..layers import IntegerIF
from ..layers.integer import NARROWEST, WIDEST
from ..support.converted_network import tell_obstacles_by
from ..support.neutral import neutrally
from ..support.wording import shown
from .building import build

__all__ = ["integer_network", "saturated"]


@neutrally
def integer_network(snn: nn.Module | NetworkDescription) -> IntegerNetwork:
    """A network converted with ``weights="int8"`` as plain data: arrays of integers, and what is done with them.

    >>> import torch
    >>> from sj_ann2snn import Converter, integer_network, simulate
    >>> ann, x = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2)), torch.rand(64, 4)
    >>> snn = Converter([x], mode="max", weights="int8", progress=False)(ann)
    >>> network = integer_network(snn)
    >>> [one.kind for one in network.operations]
    ['input', 'weighted', 'neuron', 'weighted', 'result']
    >>> run = network.run(x[:2], T=20)
    >>> bool(abs(simulate(snn, x[:2], T=20).numpy() - run.answers[0]).max() < 1e-6), run.spikes["1"].shape
    (True, (20, 2, 3))

    Args:
        snn: The network, in any state, or its description as an exporter receives it. It is left as it is.

    Raises:
        IntegerError: Parts of it do not compute with integers; the message lists them.
    """
    if isinstance(snn, NetworkDescription):
        return read_network(build(snn, load_plugins().exported_layers()))
    if not isinstance(snn, fx.GraphModule):
        raise IntegerError(
            f"Only a converted network (a torch.fx.GraphModule) is an integer network, not {type(snn).__name__}; give "
            "what Converter(..., weights='int8')(ann) returns."
        )
    return read_network(copy.deepcopy(snn).cpu())


def saturated(snn: nn.Module, bits: int) -> nn.Module:
    """A copy of an integer network whose membrane potentials have that width and saturate there.

    >>> import torch
    >>> from sj_ann2snn import Converter, saturated
    >>> ann, x = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()), torch.rand(64, 4)
    >>> saturated(Converter([x], weights="int8", progress=False)(ann), bits=16).get_submodule("1").bits
    16

    Args:
        snn: The network.
        bits: Width in two's complement, with the sign.

    Raises:
        OptionError: The width is not allowed, or a threshold does not fit into it.
        IntegerError: The network has no integer neurons.
    """
    if type(bits) is not int or not NARROWEST <= bits <= WIDEST:
        raise OptionError(
            f"bits={shown(bits)} is not allowed: the width of potentials must be an integer from {NARROWEST} to "
            f"{WIDEST}."
        )
    made = copy.deepcopy(snn)
    neurons = {name: one for name, one in made.named_modules() if isinstance(one, IntegerIF)}
    if not neurons:
        raise IntegerError("The network has no integer neurons. Convert with weights='int8'.")
    for name, neuron in neurons.items():
        neuron.bits = bits
        if int(neuron.threshold.max()) > neuron.high:
            raise OptionError(
                f"bits={bits} is too narrow: the neurons of {name} have thresholds up to "
                f"{int(neuron.threshold.max())}, and a potential of {bits} bits ends at {neuron.high}."
            )
        neuron.reset()
    return made


def _obstacles(network: fx.GraphModule) -> tuple[Obstacle, ...] | None:
    if not any(isinstance(module, IntegerIF) for module in network.modules()):
        return None
    try:
        return integer_network(network).obstacles
    except IntegerError:
        return None


tell_obstacles_by(_obstacles)
