"""Whatever method of a plugin fails: the message names layer, class, plugin, distribution and version."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import (
    Analog,
    Average,
    Converter,
    Correction,
    ExitRule,
    Exporter,
    InPlaceNeuron,
    InputError,
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
    Spike,
    Stateful,
    VerificationError,
    evaluate,
    export,
    load_network,
    simulate,
)
from sj_ann2snn.builtin.exporters import Archive
from sj_ann2snn.builtin.neurons import IFNeuron
from sj_ann2snn.hooks import discovery
from sj_ann2snn.hooks.registry import Owner
from sj_ann2snn.hooks.validation import register_plugin
from sj_ann2snn.support.blame import OWN, OWN_FAULT, WHAT_TO_DO

from ..helpers.plugins import plugin

DISTRIBUTION = "fragile-plugin 1.2"

TRIED = 22
"""The samples of six values with which a conversion tries a neuron."""


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def images() -> Tensor:
    return torch.rand(40, 4)


def fails(*_: Any, **__: Any) -> Any:
    raise KeyError("boom")


def breaking(cls: type, method: str) -> type:
    """`cls` with a method that fails."""
    return type(cls.__name__, (cls,), {method: fails})


# A sound class for every hook, each with the name "fragile" ----------------------------------------


class FragileObserver(Observer):
    def observe(self, x: Tensor) -> None: ...

    def merge(self, other: Any) -> None: ...

    def scale(self) -> Tensor:
        return torch.tensor(1.0)


class FragileMode(Normalization):
    name = "fragile"
    makes: type[Observer] = FragileObserver

    def observer(self, site: Any) -> Observer:
        return self.makes(site)


class FragileLayer(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / 2


class FragileNeuron(InPlaceNeuron):
    def step(self, x: Tensor, out: Tensor) -> None:
        assert self.v is not None
        self.v += x
        torch.ge(self.v, 1.0, out=out)
        self.v -= out


class FragileMemory(FragileNeuron):
    pass


class FragileMapper(LayerMapper):
    name = "fragile"
    claims = (FragileLayer,)
    replacement: Replacement = Average()

    def map(self, site: Site) -> Replacement:
        return self.replacement


class FragileMaker(NeuronMaker):
    name = "fragile"
    makes: type[nn.Module] = FragileNeuron

    def make(self, site: NeuronSite) -> nn.Module:
        return self.makes()


class FragileCorrection(Correction):
    name = "fragile"

    def correct(self, trial: Any) -> None: ...


class FragileRule(ExitRule):
    name = "fragile"

    def settled(self, answers: Tensor, step: int) -> Tensor:
        return torch.zeros(len(answers), dtype=torch.bool)


class FragileReadout(Readout):
    name = "fragile"

    def answers(self, outputs: Tensor, state: Any, done: int) -> tuple[Tensor, Any]:
        return outputs, None


class FragileExporter(Exporter):
    name = "fragile"

    def export(self, network: NetworkDescription, path: Path) -> None:
        path.write_text("nothing")

    def load(self, path: Path) -> NetworkDescription:
        raise NotImplementedError


# What runs every method ----------------------------------------------------------------------------


def convert(ann: nn.Module | None = None, **arguments: Any) -> nn.Module:
    return Converter([images()], progress=False, **arguments)(ann or network())


def converts_with_layer(**arguments: Any) -> Any:
    """The layer stands behind a neuron, and its mapper is asked about it."""
    ann = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), FragileLayer(), nn.Linear(6, 3))
    return simulate(convert(ann, **arguments), images(), T=4)


def evaluates(**arguments: Any) -> Any:
    return evaluate(convert(), [(images(), torch.zeros(40, dtype=torch.int64))], T=4, progress=False, **arguments)


class SlowlyFragile(FragileNeuron):
    """Fails in a simulation only."""

    def step(self, x: Tensor, out: Tensor) -> None:
        if len(x) != TRIED:
            fails()
        super().step(x, out)


def simulates_the_neuron(**arguments: Any) -> Any:
    snn = convert(**arguments)
    return simulate(snn, images(), T=4)


def two_sided() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.LeakyReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))


class Runs(FragileCorrection):
    """Runs the network on trial."""

    name = "runs"

    def correct(self, trial: Any) -> None:
        trial.run(trial.inputs(), 4)


def writes(**arguments: Any) -> Any:
    return export(convert(**arguments), "network.zip", format="archive")


def memory(make: Any, analog: bool = False) -> type:
    replacement = Analog(make, "fragile") if analog else Stateful(make, "fragile")
    return type("FragileMapper", (FragileMapper,), {"replacement": replacement})


def neuron(cls: type[nn.Module]) -> type:
    return type("FragileMaker", (FragileMaker,), {"makes": cls})


def observer(method: str) -> type:
    return type("FragileMode", (FragileMode,), {"makes": breaking(FragileObserver, method)})


class Objecting(Average):
    objection = fails


CASES: dict[str, tuple[type, Callable[[], Any], str, str]] = {
    # The class, what runs it, the layer and the class that are named.
    "mode.observer": (breaking(FragileMode, "observer"), lambda: convert(mode="fragile"), "1", "FragileMode.observer"),
    "observer.init": (observer("__init__"), lambda: convert(mode="fragile"), "1", "FragileMode.observer"),
    "observer.observe": (observer("observe"), lambda: convert(mode="fragile"), "1", "FragileObserver.observe"),
    "observer.end_pass": (observer("end_pass"), lambda: convert(mode="fragile"), "1", "FragileObserver.end_pass"),
    "observer.scale": (observer("scale"), lambda: convert(mode="fragile"), "1", "FragileObserver.scale"),
    "mapper.init": (breaking(FragileMapper, "__init__"), converts_with_layer, "", "FragileMapper.__init__"),
    "mapper.map": (breaking(FragileMapper, "map"), converts_with_layer, "2 (FragileLayer)", "FragileMapper.map"),
    "mapper.objection": (
        type("FragileMapper", (FragileMapper,), {"replacement": Objecting()}),
        converts_with_layer,
        "2 (FragileLayer)",
        "Objecting.objection",
    ),
    "mapper.make": (memory(fails), converts_with_layer, "2 (FragileLayer)", "Stateful.module_with_memory"),
    "mapper.analog": (memory(fails, analog=True), converts_with_layer, "2 (FragileLayer)", "Analog.module_with_memory"),
    "mapper.memory": (
        memory(lambda: breaking(FragileMemory, "step")()),
        converts_with_layer,
        "the layer 2",
        "FragileMemory.fire",
    ),
    "maker.init": (breaking(FragileMaker, "__init__"), lambda: convert(neuron="fragile"), "", "FragileMaker.__init__"),
    "maker.unit": (breaking(FragileMaker, "unit"), lambda: convert(neuron="fragile"), "", "FragileMaker.unit"),
    "maker.make": (breaking(FragileMaker, "make"), lambda: convert(neuron="fragile"), "1", "FragileMaker.make"),
    "neuron.step": (
        neuron(breaking(FragileNeuron, "step")),
        lambda: convert(neuron="fragile"),
        "1",
        "FragileNeuron.forward",
    ),
    "neuron in a simulation": (
        neuron(SlowlyFragile),
        lambda: simulates_the_neuron(neuron="fragile"),
        "the layer 1",
        "SlowlyFragile.step",
    ),
    "neuron on trial": (
        neuron(SlowlyFragile),
        lambda: convert(neuron="fragile", corrections=Runs()),
        "1",
        "SlowlyFragile.forward",
    ),
    "neuron of both signs on trial": (
        neuron(SlowlyFragile),
        lambda: convert(two_sided(), neuron="fragile", corrections=Runs()),
        "1",
        "SlowlyFragile.forward",
    ),
    "correction.init": (
        breaking(FragileCorrection, "__init__"),
        lambda: convert(corrections="fragile"),
        "",
        "FragileCorrection.__init__",
    ),
    "correction.correct": (
        breaking(FragileCorrection, "correct"),
        lambda: convert(corrections="fragile"),
        "",
        "FragileCorrection.correct",
    ),
    "rule.init": (breaking(FragileRule, "__init__"), lambda: evaluates(early_exit="fragile"), "", "FragileRule"),
    "rule.settled": (breaking(FragileRule, "settled"), lambda: evaluates(early_exit="fragile"), "", "FragileRule"),
    "readout.init": (breaking(FragileReadout, "__init__"), lambda: evaluates(readout="fragile"), "", "FragileReadout"),
    "readout.check": (breaking(FragileReadout, "check"), lambda: evaluates(readout="fragile"), "", "FragileReadout"),
    "readout.answers": (
        breaking(FragileReadout, "answers"),
        lambda: evaluates(readout="fragile"),
        "",
        "FragileReadout",
    ),
    "readout.last_answer": (
        breaking(FragileReadout, "last_answer"),
        lambda: simulate(convert(), images(), T=4, readout="fragile"),
        "",
        "FragileReadout.last_answer",
    ),
    "readout.divisor": (
        breaking(FragileReadout, "divisor"),
        lambda: simulate(convert(), images(), T=4, readout="fragile"),
        "",
        "FragileReadout.divisor",
    ),
    "exporter.init": (
        breaking(FragileExporter, "__init__"),
        lambda: export(convert(), "x", format="fragile"),
        "",
        "FragileExporter.__init__",
    ),
    "exporter.export": (
        breaking(FragileExporter, "export"),
        lambda: export(convert(), "x", format="fragile"),
        "",
        "FragileExporter.export",
    ),
    "exporter.load": (
        breaking(FragileExporter, "load"),
        lambda: load_network("x", format="fragile"),
        "",
        "FragileExporter.load",
    ),
    "neuron.export_options": (
        type(
            "FragileMaker",
            (FragileMaker,),
            {
                "makes": (exported := breaking(FragileNeuron, "export_options")),
                "exports": (exported,),
            },
        ),
        lambda: writes(neuron="fragile"),
        "The layer 1 ",
        "FragileNeuron.export_options",
    ),
}

HOOKS = {
    Normalization: "ann2snn_normalizations",
    LayerMapper: "ann2snn_layer_mappers",
    NeuronMaker: "ann2snn_neurons",
    Correction: "ann2snn_corrections",
    ExitRule: "ann2snn_exit_rules",
    Readout: "ann2snn_readouts",
    Exporter: "ann2snn_exporters",
}


@contextmanager
def installed(cls: type, owner: Owner) -> Iterator[None]:
    hook = next(hook for base, hook in HOOKS.items() if issubclass(cls, base))
    registry = discovery.load_plugins().copy()
    register_plugin(registry, plugin(hook, cls), owner)
    with discovery.using(registry):
        yield


def test_every_hook_is_in_the_table() -> None:
    assert all(any(issubclass(cls, base) for cls, *_ in CASES.values()) for base in HOOKS)


@pytest.mark.parametrize("case", CASES)
def test_a_failure_names_layer_class_plugin_distribution_and_version(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cls, run, layer, where = CASES[case]
    with installed(cls, Owner(*DISTRIBUTION.split())), pytest.raises(PluginError) as caught:
        run()
    message = str(caught.value)
    assert f"'fragile' ({DISTRIBUTION})" in message
    assert layer in message
    assert where in message
    assert "failed with KeyError: 'boom'" in message
    assert message.count(WHAT_TO_DO) == 1
    assert ".." not in message


@pytest.mark.parametrize("case", CASES)
def test_a_failure_of_the_callers_own_object_is_no_case_for_the_maintainers(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cls, run, _, where = CASES[case]
    with installed(cls, Owner(OWN)), pytest.raises(PluginError) as caught:
        run()
    message = str(caught.value)
    assert f"({OWN})" in message
    assert where in message
    assert "maintainers" not in message
    assert OWN_FAULT in message


def test_an_observer_without_a_site_is_not_the_datas_fault() -> None:
    class Forgetful(FragileObserver):
        def __init__(self, site: Any) -> None:
            self.largest = 0.0

    class Mode(FragileMode):
        makes = Forgetful

    with pytest.raises(
        PluginError, match=r"Mode 'fragile' \(your own argument\).*1.*Forgetful.*super\(\).__init__\(site\)"
    ):
        convert(mode=Mode())


@pytest.mark.parametrize("threads", [1, 2])
def test_a_neuron_that_fails_in_a_copy_or_a_thread_is_named(threads: int) -> None:
    class Late(FragileNeuron):
        armed = False

        def step(self, x: Tensor, out: Tensor) -> None:
            if Late.armed:
                fails()
            super().step(x, out)

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        snn = convert(neuron=neuron(Late)())
        Late.armed = True
        with pytest.raises(PluginError, match=r"Neuron 'fragile' .*the layer 1, .*KeyError: 'boom' \(in Late.step\)"):
            simulate(snn, torch.rand(5000, 4), T=50)
        with pytest.raises(PluginError, match=r"Neuron 'fragile' .*the layer 1, "):
            evaluate(snn, [(torch.rand(9, 4), torch.zeros(9, dtype=torch.int64))], T=4, progress=False)
    finally:
        torch.set_num_threads(before)


def test_a_layer_of_the_ann_is_named_when_the_input_does_not_fit() -> None:
    snn = convert(neuron=neuron(FragileNeuron)())
    with pytest.raises(InputError, match=r"cannot take a tensor of shape \(5, 9\).*\(in the layer 0, Linear\)"):
        simulate(snn, torch.rand(5, 9), T=4)


def test_a_network_run_step_by_step_names_the_plugin() -> None:
    """`convert_only` leaves a network that is no graph."""

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) if len(x) else x

    snn = convert(Outer(), neuron=neuron(SlowlyFragile)(), convert_only="inner")
    with pytest.raises(PluginError, match=r"Neuron 'fragile' .* made the layer inner.1, .*KeyError"):
        simulate(snn, images(), T=4)


def test_a_loaded_network_knows_who_made_its_layers(tmp_path: Path) -> None:
    class Stored(SlowlyFragile):
        def export_options(self) -> dict[str, Any]:
            return {}

    maker = type("Maker", (FragileMaker,), {"makes": Stored, "exports": (Stored,)})
    with installed(maker, Owner(*DISTRIBUTION.split())):
        export(convert(neuron="fragile"), tmp_path / "network.zip")
        loaded = load_network(tmp_path / "network.zip")
    with pytest.raises(PluginError, match=r"Neuron 'fragile' \(fragile-plugin 1.2\), which made the layer 1, "):
        simulate(loaded, images(), T=4)


def test_a_failed_verification_names_the_mappers_of_plugins() -> None:
    """`Average` promises that the layer is linear and keeps channels apart."""

    class Mixing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flip(1) + 1

    mapper = type("Maps", (FragileMapper,), {"claims": (Mixing,)})
    ann = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), Mixing(), nn.Linear(6, 3))
    with (
        installed(mapper, Owner(*DISTRIBUTION.split())),
        pytest.raises(VerificationError, match=r"in use: Mapper 'fragile' \(fragile-plugin 1.2\) for 2\."),
    ):
        convert(ann, channel_wise=True)
    with pytest.raises(VerificationError) as caught:
        convert(hooked())
    assert "Mappers of plugins" not in str(caught.value)


def hooked() -> nn.Module:
    ann = network()
    ann[0].register_forward_hook(lambda module, args, out: out + 1)
    return ann


def test_builtin_layers_carry_no_note() -> None:
    snn = convert(neuron=IFNeuron())
    assert set(snn.meta) <= {"ann2snn_makers", "ann2snn_conversion"}
    assert "ann2snn_makers" not in convert().meta
    assert Archive.name == "archive"


def test_a_spike_from_a_plugin_is_the_neurons() -> None:
    """The mapper only says that a neuron goes there; the built-in neuron is nobody's fault."""
    mapper = type("Maps", (FragileMapper,), {"replacement": Spike()})
    with installed(mapper, Owner(*DISTRIBUTION.split())):
        ann = nn.Sequential(nn.Linear(4, 6), FragileLayer(), nn.Linear(6, 3))
        snn = Converter([images()], progress=False, verify=False)(ann)
    assert "ann2snn_makers" not in snn.meta
