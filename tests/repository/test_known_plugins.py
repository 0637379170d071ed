"""The table of plugins in the core, compared with the distributions under plugins/."""

from __future__ import annotations

import functools
import importlib
import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import (
    Converter,
    FormatError,
    ModeError,
    OptionError,
    UnsupportedError,
    evaluate,
    load_network,
    simulate,
)
from sj_ann2snn.hooks import discovery
from sj_ann2snn.hooks.kinds import EXPORTERS, LAYER_MAPPERS, MODES
from sj_ann2snn.hooks.known_plugins import KNOWN_PLUGINS, KnownPlugin, operation_key
from sj_ann2snn.hooks.registry import Owner, Registry
from sj_ann2snn.hooks.validation import register_plugin
from sj_ann2snn.interchange.modules import build_layer

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "plugins"
FOLDERS = sorted(path.parent for path in PLUGINS.glob("*/pyproject.toml"))

pytestmark = pytest.mark.skipif(not FOLDERS, reason="the plugin distributions come with the repository")


@pytest.fixture
def builtins_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(discovery.ALLOW_VARIABLE, "")


def contributed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> KnownPlugin:
    """What the table should say about a distribution."""
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    monkeypatch.syspath_prepend(str(folder))
    registry = Registry()
    for module in project["entry-points"]["sj_ann2snn"].values():
        plugin: ModuleType = importlib.import_module(module)
        register_plugin(registry, plugin, Owner(project["name"]))
    names: dict[str, tuple[str, ...]] = {}
    for hook, found in registry.classes.items():
        written = {one.name.lower() for one in found}
        if hook == MODES.hook:
            written |= {one.cls.example.lower() for one in found if one.cls.example}
        if written:
            names[hook] = tuple(sorted(written))
    mappers = registry.classes[LAYER_MAPPERS.hook]
    # torch.fx records these if indices are requested; the mapper claims them in order to refuse them.
    keys = {operation_key(claim) for one in mappers for claim in one.cls.claims}
    operations = frozenset(key for key in keys if not key.endswith("_with_indices"))
    lifts = next((one.lifts for one in KNOWN_PLUGINS if one.distribution == project["name"]), frozenset())
    assert lifts <= {name for one in mappers for name in one.cls.replaces}
    return KnownPlugin(project["name"], names, operations, lifts)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_table_says_what_the_plugin_provides(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = contributed(folder, monkeypatch)
    known = {one.distribution: one for one in KNOWN_PLUGINS}
    assert wanted.distribution in known, f"add to KNOWN_PLUGINS: {wanted!r}"
    found = known[wanted.distribution]
    assert {hook: tuple(sorted(names)) for hook, names in found.names.items()} == wanted.names
    assert found.operations == wanted.operations
    assert str(found).count(f"pip install . ./plugins/{folder.name}") == 1


def test_the_table_names_no_other_plugins() -> None:
    assert [one.distribution for one in KNOWN_PLUGINS] == [folder.name for folder in FOLDERS]


@pytest.mark.parametrize("one", KNOWN_PLUGINS, ids=lambda one: one.distribution)
def test_the_readme_installs_it_the_same_way(one: KnownPlugin) -> None:
    (command,) = re.findall(r"pip install [^)]*", str(one))
    assert f"`{command}`" in (ROOT / "README.md").read_text(encoding="utf-8")


def images() -> Tensor:
    return torch.rand(20, 1, 8, 8)


def refusal(*layers: nn.Module) -> str:
    ann = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), *layers)
    with pytest.raises(UnsupportedError) as caught:
        Converter([images()], progress=False)(ann)
    return str(caught.value)


class Calls(nn.Module):
    def __init__(self, call: Any) -> None:
        super().__init__()
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.call(x)
        return found


class GroupNorm(nn.Module):
    """No layer of torch, in spite of its name."""

    def forward(self, x: Tensor) -> Tensor:
        return x.cumprod(1)


@pytest.mark.usefixtures("builtins_only")
@pytest.mark.parametrize(
    ("layer", "distribution"),
    [
        (nn.SiLU(), "sj-ann2snn-analog"),
        (nn.GroupNorm(2, 4), "sj-ann2snn-analog"),
        (nn.Softmax(1), "sj-ann2snn-analog"),
        (Calls(lambda x: x.softmax(1)), "sj-ann2snn-analog"),
        (Calls(lambda x: torch.nn.functional.gelu(x)), "sj-ann2snn-analog"),
        (Calls(lambda x: x * x), "sj-ann2snn-analog"),
        (Calls(lambda x: x / (x + 1)), "sj-ann2snn-analog"),
        (Calls(lambda x: x.clamp(0.25, 1)), "sj-ann2snn-analog"),
        (nn.Hardtanh(), "sj-ann2snn-analog"),
        (nn.AdaptiveMaxPool2d(2), "sj-ann2snn-adaptive-maxpool"),
        (Calls(lambda x: x.amax((2, 3))), "sj-ann2snn-adaptive-maxpool"),
        (Calls(lambda x: torch.div(x, 2, rounding_mode="floor")), None),
        (Calls(lambda x: x.cumprod(1)), None),
        (GroupNorm(), None),
    ],
)
def test_a_refused_operation_names_the_plugin_that_converts_it(layer: nn.Module, distribution: str | None) -> None:
    message = refusal(layer)
    if distribution is None:
        assert "comes with" not in message
    else:
        assert f"comes with {distribution} (in a copy of the repository: pip install . ./plugins/" in message


@pytest.mark.usefixtures("builtins_only")
@pytest.mark.parametrize("one", KNOWN_PLUGINS, ids=lambda one: one.distribution)
def test_an_unknown_name_names_the_plugin_that_it_comes_with(one: KnownPlugin) -> None:
    arguments = {
        "ann2snn_normalizations": "mode",
        "ann2snn_neurons": "neuron",
        "ann2snn_corrections": "corrections",
        "ann2snn_layer_mappers": "mappers",
    }
    for hook, names in one.names.items():
        for name in names:
            given = {"1": name} if hook == LAYER_MAPPERS.hook else name.upper()
            convert = functools.partial(Converter, **{arguments.get(hook, "mode"): given})
            name_it = functools.partial(load_network, "network", given) if hook == EXPORTERS.hook else convert
            with pytest.raises((ModeError, OptionError), match=f"It comes with {one.distribution} "):
                name_it()


@pytest.mark.usefixtures("builtins_only")
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"mode": "low-latancy"}, r"Did you mean 'low-latency'\? 'low-latency' comes with sj-ann2snn-calibration"),
        ({"mode": "mean+2sigma"}, r"'mean\+3sigma' comes with sj-ann2snn-sigma"),
        ({"neuron": "brust"}, r"Did you mean 'burst'\? 'burst' comes with sj-ann2snn-burst"),
        ({"corrections": "layer_by_layer"}, r"'layer-by-layer' comes with sj-ann2snn-calibration"),
        ({"mode": "maxx"}, r"Did you mean 'max'\? +Known"),
    ],
)
def test_a_misspelt_name_of_a_plugin_that_is_not_installed(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises((ModeError, OptionError), match=told):
        Converter(**arguments)


def test_a_file_names_the_plugin_that_its_layers_come_with() -> None:
    with pytest.raises(FormatError, match=r"BurstNeuron, .*It comes with sj-ann2snn-burst \("):
        build_layer("sj_ann2snn_burst.neuron.BurstNeuron", {}, {}, {})


def test_close_matches_are_told_for_every_kind_of_name() -> None:
    snn = Converter([torch.rand(8, 4)], progress=False)(nn.Sequential(nn.Linear(4, 3), nn.ReLU()))
    x = torch.rand(8, 4)
    with pytest.raises(OptionError, match=r"readout='delaied' is not known\. Did you mean 'delayed'\?"):
        simulate(snn, x, T=4, readout="delaied")
    with pytest.raises(OptionError, match=r"early_exit='margn' is not known\. Did you mean 'margin'\?"):
        evaluate(snn, [(x, torch.zeros(8))], T=4, early_exit="margn", progress=False)
