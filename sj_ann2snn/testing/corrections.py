"""The contract of corrections."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from ..contracts.correction import Correction
from ..contracts.neuron_maker import NeuronMaker, NeuronSite
from ..contracts.trial import Trial
from ..conversion.converter import Converter
from ..errors import CorrectionError
from ..hooks.options import declared_options
from ..layers import InPlaceNeuron
from ..simulation.simulate import simulate
from .contract import PluginTests
from .running import at_once, small_network, step_by_step
from .stateful import TOLERANCE

__all__ = ["CorrectionTests"]

SAMPLES = 40


def _dense() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU6(), nn.Linear(8, 3))


def _without_layers_in_front() -> nn.Module:
    return nn.Sequential(nn.ReLU(), nn.AvgPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))


def _ending_with_neurons() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 2, 3), nn.ReLU()
    )


def _of_both_signs() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.LeakyReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    )


class CorrectionTests(PluginTests):
    """Runs the contract of `sj_ann2snn.Correction` on a correction.

    >>> from sj_ann2snn import Correction
    >>> class OutputBias(Correction):
    ...     '''Makes the mean answer on the calibration data equal to the ANN's.'''
    ...     name = "output-bias"
    ...     def __init__(self, *, T: int = 8) -> None:
    ...         self.T = T
    ...     def correct(self, trial):
    ...         if trial.adjusts_output:
    ...             x = trial.inputs()
    ...             missing = trial.activations(x).output - trial.run(x, self.T).mean(0)
    ...             trial.adjust_output(trial.output_bias + missing.mean(0))
    >>> class TestOutputBias(CorrectionTests):
    ...     plugin_class = OutputBias

    Attributes:
        steps: Number of time steps to correct for; passed as the option T if there is one.
        mode: The mode of the networks that are corrected.
        networks: Networks by name, for images of 1x8x8.
        improves: Names of the networks whose answers on the calibration data must get closer to the ANN's, by `error`.
        any_neuron: It works for all neurons; otherwise it refuses all but the plain IF with a `CorrectionError`.
        deterministic: Two conversions of the same ANN give the same network.
    """

    hook = "ann2snn_corrections"
    steps: ClassVar[int] = 8
    mode: ClassVar[Any] = 0.93
    networks: ClassVar[Mapping[str, Callable[[], nn.Module]]] = {
        "dense": _dense,
        "convolutional": small_network,
        "no layer in front": _without_layers_in_front,
        "neurons at the end": _ending_with_neurons,
        "both signs": _of_both_signs,
    }
    improves: ClassVar[tuple[str, ...]] = ("dense", "convolutional")
    any_neuron: ClassVar[bool] = True
    deterministic: ClassVar[bool] = True

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run the tests on every network."""
        for argument, names in (("network", tuple(self.networks)), ("improved", self.improves)):
            if argument in metafunc.fixturenames:
                metafunc.parametrize(argument, names)

    def correction(self) -> Correction:
        """A fresh one, for `steps` steps."""
        correction: Correction = self.make(**self._options())
        return correction

    def ann(self, name: str) -> nn.Module:
        """One of `networks`, identical at every call."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            return self.networks[name]().double().eval()

    def inputs(self) -> Tensor:
        """Calibration data, identical at every call."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            return torch.randn(SAMPLES, 1, 8, 8, dtype=torch.float64)

    def convert(self, ann: nn.Module, *corrections: Correction, **arguments: Any) -> nn.Module:
        """The network of `ann` with `corrections`."""
        arguments = {"mode": self.mode, "progress": False, **arguments}
        return Converter([self.inputs()], corrections=corrections, **arguments)(ann)

    def error(self, answers: Tensor, wanted: Tensor) -> float:
        """The distance between a network's answers and the ANN's, which the correction claims to reduce."""
        return float((answers - wanted).norm() / wanted.norm())

    # The network -------------------------------------------------------------------------------

    @pytest.mark.parametrize("channel_wise", [False, True], ids=["layer", "channels"])
    def test_the_network_that_is_built_is_the_one_that_was_tried(self, network: str, channel_wise: bool) -> None:
        """Step by step, in both step modes and in `simulate`."""
        x, look = self.inputs(), _Look(self.steps)
        snn = self.convert(self.ann(network), self.correction(), look, channel_wise=channel_wise)
        x_seq = x.expand(self.steps, *x.shape)
        torch.testing.assert_close(step_by_step(snn, x_seq), look.outputs, **TOLERANCE)
        torch.testing.assert_close(at_once(snn, x_seq), look.outputs, **TOLERANCE)
        rate = simulate(snn, x, self.steps, readout="mean")
        torch.testing.assert_close(rate, look.outputs.mean(0), **TOLERANCE)

    def test_where_weights_may_change_the_network_that_is_built_is_the_one_that_was_tried(self) -> None:
        """With weights="tuned", whether or not the correction changes any."""
        x, look, name = self.inputs(), _Look(self.steps), next(iter(self.networks))
        snn = self.convert(self.ann(name), self.correction(), look, weights="tuned")
        torch.testing.assert_close(step_by_step(snn, x.expand(self.steps, *x.shape)), look.outputs, **TOLERANCE)

    def test_answers_come_nearer_to_those_of_the_ann(self, improved: str) -> None:
        """On the calibration data, after the number of steps that it was corrected for, by `error`."""
        ann, x = self.ann(improved), self.inputs()
        wanted = ann(x).detach()
        before = self.error(simulate(self.convert(ann), x, self.steps), wanted)
        after = self.error(simulate(self.convert(ann, self.correction()), x, self.steps), wanted)
        assert after < before, f"the error is {after:.4g} with the correction and {before:.4g} without it"

    def test_everything_is_finite(self, network: str) -> None:
        """Also in single precision."""
        for dtype in (torch.float32, torch.float64):
            snn = Converter([self.inputs().to(dtype)], mode=self.mode, corrections=self.correction(), progress=False)(
                self.ann(network).to(dtype)
            )
            for name, value in snn.state_dict().items():
                assert bool(value.isfinite().all()), f"{name} is not finite"
            assert bool(simulate(snn, self.inputs().to(dtype), self.steps).isfinite().all())

    # What it leaves as it is --------------------------------------------------------------------

    def test_the_ann_and_the_data_stay_as_they_are(self, network: str) -> None:
        """The ANN's weights and gradients, and the inputs that the next correction uses, do not change."""
        ann, look = self.ann(network), _Look(self.steps)
        before = copy.deepcopy(ann.state_dict())
        self.convert(ann, self.correction(), look)
        assert torch.equal(look.inputs, self.inputs()), "the calibration data were changed in place"
        for name, value in ann.state_dict().items():
            assert torch.equal(value, before[name]), f"{name} of the ANN was changed"
        assert all(one.requires_grad and one.grad is None for one in ann.parameters()), "the ANN was trained"

    def test_weights_stay_unless_the_caller_allows_their_change(self, network: str) -> None:
        """Without weights="tuned", the weights are the ANN's, times a factor per input and output channel."""
        corrected = self.convert(self.ann(network), self.correction()).state_dict()
        for name, own in self.convert(self.ann(network)).state_dict().items():
            if name.endswith("weight") and own.dim() > 1:
                ratio = (corrected[name] / own).flatten(1)
                product = ratio[:, :1] * ratio[:1] / ratio[0, 0]
                assert torch.allclose(ratio, product, rtol=1e-6, atol=0), f"{name} was changed"

    def test_two_conversions_agree(self, network: str) -> None:
        """Whatever the state of the global random numbers."""
        self.require("deterministic")
        found = []
        for seed in (3, 4):
            torch.manual_seed(seed)
            found.append(self.convert(self.ann(network), self.correction()).state_dict())
        assert found[0].keys() == found[1].keys()
        for name, value in found[0].items():
            assert torch.equal(value, found[1][name]), f"{name} differs from one conversion to the next"

    def test_remembers_nothing_of_other_networks(self, network: str) -> None:
        """One converter may convert several ANNs."""
        self.require("deterministic")
        used = self.correction()
        self.convert(self.ann(next(iter(self.networks))), used)
        again = self.convert(self.ann(network), used).state_dict()
        for name, value in self.convert(self.ann(network), self.correction()).state_dict().items():
            assert torch.equal(again[name], value), f"{name} depends on earlier conversions"

    def test_is_quiet(self, network: str, capfd: pytest.CaptureFixture[str]) -> None:
        """With progress=False it prints nothing; `trial.progress` shows a bar if the caller wants one."""
        self.convert(self.ann(network), self.correction())
        assert capfd.readouterr() == ("", "")

    # In the converter ----------------------------------------------------------------------------

    def test_other_neurons_are_corrected_or_refused(self) -> None:
        """For other neurons, too, the network that is built is the one that was tried."""
        x, look, name = self.inputs(), _Look(self.steps), next(iter(self.networks))
        if not self.any_neuron:
            with pytest.raises(CorrectionError):
                self.convert(self.ann(name), self.correction(), neuron=_GradedMaker())
            return
        snn = self.convert(self.ann(name), self.correction(), look, neuron=_GradedMaker())
        torch.testing.assert_close(step_by_step(snn, x.expand(self.steps, *x.shape)), look.outputs, **TOLERANCE)

    def test_is_known_by_name(self) -> None:
        """Options reach it through the converter, and a misspelt option is an error."""
        name, ann = self.plugin_class.name, self.ann(next(iter(self.networks)))
        arguments: dict[str, Any] = {"mode": self.mode, "plugins": [self.as_plugin()], "progress": False}
        wanted = self.convert(ann, self.correction()).state_dict()
        for written in (name, name.upper()):
            converter = Converter([self.inputs()], corrections=written, **arguments, **self.options, **self._options())
            found = converter(ann).state_dict()
            assert any(repr(name) in one for one in converter.report.corrections)
            if self.deterministic:
                assert all(torch.equal(found[key], value) for key, value in wanted.items())
        with pytest.raises(TypeError, match="no_such_option_of_any_plugin"):
            Converter(corrections=name, no_such_option_of_any_plugin=1, **arguments)

    def _options(self) -> dict[str, Any]:
        known = declared_options(self.plugin_class)
        return {"T": self.steps} if "T" in known and "T" not in self.options else {}


class _Look(Correction):
    """Adjusts nothing and records the inputs and outputs of the network on trial."""

    name = "look"

    def __init__(self, steps: int = 8) -> None:
        self.steps = steps
        self.inputs = self.outputs = torch.empty(0)

    def correct(self, trial: Trial) -> None:
        self.inputs = trial.inputs()
        self.outputs = trial.run(self.inputs, self.steps).detach()


class _Graded(InPlaceNeuron):
    """Up to four spikes in a step."""

    def step(self, x: Tensor, out: Tensor) -> None:
        assert self.v is not None
        self.v += x
        torch.floor(self.v, out=out).clamp_(0, 4)
        self.v -= out


class _GradedMaker(NeuronMaker):
    """Makes neurons that emit up to four spikes in a step, each worth a quarter of λ."""

    name = "graded"

    def unit(self, scale: Tensor) -> Tensor:
        return scale / 4

    def make(self, site: NeuronSite) -> nn.Module:
        return _Graded()
