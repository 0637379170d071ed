"""The contract of neuron makers."""

from __future__ import annotations

import copy
import math
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from ..compat import MemoryModule, memories
from ..contracts.neuron_maker import NeuronMaker, NeuronSite
from ..conversion.converter import Converter
from ..conversion.named_readout import require_readout
from ..conversion.neuron_rates import Drift, find_drift
from ..hooks.discovery import load_plugins
from ..hooks.options import declared_options
from ..layers import ChangeLoop, InPlaceNeuron
from ..simulation.engine.compiled.neuron_loops import fire_compiled
from ..simulation.simulate import simulate
from ..support.blame import Culprit
from . import stateful
from .contract import PluginTests
from .exported import assert_layer_comes_back
from .running import at_once, currents, identity_network, small_network, step_by_step, tiled

__all__ = ["NeuronTests"]

SCALES = {"layer": torch.tensor(2.5, dtype=torch.float64), "channels": torch.tensor([0.5, 1.0, 4.0]).double()}


class NeuronTests(PluginTests):
    """Runs the contract of `sj_ann2snn.NeuronMaker` on a neuron.

    >>> from sj_ann2snn.builtin.neurons import IFNeuron
    >>> class TestIF(NeuronTests):
    ...     plugin_class = IFNeuron
    ...     options = {"initial_potential": 0.5}

    Attributes:
        rate_error: Allowed difference, in spikes, between T times the mean output and a constant drive: one for IF
            neurons, whose rate is then within 1/T. What `NeuronMaker.resolution` allows comes on top.
        saturates: The mean output never exceeds λ.
        whole_spikes: The output at a step is a whole number of spikes.
        negative_spikes: The neuron may emit negative spikes.
        proportional_unit: The value of a spike is a fixed share of λ.
    """

    hook = "ann2snn_neurons"
    rate_error: ClassVar[float] = 1.0
    saturates: ClassVar[bool] = True
    whole_spikes: ClassVar[bool] = True
    negative_spikes: ClassVar[bool] = False
    proportional_unit: ClassVar[bool] = True

    def site(self, scale: Tensor = SCALES["layer"], dtype: torch.dtype = torch.float64) -> NeuronSite:
        """A site with 3 channels of 4 values."""
        return NeuronSite("layer", (3, 4), scale, dtype)

    def neuron(self) -> nn.Module:
        """A fresh neuron."""
        maker: NeuronMaker = self.make()
        return maker.make(self.site())

    def currents(self) -> Tensor:
        """Currents ``[T, N, 3, 4]`` in units of one spike, up to saturation."""
        return currents(24, 5, 3, 4, spread=self.spread())

    def spread(self) -> float:
        """λ in units of one spike."""
        scale = SCALES["layer"]
        return float(scale / self.make().unit(scale))

    # What is made ------------------------------------------------------------------------------

    @pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
    def test_a_spike_has_a_value(self, scale: Tensor) -> None:
        """`unit` is finite, positive, has the shape, precision and device of λ, and does not change λ."""
        shown = scale.clone()
        unit: Any = self.make().unit(shown)
        assert torch.equal(shown, scale), "unit() changed λ in place"
        assert isinstance(unit, Tensor), f"unit() answered {unit!r}"
        assert unit.shape == scale.shape, f"unit() answered the shape {tuple(unit.shape)} for {tuple(scale.shape)}"
        assert unit.dtype == scale.dtype, f"unit() answered {unit.dtype} for {scale.dtype}"
        assert unit.device == scale.device
        assert bool((unit > 0).all() & unit.isfinite().all()), f"unit() answered {unit.tolist()}"

    def test_the_value_of_a_spike_is_proportional_to_the_scale(self) -> None:
        """unit(k·λ) = k·unit(λ): in other units the network is the same."""
        self.require("proportional_unit")
        for scale in SCALES.values():
            torch.testing.assert_close(self.make().unit(10 * scale), 10 * self.make().unit(scale))

    def test_makes_a_module_with_memory(self) -> None:
        """A fresh SpikingJelly MemoryModule for every site, in step mode "s"."""
        maker = self.make()
        one, other = maker.make(self.site()), maker.make(self.site())
        for made in (one, other):
            assert isinstance(made, MemoryModule), f"make() answered {made!r}, which is no MemoryModule of SpikingJelly"
            assert made.step_mode == "s"
        assert one is not other, "make() answered the same neuron for two sites"

    def test_the_readout_that_it_asks_for_exists(self) -> None:
        """`readout` is None, or the name of a known readout and options that it takes."""
        asked: Any = self.make().readout()
        if asked is not None:
            who = Culprit(f"Neuron {self.plugin_class.name!r}")
            require_readout(load_plugins(), asked, who, "returned {} from readout()")

    # Dynamics ----------------------------------------------------------------------------------

    def test_step_modes_agree(self) -> None:
        """Single-step equals multi-step."""
        stateful.assert_step_modes_agree(self.neuron, self.currents())

    def test_reset_clears_the_state(self) -> None:
        """`reset_net` restores the initial potential."""
        stateful.assert_reset_clears(self.neuron, self.currents())

    def test_samples_are_apart(self) -> None:
        """Samples do not affect each other."""
        stateful.assert_samples_are_apart(self.neuron, self.currents())

    def test_settled_samples_can_leave(self) -> None:
        """As they do in `evaluate(early_exit=...)`."""
        stateful.assert_rows_can_be_dropped(self.neuron, self.currents())

    def test_copies_are_independent(self) -> None:
        """The simulator runs copies side by side."""
        stateful.assert_copies_are_independent(self.neuron, self.currents())

    def test_state_can_be_loaded(self) -> None:
        """Converted networks are saved by their `state_dict`."""
        stateful.assert_state_can_be_loaded(self.neuron, self.currents())

    def test_exported_neurons_come_back(self) -> None:
        """`export_options` rebuilds the same neuron."""
        assert_layer_comes_back(self.neuron(), self.plugin_class.exports, self.currents())

    def test_currents_are_left_alone(self) -> None:
        """And spikes have the currents' precision."""
        stateful.assert_leaves_inputs_alone(self.neuron, self.currents())

    def test_single_precision(self) -> None:
        """Spikes are the same; if λ is no multiple of `unit` by a power of two, rounding may delay a spike."""
        x = self.currents().float()
        out = at_once(self.neuron(), x)
        assert out.dtype == torch.float32
        wanted = at_once(self.neuron(), x.double())
        if math.frexp(self.spread())[0] == 0.5:
            # Currents in eighths of a power of two are exact in single precision, and so are their sums.
            rounding = 0 if self.whole_spikes else 1e-6
            torch.testing.assert_close(out.double(), wanted, rtol=rounding, atol=rounding)
            return
        late = (out.double().cumsum(0) - wanted.cumsum(0)).abs()
        assert float(late.max()) <= 1 + 1e-3, f"single precision is off by {float(late.max()):.3f} spikes"
        assert float((late > 1e-3).double().mean()) < 0.05, "single precision is off at more than 5 % of the steps"

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    def test_the_loop_does_what_a_step_does(self, dtype: torch.dtype) -> None:
        """What `InPlaceNeuron.loop` lets the simulator compile gives the same bits as `step`, over pieces of time."""
        made = self.make().make(self.site(dtype=dtype))
        if not isinstance(made, InPlaceNeuron) or made.loop(dtype) is None:
            pytest.skip("the neuron has no loop")
        by_steps, by_loop = copy.deepcopy(made), made
        for factor in (1, 100):
            for neuron in (by_steps, by_loop):
                neuron.reset()
            for piece in torch.split(factor * self.currents().to(dtype), 10):
                wanted, found = torch.empty_like(piece), torch.empty_like(piece)
                by_steps.fire(piece, wanted)
                if not fire_compiled(by_loop, piece, found):
                    pytest.skip("numba is missing")
                assert torch.equal(found, wanted), "the loop emits something else than step()"
                for name, value in memories(by_steps).items():
                    other = memories(by_loop)[name]
                    same = torch.equal(value, other) if isinstance(value, Tensor) else value == other
                    assert same, f"the loop leaves another {name} than step()"

    def test_outputs_keep_to_the_declared_range(self) -> None:
        """`InPlaceNeuron.output_range`: whole numbers in it, for currents of either sign, and 100 times as large."""
        made = self.make().make(self.site(dtype=torch.float32))
        declared = made.output_range if isinstance(made, InPlaceNeuron) else None
        if declared is None:
            pytest.skip("the neuron declares no range")
        low, high = declared
        for factor in (1, 100, -100):
            out = at_once(made, factor * self.currents().float())
            made.reset()
            assert torch.equal(out, out.round()), f"output_range={declared}, but it emitted a fraction"
            least, most = out.min().item(), out.max().item()
            assert low <= least <= most <= high, f"output_range={declared}, but it emitted {least:g} to {most:g}"

    def test_changes_are_those_of_the_value(self) -> None:
        """A `ChangeLoop`: values begin at zero, outputs are what it says, and changes are counted as spikes."""
        made = self.make().make(self.site(dtype=torch.float32))
        described = made.loop(torch.float32) if isinstance(made, InPlaceNeuron) else None
        if not isinstance(described, ChangeLoop):
            pytest.skip("the neuron declares no changes")
        missing = sorted(set(described.memories) - set(memories(made)))
        assert not missing, f"{described} names {missing}, which are no memories of the neuron (register_memory)"
        for factor in (1, 100, -100):
            made.reset()
            value = torch.zeros(5, 3, 4)
            for step, x in enumerate(factor * self.currents().float(), 1):
                out = torch.empty_like(x)
                if step > 1:
                    setattr(made, described.mean, torch.zeros_like(x))  # as if changes had come before
                made.fire(x[None], out[None])
                now, mean = (getattr(made, name) for name in (described.value, described.mean))
                assert isinstance(now, Tensor), f"{described.value} is no tensor after a step"
                assert mean is None, f"{described.mean} is not None, but step() works with {described.total}"
                change = now - value
                torch.testing.assert_close(out, value + step * change, msg=lambda text: f"output a + t q: {text}")
                for name in ("spikes_per_step", "emissions_per_step"):
                    count, sent = int(getattr(made, name)(out[None]).sum()), int(change.count_nonzero())
                    assert count == sent, f"{name} counts {count} where {sent} changes were sent"
                value = now.clone()

    def test_memory_layout_does_not_matter(self) -> None:
        """The simulator stores images as channels_last."""
        x = currents(12, 4, 3, 2, 2)
        innermost = torch.stack([step.contiguous(memory_format=torch.channels_last) for step in x])
        torch.testing.assert_close(at_once(self.neuron(), innermost), at_once(self.neuron(), x), rtol=0, atol=0)

    def test_spikes_are_whole(self) -> None:
        """Whole numbers of spikes, and none below zero."""
        self.require("whole_spikes")
        out = at_once(self.neuron(), self.currents())
        assert torch.equal(out, out.round()), "it emitted a fraction of a spike"
        if not self.negative_spikes:
            assert bool((out >= 0).all()), "it emitted a negative spike; if that is intended, set negative_spikes"

    @pytest.mark.parametrize("steps", [1, 5, 32])
    @pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
    def test_a_constant_drive_is_met_within_a_spike(self, scale: Tensor, steps: int) -> None:
        """The mean output, in the ANN's units, is clamp(activation, 0, λ) within `rate_error` spikes over T."""
        maker = self.make()
        per_channel = scale.reshape(1, -1, 1).expand(1, 3, 1)
        unit = maker.unit(scale).reshape(1, -1, 1).expand(1, 3, 1)
        share = torch.linspace(-1, 2 if self.saturates else 1, 64, dtype=torch.float64)
        activation = share * per_channel
        drive = (activation / unit).expand(steps, 1, 3, 64)
        rate = step_by_step(maker.make(self.site(scale)), drive).mean(0) * unit
        wanted = activation.clamp(min=0).minimum(per_channel).expand_as(rate)
        allowed = self.rate_error + maker.resolution * per_channel / unit * steps
        beyond = ((rate - wanted).abs() / unit * steps - allowed).flatten()
        worst = int(beyond.argmax())
        emitted, expected = ((one / unit * steps).flatten()[worst].item() for one in (rate, wanted))
        drift = self.drift()
        why = f" The error grows with T: {drift}." if drift else ""
        assert beyond[worst] <= 1e-9, (
            f"{emitted:.3g} spikes, expected {expected:.3g}, after {steps} steps for an activation of "
            f"{share[worst % len(share)]:.3f} λ; {'too few' if emitted < expected else 'too many'} by more than "
            f"rate_error={self.rate_error}.{why}"
        )

    def drift(self, few: int = 64, many: int = 256) -> Drift | None:
        """The error for a constant current, if it grows with the number of steps."""
        maker, site = self.make(), self.site()
        if "T" in declared_options(self.plugin_class):
            return None
        unit = maker.unit(site.scale)
        return find_drift(maker.make(site), site, unit, few=few, many=many, resolution=maker.resolution)

    def test_the_error_does_not_grow_with_the_steps(self) -> None:
        """A leak, a hard reset or a refractory time loses current: the mean output never approaches the current."""
        drift = self.drift(few=256, many=1024)
        assert drift is None, f"{drift}"

    # In a network ------------------------------------------------------------------------------

    def test_an_identity_layer_is_met_within_a_spike(self) -> None:
        """Also through the converter: the network passes its input on within `rate_error` spikes over T."""
        x = torch.rand(40, 6, dtype=torch.float64)
        x[0] = 1.0
        maker = self.make()
        snn = Converter([x], neuron=maker, progress=False)(identity_network(6))
        unit = float(maker.unit(torch.ones((), dtype=torch.float64)))
        for steps in (4, 32):
            error = (simulate(snn, x, T=steps, readout="mean") - x).abs().max().item()
            allowed = self.rate_error * unit / steps + maker.resolution
            assert error <= allowed + 1e-9, f"after {steps} steps the error is {error:.4f}"

    def test_bounded_activations_are_bounded(self) -> None:
        """ReLU6 is at most 6: a neuron that can emit more than λ must keep to `site.maximum`."""
        x = torch.rand(40, 6, dtype=torch.float64) * 12
        x[0] = 12.0
        ann = identity_network(6)
        ann = nn.Sequential(*(nn.ReLU6() if isinstance(one, nn.ReLU) else one for one in ann))
        for mode in ("max", 0.5):
            maker = self.make()
            snn = Converter([x], mode=mode, neuron=maker, progress=False)(ann)
            unit = float(maker.unit(torch.full((), 6.0, dtype=torch.float64)))
            mean = simulate(snn, x, T=64, readout="mean")
            most = mean.max().item()
            assert most <= 6 + 2 * self.rate_error * unit / 64 + 1e-9, f"the mean output is up to {most:.4f}"

    def test_channels_may_be_in_the_last_dimension(self) -> None:
        """On ``[N, time, features]``, a neuron with a value per channel has them along `site.channel_axis`."""
        x = torch.rand(8, 5, 6, dtype=torch.float64) * torch.linspace(1, 12, 6, dtype=torch.float64)
        ann = nn.Sequential(*(nn.ReLU6() if isinstance(one, nn.ReLU) else one for one in identity_network(6)))
        over_time, one_by_one = (
            Converter([data], neuron=self.make(), channel_wise=True, progress=False)(ann)
            for data in (x, x.flatten(0, 1))
        )
        for length in (5, 3):
            part = x[:, :length]
            wanted = simulate(one_by_one, part.flatten(0, 1), T=16).view_as(part)
            torch.testing.assert_close(simulate(over_time, part, T=16), wanted, rtol=1e-9, atol=1e-9)

    def test_is_known_by_name(self) -> None:
        """Options reach the neuron through the converter, and a misspelt option is an error."""
        name = self.plugin_class.name
        x = torch.rand(20, 6, dtype=torch.float64)
        for written in (name, name.upper()):
            converter = Converter([x], neuron=written, plugins=[self.as_plugin()], progress=False, **self.options)
            converter(identity_network(6))
            assert converter.report.neuron == name
        with pytest.raises(TypeError, match="no_such_option_of_any_plugin"):
            Converter([x], neuron=name, plugins=[self.as_plugin()], no_such_option_of_any_plugin=1)

    @pytest.mark.parametrize("threads", [1, 2])
    @pytest.mark.parametrize("budget", [1, 10_000, 1 << 22])
    def test_tiles_and_threads_change_nothing(self, budget: int, threads: int) -> None:
        """`simulate` equals the loop written by hand, however it cuts the batch."""
        x = torch.rand(13, 1, 8, 8, dtype=torch.float64)
        snn = Converter([x], neuron=self.make(), channel_wise=True, progress=False)(small_network())
        by_hand = step_by_step(snn, x.expand(20, *x.shape)).mean(0)
        with tiled(budget, threads):
            torch.testing.assert_close(simulate(snn, x, T=20, readout="mean"), by_hand, rtol=1e-9, atol=1e-9)
