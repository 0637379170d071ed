"""Plugins that the caller passes, names that are reserved, and what messages say to write instead."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sj_ann2snn
from sj_ann2snn import (
    ConflictError,
    Converter,
    Correction,
    ExitRule,
    InPlaceNeuron,
    LayerMapper,
    Max,
    NeuronMaker,
    OptionError,
    Percentile,
    PluginError,
    PluginWarning,
    Readout,
    ScaleError,
    Spike,
    evaluate,
    export,
    hookimpl,
    load_network,
    simulate,
)
from sj_ann2snn.builtin.activation_mappers import ReLUMapper
from sj_ann2snn.builtin.exporters import Archive
from sj_ann2snn.builtin.neurons import IFNeuron
from sj_ann2snn.hooks import kinds
from sj_ann2snn.hooks.class_checks import CONVERTER_KEYWORDS

from ..helpers.installed import Installed
from ..helpers.plugins import plugin
from .test_every_hook import mode_with_scale


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def images() -> Tensor:
    return torch.rand(40, 4)


# plugins= ------------------------------------------------------------------------------------------


class Fires(InPlaceNeuron):
    def step(self, x: Tensor, out: Tensor) -> None:
        assert self.v is not None
        self.v += x
        torch.ge(self.v, 1.0, out=out)
        self.v -= out

    def export_options(self) -> dict[str, Any]:
        return {}


class FiresMaker(NeuronMaker):
    name = "fires"
    exports = (Fires,)

    def make(self, site: Any) -> nn.Module:
        return Fires()


class Last(Readout):
    name = "very-last"

    def answers(self, outputs: Tensor, state: Any, done: int) -> tuple[Tensor, Any]:
        return outputs, None


class AtOnce(ExitRule):
    name = "at-once"

    def settled(self, answers: Tensor, step: int) -> Tensor:
        return torch.ones(len(answers), dtype=torch.bool)


class Mine(Archive):
    name = "mine"
    suffixes = (".mine",)


OFFERED = SimpleNamespace(
    ann2snn_neurons=hookimpl(lambda: [FiresMaker]),
    ann2snn_readouts=hookimpl(lambda: [Last]),
    ann2snn_exit_rules=hookimpl(lambda: [AtOnce]),
    ann2snn_exporters=hookimpl(lambda: [Mine]),
)


def test_every_function_that_takes_names_takes_plugins(tmp_path: Path) -> None:
    x = images()
    snn = Converter([x], neuron="fires", plugins=[OFFERED], progress=False)(network())
    answer = simulate(snn, x, T=9, readout="very-last", plugins=[OFFERED])
    assert torch.equal(answer, simulate(snn, x, T=9, readout=Last()))
    batches = [(x, torch.zeros(40, dtype=torch.int64))]
    result = evaluate(snn, batches, T=9, readout="very-last", early_exit="at-once", plugins=[OFFERED], progress=False)
    assert result.steps_per_sample == 1
    for format in ("mine", None):
        export(snn, tmp_path / "network.mine", format=format, plugins=[OFFERED], compress=True)
        loaded = load_network(tmp_path / "network.mine", format=format, plugins=[OFFERED])
        assert torch.equal(simulate(loaded, x, T=9), simulate(snn, x, T=9))
    with pytest.raises(OptionError, match="readout='very-last' is not known"):
        simulate(snn, x, T=9, readout="very-last")


FUNCTIONS = {
    "Converter": lambda given: Converter(plugins=given),
    "simulate": lambda given: simulate(network(), images(), T=2, plugins=given),
    "evaluate": lambda given: evaluate(network(), [], T=2, plugins=given, progress=False),
    "export": lambda given: export(network(), "x.zip", plugins=given),
    "load_network": lambda given: load_network("x.zip", plugins=given),
}
everywhere = pytest.mark.parametrize("function", FUNCTIONS)


@everywhere
@pytest.mark.parametrize(
    ("given", "hook", "shown"),
    [
        (Max, "ann2snn_normalizations", "the class Max, a Normalization"),
        (Percentile(99.0), "ann2snn_normalizations", "an instance of Percentile, a Normalization"),
        (FiresMaker, "ann2snn_neurons", "the class FiresMaker, a NeuronMaker"),
        (Last(), "ann2snn_readouts", "an instance of Last, a Readout"),
    ],
)
def test_a_class_in_place_of_a_plugin_is_told_what_to_write(function: str, given: Any, hook: str, shown: str) -> None:
    name = given.__name__ if isinstance(given, type) else type(given).__name__
    with pytest.raises(PluginError, match=rf"plugins\[1\] cannot be used: it is {shown}") as caught:
        FUNCTIONS[function]([OFFERED, given])
    written = f"types.SimpleNamespace({hook}=sj_ann2snn.hookimpl(lambda: [{name}]))"
    assert written in str(caught.value)
    made = eval(written, {"types": __import__("types"), "sj_ann2snn": sj_ann2snn, name: given})
    if isinstance(given, type):
        Converter(plugins=[made])


@everywhere
@pytest.mark.parametrize("given", ["my_plugin", OFFERED, 3, None])
def test_plugins_is_a_list(function: str, given: Any) -> None:
    with pytest.raises(OptionError, match=r"plugins=.* is not allowed: give a list of plugins"):
        FUNCTIONS[function](given)


def fails() -> Any:
    raise ZeroDivisionError("in the hook")


@everywhere
def test_a_hook_that_fails_names_the_plugin(function: str) -> None:
    with pytest.raises(PluginError, match=r"plugins\[0\] cannot be used: ZeroDivisionError: in the hook\."):
        FUNCTIONS[function]([SimpleNamespace(ann2snn_readouts=hookimpl(fails))])


# Reserved names ------------------------------------------------------------------------------------


def test_the_reserved_names_are_the_converters_own() -> None:
    own = set(inspect.signature(Converter).parameters) - {"T", "options"}
    assert set(CONVERTER_KEYWORDS) == own
    for function in (export, load_network):
        keywords = set(inspect.signature(function).parameters) - {"options"}
        assert keywords <= set(kinds.EXPORTERS.reserved)


BASES: dict[str, type] = {
    "ann2snn_normalizations": Max,
    "ann2snn_layer_mappers": ReLUMapper,
    "ann2snn_neurons": IFNeuron,
    "ann2snn_corrections": type("Nothing", (Correction,), {"name": "nothing", "correct": lambda self, trial: None}),
}


def with_option(base: type, option: str) -> type:
    made: dict[str, Any] = {}
    exec(f"def __init__(self, *, {option}=None): ...", {}, made)
    return type("Optioned", (base,), {"name": "optioned", **made})


@pytest.mark.parametrize("hook", BASES)
@pytest.mark.parametrize("option", CONVERTER_KEYWORDS)
def test_an_option_that_would_never_arrive_is_refused(hook: str, option: str) -> None:
    with pytest.raises(
        PluginError, match=rf"Optioned\(\) has the option {option}, which Converter keeps .*reserved are dataloader, "
    ):
        Converter(plugins=[plugin(hook, with_option(BASES[hook], option))])


@pytest.mark.parametrize("hook", BASES)
def test_an_option_t_arrives(hook: str) -> None:
    Converter(plugins=[plugin(hook, with_option(BASES[hook], "T"))], T=4)


@pytest.mark.parametrize("option", ["snn", "path", "format", "plugins"])
def test_an_option_of_a_format_that_would_never_arrive_is_refused(option: str) -> None:
    with pytest.raises(PluginError, match=rf"has the option {option}, which export keeps for itself"):
        load_network("x", plugins=[plugin("ann2snn_exporters", with_option(Archive, option))])


def test_readouts_may_have_any_option() -> None:
    """They are given to the class itself."""
    Converter(plugins=[plugin("ann2snn_readouts", with_option(Last, "device"))])


def test_an_installed_class_with_a_reserved_option_is_reported(installed: Installed) -> None:
    source = """
from sj_ann2snn import Max, hookimpl

class Mode(Max):
    name = "mode"
    def __init__(self, *, device="cpu"): ...

@hookimpl
def ann2snn_normalizations():
    return [Mode]
"""
    installed.add("reserved-modes", source, version="0.4")
    with pytest.warns(PluginWarning, match=r"reserved-modes 0\.4 .*has the option device") as caught:
        Converter()
    assert ".." not in str(caught[0].message)


# What messages say ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ("1", r"ANN2SNN_API is the text '1'; it must be the number 1"),
        (1.5, r"ANN2SNN_API is 1\.5; it must be the number 1"),
        (None, r"ANN2SNN_API is None"),
        (True, r"ANN2SNN_API is True"),
    ],
)
def test_an_api_version_that_is_no_number(wanted: Any, told: str) -> None:
    offered = SimpleNamespace(ANN2SNN_API=wanted, ann2snn_readouts=hookimpl(lambda: [Last]))
    with pytest.raises(PluginError, match=told):
        Converter(plugins=[offered])


@pytest.mark.parametrize("marked", [True, False])
def test_a_misspelt_hook_is_told_the_hook_that_is_meant(marked: bool) -> None:
    hook = hookimpl(lambda: []) if marked else (lambda: [])
    with pytest.raises(PluginError, match=r"Did you mean 'ann2snn_normalizations'\? Hooks: ann2snn_norm"):
        Converter(plugins=[SimpleNamespace(ann2snn_normalisations=hook)])


def test_a_conflict_with_a_builtin_says_how_a_plugin_replaces_it(installed: Installed) -> None:
    installed.add_mode("alpha-modes", "max")
    with pytest.raises(ConflictError, match=r"A plugin takes the place .*: replaces = \('max',\) in Mode\."):
        Converter(mode="max")
    with pytest.raises(ConflictError, match=r"prefer names 'alpha-mode', which is none .*Did you mean 'alpha-modes'\?"):
        Converter(mode="max", prefer="alpha-mode")


def test_a_scale_that_is_wrong_in_some_channels_names_them() -> None:
    value = torch.tensor([1.0, 1, float("nan"), 1, -2, 1])
    converter = Converter([images()], plugins=[plugin("ann2snn_normalizations", mode_with_scale(value))], mode="fixed")
    converter = Converter(
        [images()],
        plugins=[plugin("ann2snn_normalizations", mode_with_scale(value))],
        mode="fixed",
        channel_wise=True,
        progress=False,
    )
    with pytest.raises(ScaleError, match=r"for 1; .* It is nan for channel 2, -2 for channel 4, of 6 channels\."):
        converter(network())


def test_a_mapper_named_for_a_layer_that_it_does_not_claim() -> None:
    with pytest.raises(
        OptionError,
        match=r"mappers=\{'0': 'relu'\} is not allowed: 0 is Linear, which the mapper 'relu' does not claim",
    ):
        Converter([images()], mappers={"0": "relu"}, progress=False)(network())


def test_a_layer_that_no_mapper_claims_is_no_site() -> None:
    class Own(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x)

    class Elsewhere(LayerMapper):
        name = "elsewhere"
        claims = (nn.Identity, "relu_")

        def map(self, site: Any) -> Spike:
            return Spike()

    ann = nn.Sequential(nn.Linear(4, 6), Own(), nn.Linear(6, 3))
    with pytest.raises(OptionError, match=r"'1', which is not a site .*'elsewhere' claims Identity, relu_\."):
        Converter([images()], mappers={"1": Elsewhere()}, progress=False)(ann)


def test_the_report_reproduces_the_conversion() -> None:
    ann, x = nn.Sequential(nn.Conv1d(1, 3, 3), nn.ReLU(), nn.MaxPool1d(2)), torch.rand(20, 1, 9)
    options: dict[str, Any] = {"T": 8, "channel_wise": True, "initial_potential": 0.5, "maxpool": "momentum"}
    converter = Converter([x], mode="99.9%", progress=False, **options)
    converter(ann)
    assert converter.report.settings == options
    head = str(converter.report).splitlines()[0]
    assert all(f"{name}={value!r}" in head for name, value in options.items())
    assert json.loads(json.dumps(converter.report.as_dict()))["settings"] == options
    again = Converter([x], mode=converter.report.mode, progress=False, **converter.report.settings)
    again(ann)
    assert again.report == converter.report


def test_the_report_reads_the_options_off_an_instance() -> None:
    converter = Converter([images()], neuron=IFNeuron(initial_potential=0.25), progress=False)
    converter(network())
    assert converter.report.settings == {"channel_wise": False, "initial_potential": 0.25}
