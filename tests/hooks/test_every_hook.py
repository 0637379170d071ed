"""Every hook used end to end through `Converter(plugins=[...])`, and contributions that break its contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import base
from torch import Tensor, nn

from sj_ann2snn import (
    Average,
    CalibrationSite,
    Converter,
    Correction,
    DeadLayerError,
    ExitRule,
    Exporter,
    LayerMapper,
    NetworkDescription,
    NeuronMaker,
    NeuronSite,
    Normalization,
    Observer,
    OptionError,
    PluginError,
    Readout,
    Rearrange,
    Refuse,
    Replacement,
    ScaleError,
    Site,
    Spike,
    Trial,
    UnsupportedError,
    evaluate,
    export,
    make_if_neuron,
    simulate,
)
from sj_ann2snn.evaluation import batchwise as evaluation
from sj_ann2snn.hooks import discovery, kinds, validation
from sj_ann2snn.hooks.registry import Owner
from sj_ann2snn.simulation import answers as decoding

from ..helpers.networks import run_by_hand
from ..helpers.plugins import plugin


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def images() -> Tensor:
    return torch.rand(40, 4)


def converter_with(hook: str, *classes: type, **arguments: Any) -> Converter:
    return Converter([images()], plugins=[plugin(hook, *classes)], progress=False, **arguments)


def test_every_hook_has_a_test() -> None:
    assert {f"test_{hook}" for hook in kinds.KINDS} <= set(globals())


# ann2snn_normalizations ----------------------------------------------------------------------------


class MeanObserver(Observer):
    """The mean of the activations, times a factor."""

    def __init__(self, site: CalibrationSite, times: float) -> None:
        super().__init__(site)
        self.times, self.total, self.count = times, 0.0, 0

    def observe(self, x: Tensor) -> None:
        self.total, self.count = self.total + x.double().sum().item(), self.count + x.numel()

    def merge(self, other: Any) -> None:
        self.total, self.count = self.total + other.total, self.count + other.count

    def scale(self) -> Tensor:
        return torch.tensor(self.times * self.total / self.count)


class TimesMean(Normalization):
    name = "times-mean"

    def __init__(self, *, times: float = 10.0) -> None:
        self.times = times

    def observer(self, site: CalibrationSite) -> Observer:
        return MeanObserver(site, self.times)


def test_ann2snn_normalizations() -> None:
    ann = network()
    converter = converter_with("ann2snn_normalizations", TimesMean, mode="Times-Mean", times=8.0)
    x = images()
    converter.dataloader = [x[:7], x[7:]]
    snn = converter(ann)
    scale = 8.0 * torch.relu(ann[0](x)).mean().item()
    assert converter.report["1"].scale == pytest.approx((scale, scale), rel=1e-5)
    assert converter.report.mode_owner == "your own argument"
    torch.testing.assert_close(simulate(snn, x, T=500), ann(x).detach(), rtol=0, atol=0.02)


def test_a_normalization_is_told_about_its_sites() -> None:
    seen = []

    class Watching(TimesMean):
        name = "watching"

        def observer(self, site: CalibrationSite) -> Observer:
            seen.append(site)
            return super().observer(site)

    ann = nn.Sequential(nn.Conv1d(1, 5, 3), nn.ReLU(), nn.Conv1d(5, 2, 3), nn.ReLU6())
    converter = converter_with("ann2snn_normalizations", Watching, mode="watching", channel_wise=True)
    converter.dataloader = [torch.rand(8, 1, 9)]
    converter(ann)
    assert seen == [
        CalibrationSite("1", channel_axis=1, channels=5, maximum=None, index=0),
        CalibrationSite("3", channel_axis=1, channels=2, maximum=6.0, index=1),
    ]


def test_an_observer_may_alter_what_later_layers_see() -> None:
    class Halving(MeanObserver):
        def observe(self, x: Tensor) -> Tensor:  # type: ignore[override]
            super().observe(x)
            return x / 2 if self.site.index == 0 else x

    class Mode(TimesMean):
        name = "halving"

        def observer(self, site: CalibrationSite) -> Observer:
            return Halving(site, 10.0)

    ann, x = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3), nn.ReLU()), images()
    converter = Converter([x], mode=Mode(), progress=False)
    converter(ann)
    hidden = torch.relu(ann[0](x))
    scale = 10 * torch.relu(ann[2](hidden / 2)).mean().item()
    assert converter.report["3"].scale == pytest.approx((scale, scale), rel=1e-5)


def test_an_observer_may_ask_for_another_pass() -> None:
    class TwoPass(MeanObserver):
        """The mean of what lies above the mean of the first pass."""

        threshold = 0.0
        passes = 0

        def observe(self, x: Tensor) -> None:
            super().observe(x[x > self.threshold])

        def end_pass(self) -> bool:
            self.passes += 1
            if self.passes == 2:
                return False
            self.threshold, self.total, self.count = self.total / self.count, 0.0, 0
            return True

    class Mode(TimesMean):
        name = "two-pass"

        def observer(self, site: CalibrationSite) -> Observer:
            return TwoPass(site, 1.0)

    ann, x = network(), images()
    converter = Converter([x[:11], x[11:]], mode=Mode(), progress=False)
    converter(ann)
    hidden = torch.relu(ann[0](x)).detach()
    positive = hidden[hidden > 0]
    scale = positive[positive > positive.mean()].mean().item()
    assert converter.report["1"].scale == pytest.approx((scale, scale), rel=1e-5)


def test_observer_that_is_none() -> None:
    class Mode(TimesMean):
        name = "observer-less"

        def observer(self, site: CalibrationSite) -> Any:
            return {"site": site}

    with pytest.raises(
        PluginError, match=r"'observer-less' \(your own argument\) returned \{'site'.*must return an Observer"
    ):
        converter_with("ann2snn_normalizations", Mode, mode="observer-less")(network())


def mode_with_scale(value: Any) -> type[Normalization]:
    class Fixed(MeanObserver):
        def scale(self) -> Any:
            return value

    class Mode(TimesMean):
        name = "fixed"

        def observer(self, site: CalibrationSite) -> Observer:
            return Fixed(site, 1.0)

    return Mode


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.tensor(float("nan")), r"returned the scale nan to nan for 1; a scale must be finite and greater than 0"),
        (torch.tensor(float("inf")), r"returned the scale inf to inf for 1; a scale must be finite"),
        (torch.tensor(-2.0), r"returned the scale -2 to -2 for 1; a scale must be finite and greater than 0"),
        (
            torch.tensor([1.0, 2.0]),
            r"returned a tensor of shape \(2,\) as the scale of 1; allowed is a tensor of shape \(\)",
        ),
        (torch.ones(6), r"returned a tensor of shape \(6,\) as the scale of 1; allowed is a tensor of shape \(\)"),
        (2.0, r"returned 2\.0 as the scale of 1; allowed is a tensor"),
        (None, r"returned None as the scale of 1; allowed is a tensor"),
    ],
)
def test_scales_outside_the_contract(value: Any, message: str) -> None:
    converter = converter_with("ann2snn_normalizations", mode_with_scale(value), mode="fixed")
    with pytest.raises(ScaleError, match=r"^Mode 'fixed' \(your own argument\) " + message):
        converter(network())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.ones(5), r"a tensor of shape \(5,\) .* allowed is a tensor of shape \(\) or \(6,\)"),
        (torch.ones(6, 1), r"a tensor of shape \(6, 1\)"),
        (torch.tensor([1.0, 1, 1, float("nan"), 1, 1]), "a scale must be finite"),
        (torch.tensor([1.0, 1, 1, -1, 1, 1]), "the scale -1 to 1 for 1"),
    ],
)
def test_channel_wise_scales_outside_the_contract(value: Tensor, message: str) -> None:
    converter = converter_with("ann2snn_normalizations", mode_with_scale(value), mode="fixed", channel_wise=True)
    with pytest.raises(ScaleError, match=message):
        converter(network())


@pytest.mark.parametrize("value", [torch.tensor(2.0), torch.arange(1.0, 7.0)])
def test_channel_wise_scales_within_the_contract(value: Tensor) -> None:
    ann, x = network(), images()
    converter = converter_with("ann2snn_normalizations", mode_with_scale(value), mode="fixed", channel_wise=True)
    snn = converter(ann)
    assert converter.report["1"].scale == (value.min().item(), value.max().item())
    torch.testing.assert_close(simulate(snn, x, T=1000), ann(x).detach(), rtol=0, atol=0.02)


ZEROS = [torch.tensor(0.0), torch.tensor([1.0, 0, 1, 1, 1, 1])]


@pytest.mark.parametrize("value", ZEROS)
def test_a_scale_of_zero_for_a_layer_that_fires_is_the_modes_fault(value: Tensor) -> None:
    converter = converter_with("ann2snn_normalizations", mode_with_scale(value), mode="fixed", channel_wise=True)
    with pytest.raises(
        ScaleError, match=r"Mode 'fixed' \(your own argument\) returned the scale 0 to . for 1; .* than 0"
    ):
        converter(network())


@pytest.mark.parametrize("value", ZEROS)
def test_a_scale_of_zero_is_right_for_a_dead_layer(value: Tensor) -> None:
    converter = converter_with("ann2snn_normalizations", mode_with_scale(value), mode="fixed", channel_wise=True)
    ann = network()
    nn.init.constant_(ann[0].bias, -100.0)
    with pytest.raises(DeadLayerError, match=r"1 never fired.*1 calibration batch.*Mode 'fixed'"):
        converter(ann)


def test_a_scale_on_another_device_is_refused() -> None:
    converter = converter_with("ann2snn_normalizations", mode_with_scale(torch.ones((), device="meta")), mode="fixed")
    with pytest.raises(ScaleError, match=r"returned a scale on the device meta for 1; allowed is cpu\."):
        converter(network())


# ann2snn_layer_mappers -----------------------------------------------------------------------------


class Smooth(nn.Module):
    """A fixed smoothing over positions: linear, but nothing that the core knows."""

    def forward(self, x: Tensor) -> Tensor:
        return (x + x.roll(1, -1)) / 2


class SmoothMapper(LayerMapper):
    name = "smooth"
    claims = (Smooth,)

    def __init__(self, *, smooth_exactly: bool = True) -> None:
        self.exactly = smooth_exactly

    def map(self, site: Site) -> Replacement:
        return Average() if self.exactly else Refuse("its user asked for no averages", "ask for them")


def smooth_network() -> nn.Sequential:
    return nn.Sequential(nn.Conv1d(1, 3, 3), nn.ReLU(), Smooth(), nn.Flatten(), nn.Linear(21, 2))


def test_ann2snn_layer_mappers() -> None:
    ann, x = smooth_network(), torch.rand(10, 1, 9)
    converter = converter_with("ann2snn_layer_mappers", SmoothMapper)
    converter.dataloader = [x]
    snn = converter(ann)
    entry = converter.report["2"]
    assert (entry.operation, entry.mapper, entry.owner) == ("Smooth", "smooth", "your own argument")
    # A claimed type is not traced into: the module itself stands in the spiking network.
    assert any(isinstance(module, Smooth) for module in snn.modules())
    torch.testing.assert_close(simulate(snn, x, T=500), ann(x).detach(), rtol=0, atol=0.02)


def test_a_mapper_may_refuse() -> None:
    converter = converter_with("ann2snn_layer_mappers", SmoothMapper, smooth_exactly=False)
    converter.dataloader = [torch.rand(10, 1, 9)]
    with pytest.raises(UnsupportedError, match=r"2 \(Smooth\).*its user asked for no averages\. Ask for them\."):
        converter(smooth_network())


BACKWARDS = torch.arange(5, -1, -1)[None]


@pytest.mark.parametrize(
    "mirror",
    [
        pytest.param(lambda x: torch.take_along_dim(x, BACKWARDS, 1), id="function"),
        pytest.param(lambda x: x.take_along_dim(BACKWARDS, 1), id="method"),
    ],
)
def test_a_mapper_may_claim_functions_and_methods(mirror: Callable[[Tensor], Tensor]) -> None:
    class Mirror(LayerMapper):
        name = "mirror"
        claims = (torch.take_along_dim, "take_along_dim")

        def map(self, site: Site) -> Replacement:
            return Rearrange()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(mirror(torch.relu(self.first(x))))

    ann, x = Net(), images()
    with pytest.raises(UnsupportedError, match=r"take_along_dim.*no installed mapper knows it"):
        Converter([x], progress=False)(ann)
    converter = converter_with("ann2snn_layer_mappers", Mirror, channel_wise=True)
    converter.dataloader = [x]
    snn = converter(ann)
    assert [entry.name for entry in converter.report if entry.mapper == "mirror"] == ["take_along_dim"]
    torch.testing.assert_close(simulate(snn, x, T=500), ann(x).detach(), rtol=0, atol=0.02)


@pytest.mark.parametrize("answer", [None, "spike", Spike, nn.ReLU()])
def test_a_mapper_that_answers_no_replacement(answer: Any) -> None:
    class Mapper(LayerMapper):
        name = "careless"
        claims = (Smooth,)

        def map(self, site: Site) -> Any:
            return answer

    converter = converter_with("ann2snn_layer_mappers", Mapper)
    converter.dataloader = [torch.rand(10, 1, 9)]
    with pytest.raises(
        PluginError,
        match=r"(?s)'careless' \(your own argument\) returned .* for 2 \(Smooth\); it must return a Replacement",
    ):
        converter(smooth_network())


# ann2snn_neurons -----------------------------------------------------------------------------------


class TernaryNeuron(base.MemoryModule):
    """Fires -1 as well as 1, so that it takes back what it sent too much."""

    def __init__(self) -> None:
        super().__init__()
        self.register_memory("v", 0.0)
        self.register_memory("sent", 0.0)

    def single_step_forward(self, x: Tensor) -> Tensor:
        self.v = self.v + x
        positive = (self.v >= 1).to(x)
        negative = ((self.v < 0) & (self.sent > 0)).to(x) if isinstance(self.sent, Tensor) else 0.0
        spikes = positive - negative
        self.v = self.v - spikes
        self.sent = self.sent + spikes
        return spikes

    def multi_step_forward(self, x_seq: Tensor) -> Tensor:
        return torch.stack([self.single_step_forward(x) for x in x_seq])


def test_ann2snn_neurons() -> None:
    seen: list[NeuronSite] = []

    class Ternary(NeuronMaker):
        name = "ternary"

        def make(self, site: NeuronSite) -> nn.Module:
            seen.append(site)
            return TernaryNeuron()

    ann, x = network(), images()
    converter = converter_with("ann2snn_neurons", Ternary, neuron="Ternary")
    converter.dataloader = [x]
    snn = converter(ann)
    assert [(site.name, site.shape, site.dtype) for site in seen] == [("1", (6,), torch.float32)]
    assert seen[0].scale.item() == pytest.approx(torch.relu(ann[0](x)).max().item())
    assert [type(module) for module in snn.modules()].count(TernaryNeuron) == 1
    assert converter.report["1"].becomes == "ternary neuron"
    assert converter.report.neuron == "ternary"
    torch.testing.assert_close(simulate(snn, x, T=500), ann(x).detach(), rtol=0, atol=0.02)


def test_a_neuron_maker_may_be_given_as_an_instance() -> None:
    class Ready(NeuronMaker):
        name = "ready"

        def make(self, site: NeuronSite) -> nn.Module:
            return make_if_neuron(initial_potential=0.25)

    converter = Converter([images()], neuron=Ready(), progress=False)
    snn = converter(network())
    (potential,) = [module.v for module in snn.modules() if hasattr(module, "v_threshold")]
    assert potential == 0.25


# ann2snn_exit_rules --------------------------------------------------------------------------------


def test_ann2snn_exit_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    class AtOnce(ExitRule):
        name = "at-once"

        def settled(self, answers: Tensor, step: int) -> Tensor:
            return torch.ones(len(answers), dtype=torch.bool)

    registry = discovery.load_plugins().copy()
    validation.register_plugin(registry, plugin("ann2snn_exit_rules", AtOnce), Owner("fast", "1.0"))
    monkeypatch.setattr(evaluation, "load_plugins", lambda: registry)
    x = images()
    snn = Converter([x], mode="max", progress=False)(network())
    batches = [(x, torch.zeros(len(x), dtype=torch.int64))]
    assert evaluate(snn, batches, T=20, early_exit="At-once", progress=False).steps_per_sample == 1
    with pytest.raises(OptionError, match=r"early_exit='at-one' .*Known exit rules: 'at-once' \(fast 1.0\), 'margin'"):
        evaluate(snn, batches, T=20, early_exit="at-one", progress=False)


# ann2snn_corrections ------------------------------------------------------------------------------


def test_ann2snn_corrections() -> None:
    class Doubling(Correction):
        name = "doubling"

        def __init__(self, *, factor: float = 2.0) -> None:
            self.factor = factor

        def correct(self, trial: Trial) -> None:
            for site in trial.sites:
                trial.adjust(site.name, scale=self.factor * site.scale)

    def scale(**arguments: Any) -> float:
        converter = converter_with("ann2snn_corrections", Doubling, **arguments)
        converter(ann)
        found = converter.report["1"].scale
        assert found is not None
        return found[0]

    ann = network()
    torch.manual_seed(0)
    plain = scale()
    for corrections, options, factor in (
        ("Doubling", {}, 2),
        (["doubling"] * 2, {}, 4),
        ("doubling", {"factor": 3}, 3),
    ):
        torch.manual_seed(0)
        assert scale(corrections=corrections, **options) == pytest.approx(factor * plain)
    with pytest.raises(
        OptionError, match=r"corrections='dubling' .*Known corrections: 'doubling' \(your own argument\)"
    ):
        scale(corrections="dubling")
    with pytest.raises(OptionError, match="unknown keyword factor"):
        scale(factor=3)


# ann2snn_readouts ----------------------------------------------------------------------------------


def test_ann2snn_readouts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Peak(Readout):
        name = "peak"

        def answers(self, outputs: Tensor, state: Any, done: int) -> tuple[Tensor, Any]:
            peaks = outputs.cummax(0).values
            peaks = peaks if state is None else peaks.maximum(state)
            return peaks, peaks[-1]

    registry = discovery.load_plugins().copy()
    validation.register_plugin(registry, plugin("ann2snn_readouts", Peak), Owner("peaks", "1.0"))
    monkeypatch.setattr(decoding, "load_plugins", lambda: registry)
    x = images()
    snn = Converter([x], mode="max", progress=False)(network())
    wanted = run_by_hand(snn, x, 20)
    torch.testing.assert_close(simulate(snn, x, T=20, readout="Peak"), wanted.amax(0))
    batches = [(x, wanted.amax(0).argmax(1))]
    assert evaluate(snn, batches, T=20, readout="peak", progress=False).accuracy[-1] == 1
    with pytest.raises(OptionError, match=r"readout='peek' is not known.*Known readouts: .*'peak' \(peaks 1\.0\)"):
        simulate(snn, x, T=20, readout="peek")


# ann2snn_exporters ---------------------------------------------------------------------------------


def test_ann2snn_exporters(tmp_path: Path) -> None:
    class Names(Exporter):
        name = "names"
        suffixes = (".names",)

        def __init__(self, *, separator: str = " ") -> None:
            self.separator = separator

        def export(self, network: NetworkDescription, path: Path) -> None:
            path.write_text(self.separator.join(node.operation for node in network.nodes if node.kind == "layer"))

    registry = discovery.load_plugins().copy()
    validation.register_plugin(registry, plugin("ann2snn_exporters", Names), Owner("texts", "1.0"))
    snn = Converter([images()], progress=False)(network())
    with discovery.using(registry):
        export(snn, tmp_path / "a.names")
        export(snn, tmp_path / "b.txt", format="Names", separator=", ")
        with pytest.raises(
            OptionError,
            match=r"format='nams' is not known. Did you mean 'names'\? Known formats: .*'names' \(texts 1.0\)",
        ):
            export(snn, tmp_path / "c.names", format="nams")
    assert (tmp_path / "a.names").read_text() == "Linear IFNode Linear"
    assert (tmp_path / "b.txt").read_text() == "Linear, IFNode, Linear"
    assert not (tmp_path / "c.names").exists()
