"""A neuron whose mean output does not approach its current is refused: it has lost or added some for good."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import neuron
from torch import Tensor, nn

from sj_ann2snn import Converter, InPlaceNeuron, NeuronMaker, NeuronSite, PluginError, make_if_neuron
from sj_ann2snn.cli.attempts import WORKS, try_plugins
from sj_ann2snn.conversion.neuron_rates import find_drift
from sj_ann2snn.hooks.discovery import load_plugins
from sj_ann2snn.hooks.registry import Owner
from sj_ann2snn.hooks.validation import register_plugin

from ..helpers.plugins import plugin


class Fires(InPlaceNeuron):
    """Integrate-and-fire, at most `most` spikes in a step."""

    most = 1

    def step(self, x: Tensor, out: Tensor) -> None:
        assert self.v is not None
        self.v += x
        torch.floor(self.v, out=out).clamp_(0, self.most)
        self.v -= out


class Leaks(Fires):
    share = 0.5

    def step(self, x: Tensor, out: Tensor) -> None:
        assert self.v is not None
        self.v *= 1 - self.share
        super().step(x, out)


class LeaksSlowly(Leaks):
    share = 1 / 400


class LosesAtReset(Fires):
    def step(self, x: Tensor, out: Tensor) -> None:
        assert self.v is not None
        super().step(x, out)
        self.v *= 1 - out


class Rests(Fires):
    """Is silent for a step after every spike."""

    def __init__(self) -> None:
        super().__init__()
        self.register_memory("fired", None)

    def start(self, x: Tensor) -> None:
        super().start(x)
        self.fired = torch.zeros_like(x)

    def step(self, x: Tensor, out: Tensor) -> None:
        assert self.v is not None
        self.v += x
        torch.ge(self.v, 1.0, out=out)
        out *= 1 - self.fired
        self.v -= out
        self.fired = out.clone()


class Adapts(Fires):
    """Every spike raises the threshold for a while, and the reset with it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_memory("raised", None)

    def start(self, x: Tensor) -> None:
        super().start(x)
        self.raised = torch.zeros_like(x)

    def step(self, x: Tensor, out: Tensor) -> None:
        assert self.v is not None
        self.v += x
        torch.ge(self.v, 1 + self.raised, out=out)
        self.v -= out * (1 + self.raised)
        self.raised = 0.95 * self.raised + 0.1 * out


class Eager(Fires):
    def step(self, x: Tensor, out: Tensor) -> None:
        super().step(1.05 * x, out)


class Rolls(Fires):
    """Fires at random, at the right rate."""

    def step(self, x: Tensor, out: Tensor) -> None:
        out.copy_((torch.rand_like(x) < x).to(x))


class Rounds(Fires):
    """Emits the nearest third."""

    def step(self, x: Tensor, out: Tensor) -> None:
        out.copy_((3 * x.clamp(0, 1)).round() / 3)


class Late(Fires):
    """Begins after ten steps, and makes up for it."""

    most = 2

    def __init__(self) -> None:
        super().__init__()
        self.register_memory("steps", 0)

    def step(self, x: Tensor, out: Tensor) -> None:
        self.steps += 1
        super().step(x, out)
        if self.steps <= 10:
            self.v += out  # type: ignore[operator]
            out.zero_()


LOSING: dict[str, Callable[[], nn.Module]] = {
    "leak": Leaks,
    "LIF": lambda: neuron.LIFNode(tau=2.0, v_reset=None),
    "LIF, slow": lambda: neuron.LIFNode(tau=30.0, decay_input=False, v_reset=None),
    "hard reset": LosesAtReset,
    "SpikingJelly's hard reset": lambda: neuron.IFNode(v_reset=0.0),
    "threshold 2": lambda: neuron.IFNode(v_threshold=2.0, v_reset=None),
    "refractory": Rests,
    "adaptive": Adapts,
}
SOUND: dict[str, Callable[[], nn.Module]] = {
    "IF": make_if_neuron,
    "IF in place": Fires,
    "random": Rolls,
    "late": Late,
    "half a spike": lambda: make_if_neuron(initial_potential=0.5),
}


def maker(make: Callable[[], nn.Module], **attributes: Any) -> type[NeuronMaker]:
    class Maker(NeuronMaker):
        """A neuron."""

        name = "tried"

        def make(self, site: NeuronSite) -> nn.Module:
            return make()

    return type("Maker", (Maker,), attributes)


def convert(made: NeuronMaker, **arguments: Any) -> nn.Module:
    ann = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 8), nn.ReLU(), nn.Linear(8, 2))
    return Converter([torch.rand(30, 1, 6, 6)], neuron=made, progress=False, **arguments)(ann)


@pytest.mark.parametrize("channel_wise", [False, True])
@pytest.mark.parametrize("kind", LOSING)
def test_lost_current_is_refused(kind: str, channel_wise: bool) -> None:
    with pytest.raises(
        PluginError,
        match=r"Neuron 'tried' \(your own argument\) made a \w+ for 4 .*: \S+ spikes, expected \S+, for a constant "
        r"current .*the error grows with T .*current is lost.*NeuronMaker\.resolution",
    ):
        convert(maker(LOSING[kind])(), channel_wise=channel_wise)


def test_added_current_is_refused() -> None:
    with pytest.raises(PluginError, match="current is added"):
        convert(maker(Eager)())


@pytest.mark.parametrize("kind", SOUND)
def test_neurons_that_make_up_for_their_error_are_sound(kind: str) -> None:
    convert(maker(SOUND[kind])())


def test_what_a_maker_declares_is_allowed() -> None:
    with pytest.raises(PluginError, match="the error grows with T"):
        convert(maker(Rounds)())
    convert(maker(Rounds, resolution=1 / 6)())


def test_a_neuron_for_a_number_of_steps_is_not_tried_beyond_them() -> None:
    class ForSteps(NeuronMaker):
        name = "for-steps"

        def __init__(self, *, T: int = 8) -> None:  # noqa: N803 - the field's name
            self.T = T

        def make(self, site: NeuronSite) -> nn.Module:
            return Rests()

    convert(ForSteps(), T=8)


@pytest.mark.parametrize(("make", "works"), [(Fires, True), (Leaks, False), (LeaksSlowly, False), (Rests, False)])
def test_plugins_check_tries_many_steps(make: Callable[[], nn.Module], works: bool) -> None:
    registry = load_plugins().copy()
    register_plugin(registry, plugin("ann2snn_neurons", maker(make)), Owner("tried-plugin", "0.3"))
    (row,) = try_plugins(registry)
    assert (row["status"] == WORKS) == works
    if not works:
        assert "Neuron 'tried' (tried-plugin 0.3)" in row["status"]
        assert "current is lost" in row["status"]


@pytest.mark.parametrize("shape", [(1,), (6,), (3, 5, 5), (200,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sites_of_all_sizes(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    scale = torch.linspace(0.5, 3.0, shape[0], dtype=dtype)
    site = NeuronSite("relu", shape, scale, dtype)
    assert find_drift(Fires(), site, scale, few=64, many=256) is None
    found = find_drift(Leaks(), site, scale, few=64, many=256)
    assert found is not None
    assert found.emitted < found.expected
