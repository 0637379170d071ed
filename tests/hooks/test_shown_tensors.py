"""What plugins are shown belongs to others: code that writes to it is found out and named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import (
    CalibrationSite,
    Converter,
    Correction,
    CorrectionError,
    ExitRule,
    Exporter,
    InPlaceNeuron,
    LayerMapper,
    NetworkDescription,
    NeuronMaker,
    NeuronSite,
    Normalization,
    Observer,
    PluginError,
    Readout,
    Replacement,
    Site,
    Stateful,
    evaluate,
    export,
    simulate,
)
from sj_ann2snn.builtin.neurons import IFNeuron
from sj_ann2snn.support.untouched import Untouched

WAYS: dict[str, Callable[[Tensor], object]] = {
    "in place": lambda x: x.mul_(0.5),
    "a view": lambda x: x[:1].zero_(),
    "detached": lambda x: x.detach().flatten()[0].add_(1),
    "data": lambda x: x.data.clamp_(max=0.1),
    "numpy": lambda x: x.numpy().__setitem__(0, 7.0),
    "numpy sorts": lambda x: x.numpy().sort(0),
    "out": lambda x: torch.sqrt(x, out=x),
}

ways = pytest.mark.parametrize("way", WAYS)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))


def images() -> Tensor:
    return torch.rand(40, 4)


def convert(**arguments: Any) -> nn.Module:
    return Converter([images()], progress=False, **arguments)(network())


@ways
def test_a_write_is_noticed(way: str) -> None:
    x = torch.rand(8, 3)
    before = Untouched([x], exact=True)
    assert not before.changed()
    WAYS[way](x)
    assert before.changed()


def test_reading_is_allowed() -> None:
    x = torch.tensor([1.0, float("nan"), float("inf")])
    before = Untouched([x, torch.zeros(0), torch.ones(2, dtype=torch.bool), torch.ones(2, dtype=torch.complex64)])
    x.sort()
    x.add(1)
    assert not before.changed()


def mode(observe: Callable[[Tensor], Any]) -> Normalization:
    class Watcher(Observer):
        largest = 0.0

        def observe(self, x: Tensor) -> Any:
            self.largest = max(self.largest, float(x.max()))
            return observe(x)

        def merge(self, other: Any) -> None: ...

        def scale(self) -> Tensor:
            return torch.tensor(self.largest)

    class Mode(Normalization):
        name = "writer"

        def observer(self, site: CalibrationSite) -> Observer:
            return Watcher(site)

    return Mode()


@ways
def test_an_observer_that_writes_is_refused(way: str) -> None:
    def observe(x: Tensor) -> None:
        WAYS[way](x)

    with pytest.raises(
        PluginError,
        match=r"Mode 'writer' \(your own argument\), observing 1, writes to the activations .* in Watcher\.observe",
    ):
        convert(mode=mode(observe))


@pytest.mark.parametrize("way", ["in place", "data", "numpy"])
def test_an_observer_that_writes_to_later_batches_is_refused(way: str) -> None:
    seen: list[int] = []

    def observe(x: Tensor) -> None:
        seen.append(len(x))
        if len(seen) > 4:  # from the third batch on, for two layers
            WAYS[way](x)

    with pytest.raises(PluginError, match="observing 1, writes to the activations"):
        Converter([images()] * 4, mode=mode(observe), progress=False)(network())


def test_an_observer_may_return_another_tensor() -> None:
    convert(mode=mode(lambda x: x / 2))


def correction(correct: Callable[[Any], None]) -> Correction:
    class Writer(Correction):
        name = "writer"

        def correct(self, trial: Any) -> None:
            correct(trial)

    return Writer()


@ways
def test_a_correction_that_writes_to_the_inputs_is_refused(way: str) -> None:
    with pytest.raises(
        PluginError, match=r"Correction 'writer' \(your own argument\) writes to the calibration inputs"
    ):
        convert(corrections=correction(lambda trial: WAYS[way](trial.inputs())))


def test_a_correction_that_writes_to_the_currents_is_refused() -> None:
    def correct(trial: Any) -> None:
        trial.run(trial.inputs(), 4, lambda site, x: x.relu_() if site.name == "3" else x.relu())

    with pytest.raises(
        PluginError, match=r"Correction 'writer' \(your own argument\), .* writes to the currents of 3,"
    ):
        convert(corrections=correction(correct))


@pytest.mark.parametrize(
    ("adjust", "told"),
    [
        (lambda site: site.scale.zero_(), r"the scale of 1; they must be finite and positive"),
        (lambda site: site.bias.fill_(float("nan")), r"the bias of 1; they must be finite"),
        (lambda site: site.initial_potential.fill_(float("inf")), r"the initial potential of 1; they must be finite"),
    ],
)
def test_adjustments_past_adjust_are_checked(adjust: Any, told: str) -> None:
    with pytest.raises(CorrectionError, match=rf"Correction 'writer' \(your own argument\) left .*{told}"):
        convert(corrections=correction(lambda trial: adjust(trial.sites[0])))


class WritesUnit(IFNeuron):
    name = "writer"

    def unit(self, scale: Tensor) -> Tensor:
        return scale.mul_(2)


class WritesScale(IFNeuron):
    name = "writer"

    def make(self, site: NeuronSite) -> nn.Module:
        site.scale.numpy()[...] = 3.0
        return super().make(site)


class Overwrites(InPlaceNeuron):
    def step(self, x: Tensor, out: Tensor) -> None:
        assert self.v is not None
        self.v += x
        torch.ge(self.v, 1.0, out=out)
        self.v -= out
        x.fill_(0.0)


class WritesCurrents(NeuronMaker):
    name = "writer"

    def make(self, site: NeuronSite) -> nn.Module:
        return Overwrites()


@pytest.mark.parametrize(
    ("maker", "told"),
    [
        (WritesUnit, "changed λ in WritesUnit.unit"),
        (WritesScale, "asked for 1, changed λ in WritesScale.make"),
        (WritesCurrents, "made a Overwrites for 1 that writes to the currents"),
    ],
)
def test_a_neuron_that_writes_is_refused(maker: type[NeuronMaker], told: str) -> None:
    with pytest.raises(PluginError, match=rf"Neuron 'writer' \(your own argument\).*{told}"):
        convert(neuron=maker())


def test_a_scale_that_its_observer_changes_later_stays() -> None:
    scale = torch.tensor(2.0)

    class Keeps(Observer):
        def observe(self, x: Tensor) -> None: ...

        def merge(self, other: Any) -> None: ...

        def scale(self) -> Tensor:
            return scale.add_(1)

    class Mode(Normalization):
        name = "keeps"

        def observer(self, site: CalibrationSite) -> Observer:
            return Keeps(site)

    converter = Converter([images()], mode=Mode(), progress=False)
    converter(network())
    assert converter.report.scales == {"1": (3.0, 3.0), "3": (4.0, 4.0)}


def test_a_module_that_edits_the_operation_it_replaces_is_found_out() -> None:
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.tensor(0.5))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.factor

    class Edits(Stateful):
        def module_with_memory(self, operation: Any, sequences: tuple[int, ...]) -> nn.Module:
            operation.factor.data.fill_(2.0)
            return Overwrites()

    class Mapper(LayerMapper):
        name = "writer"
        claims = (Halves,)

        def map(self, site: Site) -> Replacement:
            return Edits(Overwrites, "edits")

    ann = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), Halves(), nn.Linear(6, 3))
    with pytest.raises(PluginError, match=r"Mapper 'writer' .* 2 \(Halves\), changed factor of its module"):
        Converter([images()], mappers={"2": Mapper()}, progress=False)(ann)


@ways
@pytest.mark.parametrize("method", ["answers", "last_answer"])
def test_a_readout_that_writes_is_refused(way: str, method: str) -> None:
    class Writer(Readout):
        name = "writer"

        def answers(self, outputs: Tensor, state: Any, done: int) -> tuple[Tensor, Any]:
            WAYS[way](outputs)
            return outputs.clone(), None

        def last_answer(self, outputs: Tensor, state: Any, done: int) -> tuple[Tensor, Any]:
            WAYS[way](outputs)
            return outputs[-1].clone(), None

    snn, x = convert(), images()
    run = {
        "answers": lambda: evaluate(
            snn, [(x, torch.zeros(40, dtype=torch.int64))], T=9, readout=Writer(), progress=False
        ),
        "last_answer": lambda: simulate(snn, x, T=9, readout=Writer()),
    }
    with pytest.raises(PluginError, match=rf"Readout 'writer' \(your own argument\), .*writes .* Writer\.{method};"):
        run[method]()


@pytest.mark.parametrize("way", ["in place", "data", "numpy"])
def test_an_exit_rule_that_writes_is_refused(way: str) -> None:
    class Writer(ExitRule):
        name = "writer"

        def settled(self, answers: Tensor, step: int) -> Tensor:
            WAYS[way](answers)
            return torch.zeros(len(answers), dtype=torch.bool)

    with pytest.raises(
        PluginError, match=r"Exit rule 'writer' \(your own argument\), asked at step \d, writes to the answers"
    ):
        evaluate(convert(), [(images(), torch.zeros(40, dtype=torch.int64))], T=4, early_exit=Writer(), progress=False)


@pytest.mark.parametrize("way", ["in place", "data", "numpy"])
def test_an_exporter_that_writes_to_the_description_is_refused(way: str, tmp_path: Path) -> None:
    class Writer(Exporter):
        name = "writer"

        def export(self, network: NetworkDescription, path: Path) -> None:
            tensor = next(value for node in network.nodes for value in node.tensors.values())
            WAYS[way](tensor)

    snn = convert()
    before = {name: value.clone() for name, value in snn.state_dict().items()}
    with pytest.raises(PluginError, match=r"Format 'writer' \(your own argument\), .* in Writer\.export"):
        export(snn, tmp_path / "x", format=Writer())
    assert all(torch.equal(value, before[name]) for name, value in snn.state_dict().items())
