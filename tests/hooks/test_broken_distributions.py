"""One broken distribution at a time: the others go on working, and `sj-ann2snn plugins` says what is wrong with it."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import Converter, PluginWarning, simulate
from sj_ann2snn.cli import main
from sj_ann2snn.hooks import discovery
from sj_ann2snn.hooks.conflicts import open_conflicts
from sj_ann2snn.testing.fixtures import FakeDistributions, fake_distributions, isolated_plugins  # noqa: F401

HEAD = """
import torch
from sj_ann2snn import *
from sj_ann2snn.builtin.normalizations import Max
"""

GOOD = (
    HEAD
    + """
class Half(Max):
    name = "half"

    def observer(self, site):
        observer = super().observer(site)
        whole = observer.scale
        observer.scale = lambda: whole() / 2
        return observer

@hookimpl
def ann2snn_normalizations():
    return [Half]
"""
)


def mode(body: str, name: str = "bad-mode") -> str:
    """A plugin with a mode whose observer has another method."""
    return f"""{HEAD}
from sj_ann2snn.builtin.normalizations import MaxObserver

class Bad(MaxObserver):
{body}

class BadMode(Max):
    name = {name!r}

    def observer(self, site):
        return Bad(site)

@hookimpl
def ann2snn_normalizations():
    return [BadMode]
"""


EDITS_THE_GRAPH = f"""{HEAD}
class Rectifier(torch.nn.Module):
    slope = 0.0

    def forward(self, x):
        return torch.where(x > 0, x, self.slope * x)

class Editor(LayerMapper):
    name = "editor"
    claims = (Rectifier,)

    def map(self, site):
        site.module.slope = 1.0
        return Spike()

@hookimpl
def ann2snn_layer_mappers():
    return [Editor]
"""


@dataclass(frozen=True)
class Row:
    """A broken plugin.

    Attributes:
        source: Its module.
        told: What is said about it.
        where: The key of the JSON under which that stands: "tried" only with --check.
        twin: Another distribution with the same source and entry point is installed as well.
    """

    source: str
    told: str
    where: str = "failed"
    twin: bool = False


MATRIX = {
    "import error": Row("raise ImportError('libfoo.so is gone')", "ImportError: libfoo.so is gone"),
    "missing dependency": Row(
        "import no_such_package_anywhere", "ModuleNotFoundError: No module named 'no_such_package_anywhere'"
    ),
    "SystemExit at import": Row("import sys; sys.exit('no licence')", "SystemExit: no licence"),
    "misspelt hook": Row(
        HEAD + "@hookimpl\ndef ann2snn_normalisations():\n    return []\n", "unknown hook 'ann2snn_normalisations'"
    ),
    "wrong arguments": Row(
        HEAD + "@hookimpl\ndef ann2snn_normalizations(network):\n    return []\n", "{'network'} are declared in the"
    ),
    "wrong return type": Row(
        HEAD + "@hookimpl\ndef ann2snn_normalizations():\n    return Max\n",
        "ann2snn_normalizations() must return a list of classes, but it returned <class",
    ),
    "class without a name": Row(
        HEAD + "class Mode(Normalization):\n    def observer(self, site): ...\n"
        "@hookimpl\ndef ann2snn_normalizations():\n    return [Mode]\n",
        "Mode.name must be a non-empty string, not None",
    ),
    "name of a built-in": Row(
        mode("    pass", name="MAX"),
        "mode='max' is claimed by 'MAX' of broken-plugin 0.3 and 'max' of sj-ann2snn",
        "conflicts",
    ),
    "name of another distribution": Row(
        mode("    pass"),
        "mode='bad-mode' is claimed by 'bad-mode' of broken-plugin 0.3 and 'bad-mode' of broken-plugin-twin 0.3",
        "conflicts",
        twin=True,
    ),
    "newer API number": Row(
        "ANN2SNN_API = 2\n" + mode("    pass"),
        "it was written for hook API version 2, but this sj-ann2snn has version 1. Update sj-ann2snn.",
    ),
    "scale() returns zero": Row(
        mode("    def scale(self): return super().scale() * 0"),
        "ScaleError: Mode 'bad-mode' (broken-plugin 0.3) returned the scale 0 to 0 for 1; a scale must be finite and greater than 0",
        "tried",
    ),
    "scale() returns NaN": Row(
        mode("    def scale(self): return super().scale() * float('nan')"),
        "ScaleError: Mode 'bad-mode' (broken-plugin 0.3) returned the scale nan to nan for 1;",
        "tried",
    ),
    "scale() returns the wrong shape": Row(
        mode("    def scale(self): return super().scale().expand(7)"),
        "ScaleError: Mode 'bad-mode' (broken-plugin 0.3) returned a tensor of shape (7,) as the scale of 1; allowed is",
        "tried",
    ),
    "scale() returns the wrong device": Row(
        mode("    def scale(self): return super().scale().to('meta')"),
        "ScaleError: Mode 'bad-mode' (broken-plugin 0.3) returned a scale on the device meta for 1; allowed is cpu",
        "tried",
    ),
    "an observer that keeps all data": Row(
        mode("    def observe(self, x): super().observe(x); self.all = [*getattr(self, 'all', []), x.clone()]"),
        "PluginError: Its observer keeps the activations that it is shown",
        "tried",
    ),
    "an observer that keeps the last batch": Row(
        mode("    def observe(self, x): super().observe(x); self.last = x"),
        "PluginError: Its observer keeps the activations that it is shown",
        "tried",
    ),
    "a mapper that edits the graph": Row(
        EDITS_THE_GRAPH,
        "Mapper 'editor' (broken-plugin 0.3), asked about 2 (Rectifier), changed slope of its module",
        "tried",
    ),
}


def answers() -> tuple[Tensor, str]:
    """What a conversion by somebody else's mode gives, and whose it was."""
    torch.manual_seed(0)
    ann = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    x = torch.rand(20, 4)
    converter = Converter([x], mode="half", progress=False)
    return simulate(converter(ann), x, T=8), converter.report.mode_owner


def listed(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, Any]:
    discovery.forget_plugins()
    capsys.readouterr()
    status = main(["plugins", *options])
    out, err = capsys.readouterr()
    assert not err
    return status, json.loads(out) if "--json" in options else out


@pytest.mark.parametrize("why", MATRIX)
def test_a_broken_plugin_is_told_and_the_others_work(
    why: str,
    fake_distributions: FakeDistributions,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    row = MATRIX[why]
    names = ["broken-plugin", "broken-plugin-twin"][: 2 if row.twin else 1]
    monkeypatch.setenv(discovery.ALLOW_VARIABLE, ",".join(["good-plugin", *names]))
    fake_distributions.add("good-plugin", GOOD, version="2.0", entry_points={"good": "good_plugin"})
    wanted, owner = answers()
    assert listed(capsys, "--check")[0] == 0
    for name in names:
        module = name.replace("-", "_")
        fake_distributions.add(name, row.source, version="0.3", entry_points={"broken": module})

    discovery.forget_plugins()
    if row.where == "failed":
        with pytest.warns(PluginWarning, match="broken-plugin 0.3 .entry point 'broken'."):
            discovery.load_plugins()
    found, still = answers()
    assert torch.equal(found, wanted)
    assert still == owner == "good-plugin 2.0"

    shown = 0 if row.where == "tried" else 1
    status, plain = listed(capsys, "--json")
    assert status == shown
    assert bool(plain["failed"]) == (row.where == "failed")
    assert bool(plain["conflicts"]) == (row.where == "conflicts")
    status, checked = listed(capsys, "--json", "--check")
    assert status == 1
    said = [one["status" if row.where == "tried" else "error"] for one in checked[row.where]]
    assert any(row.told in one for one in said), said
    by_owner: dict[str, set[str]] = {}
    for one in checked["tried"]:
        by_owner.setdefault(one["distribution"], set()).add(one["status"])
    assert by_owner["good-plugin"] == {"works"}
    if row.where == "failed":
        assert (checked["failed"][0]["version"], checked["failed"][0]["entry_point"]) == ("0.3", "broken")
        assert "Traceback" in checked["failed"][0]["traceback"]
        assert "broken-plugin" not in by_owner
    status, text = listed(capsys, "--check")
    assert status == 1
    assert row.told in text


def test_two_distributions_with_one_entry_point_name_both_work(
    fake_distributions: FakeDistributions,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(discovery.ALLOW_VARIABLE, "one-plugin,other-plugin")
    fake_distributions.add("one-plugin", GOOD, entry_points={"same": "one_plugin"})
    fake_distributions.add("other-plugin", mode("    pass", name="other"), entry_points={"same": "other_plugin"})
    status, found = listed(capsys, "--json", "--check")
    assert status == 0
    assert [(one["distribution"], one["entry_point"], one["name"], one["status"]) for one in found["tried"]] == [
        ("one-plugin", "same", "half", "works"),
        ("other-plugin", "same", "other", "works"),
    ]
    # Where one of the two is broken, the other still works, and it is clear which one is meant.
    fake_distributions.add("third-plugin", "raise RuntimeError('broken')", entry_points={"same": "third_plugin"})
    monkeypatch.setenv(discovery.ALLOW_VARIABLE, "one-plugin,third-plugin")
    status, found = listed(capsys, "--json", "--check")
    assert status == 1
    assert [one["distribution"] for one in found["failed"]] == ["third-plugin"]
    assert [(one["distribution"], one["status"]) for one in found["tried"]] == [("one-plugin", "works")]


def test_two_mappers_of_one_operation_are_a_conflict_that_is_listed(
    fake_distributions: FakeDistributions,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = f"""{HEAD}
class Mapper(LayerMapper):
    name = "mine"
    claims = (torch.nn.ReLU,)

    def map(self, site):
        return Spike()

@hookimpl
def ann2snn_layer_mappers():
    return [Mapper]
"""
    monkeypatch.setenv(discovery.ALLOW_VARIABLE, "my-mapper")
    fake_distributions.add("my-mapper", source)
    status, found = listed(capsys, "--json")
    assert status == 1
    ((hook, error),) = [(one["hook"], one["error"]) for one in found["conflicts"]]
    assert hook == "ann2snn_layer_mappers"
    assert "torch.nn.modules.activation.ReLU is claimed by 'mine' of my-mapper 1.0 and 'relu' of sj-ann2snn" in error


EVERY_KIND = """
import torch
from sj_ann2snn import *
from sj_ann2snn.builtin import neurons, normalizations, readouts

class Mode(normalizations.Max):
    name = "{0}-mode"

class Maker(neurons.IFNeuron):
    name = "{0}-neuron"

class Answer(readouts.Exponential):
    name = "{0}-readout"

class Lift(Correction):
    name = "{0}-correction"

    def correct(self, trial):
        trial.adjust_output(trial.output_bias * {1} + {1})

ann2snn_normalizations = hookimpl(lambda: [Mode], specname="ann2snn_normalizations")
ann2snn_neurons = hookimpl(lambda: [Maker], specname="ann2snn_neurons")
ann2snn_corrections = hookimpl(lambda: [Lift], specname="ann2snn_corrections")
ann2snn_readouts = hookimpl(lambda: [Answer], specname="ann2snn_readouts")
"""


def test_the_order_of_registration_changes_no_number(
    fake_distributions: FakeDistributions,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = {"alpha": 2, "beta": 3, "gamma": 5, "delta": 7}
    monkeypatch.setenv(discovery.ALLOW_VARIABLE, ",".join(f"{name}-plugin" for name in names))
    for name, number in names.items():
        fake_distributions.add(f"{name}-plugin", EVERY_KIND.format(name, number))
    found, builtins = list(discovery.installed_plugins()), list(discovery.BUILTIN_PLUGINS)
    ours = [one for one in found if one[0].distribution.removesuffix("-plugin") in names]
    assert len(ours) == 4
    ann, x = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), torch.rand(20, 4)
    seen = []
    for seed, order in enumerate(itertools.permutations(ours)):
        shuffled = random.Random(seed).sample(builtins, len(builtins))
        monkeypatch.setattr(discovery, "installed_plugins", lambda order=order: iter(order))
        monkeypatch.setattr(discovery, "BUILTIN_PLUGINS", tuple(shuffled))
        discovery.forget_plugins()
        registry = discovery.load_plugins()
        assert [one.owner for one in registry.classes["ann2snn_neurons"] if "plugin" in one.owner.distribution] == [
            owner for owner, _ in order
        ]
        converter = Converter(
            [x],
            mode="beta-mode",
            neuron="delta-neuron",
            corrections=["gamma-correction", "alpha-correction"],
            progress=False,
        )
        snn = converter(ann)
        seen.append(
            (simulate(snn, x, T=9, readout="alpha-readout"), converter.report.as_dict(), open_conflicts(registry))
        )
    assert len(seen) == 24
    for numbers, report, conflicts in seen:
        assert torch.equal(numbers, seen[0][0])
        assert (report, conflicts) == (seen[0][1], [])
