"""Formats: chosen by suffix or name, contributed by plugins."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from sj_ann2snn import (
    ConflictError,
    Exporter,
    ExportError,
    FormatError,
    NetworkDescription,
    NodeDescription,
    NodeReference,
    OptionError,
    PluginError,
    export,
    hookimpl,
    load_network,
    simulate,
)
from sj_ann2snn.builtin.exporters import Archive, Torch
from sj_ann2snn.hooks import discovery, validation
from sj_ann2snn.hooks.kinds import KINDS
from sj_ann2snn.hooks.registry import Owner
from sj_ann2snn.interchange import build

from ..helpers.exports import FORMATS, STEPS, images, pooled, round_trip, small
from ..helpers.networks import Graded, GradedMaker, convert, run_by_hand


def test_the_format_follows_from_the_suffix_or_the_name(tmp_path: Path) -> None:
    snn = small()
    export(snn, tmp_path / "a.PTH")
    assert isinstance(Torch().load(tmp_path / "a.PTH"), NetworkDescription)
    export(snn, str(tmp_path / "a.dat"), format="Archive")
    export(snn, tmp_path / "b.dat", format=Archive(compress=True))
    for file, format in (("a.dat", "archive"), ("b.dat", Archive())):
        assert len(list(load_network(tmp_path / file, format).graph.nodes)) == len(list(snn.graph.nodes))
    known = r"'archive' \(.zip\), 'c' \(.c\), 'torch' \(.pt, .pth\)"
    with pytest.raises(OptionError, match=rf"The suffix of 'a.dat' belongs to no format. Known formats: {known}"):
        load_network(tmp_path / "a.dat")
    with pytest.raises(OptionError, match=r"format='scroll' is not known. Known formats: 'archive' \(sj-ann2snn"):
        export(snn, tmp_path / "a.zip", "scroll")
    with pytest.raises(
        OptionError, match=r"format=3 is not allowed: give the name of a format \('archive', 'c', 'torch'\)"
    ):
        export(snn, tmp_path / "a.zip", 3)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="Format 'archive' got the unknown option compres. Did you mean 'compress'"):
        export(snn, tmp_path / "a.zip", compres=True)
    with pytest.raises(OptionError, match="format='archive' is an instance with its own options; compress would have"):
        export(snn, tmp_path / "a.zip", Archive(), compress=True)


def offering(monkeypatch: pytest.MonkeyPatch, **hooks: Any) -> None:
    """Has a distribution called `extra` offer classes."""
    registry = discovery.load_plugins().copy()
    offered = SimpleNamespace(**{hook: hookimpl(lambda found=found: found) for hook, found in hooks.items()})
    validation.register_plugin(registry, offered, Owner("extra", "1.0"))
    monkeypatch.setattr("sj_ann2snn.interchange.files.load_plugins", lambda: registry)


class Zipped(Archive):
    name = "zipped"


class Broken(Exporter):
    name = "broken"
    suffixes = (".broken",)

    def export(self, network: NetworkDescription, path: Path) -> None:
        raise RuntimeError("no luck")

    def load(self, path: Path) -> Any:
        return "a network"


class OneWay(Exporter):
    name = "one-way"
    suffixes = (".one",)

    def export(self, network: NetworkDescription, path: Path) -> None:
        raise ExportError("it has 3 neurons, and this chip has none")


def test_formats_of_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offering(monkeypatch, ann2snn_exporters=[Zipped, Broken, OneWay])
    with pytest.raises(ConflictError, match=r"The suffix of 'a.zip' is claimed by 'zipped' of extra 1.0 and 'archive'"):
        export(small(), tmp_path / "a.zip")
    export(small(), tmp_path / "a.zip", "zipped")
    with pytest.raises(
        PluginError,
        match=r"Format 'broken' \(extra 1\.0\), asked to write .*a.broken, failed with RuntimeError: no luck",
    ):
        export(small(), tmp_path / "a.broken")
    with pytest.raises(PluginError, match=r"Format 'broken' \(extra 1\.0\) returned 'a network' from load\(\)"):
        load_network(tmp_path / "a.broken")
    with pytest.raises(
        FormatError, match="a.one cannot be read: the format 'one-way' can be written but not read back"
    ):
        load_network(tmp_path / "a.one")
    with pytest.raises(ExportError, match="a.one cannot be written: it has 3 neurons, and this chip has none"):
        export(small(), tmp_path / "a.one")


class Exported(Graded):
    """A neuron that says what makes it anew."""

    def export_options(self) -> dict[str, Any]:
        return {"levels": self.levels}


class ExportedMaker(GradedMaker):
    name = "exported"
    exports = (Exported,)

    def make(self, site: Any) -> nn.Module:
        return Exported(self.levels)


@pytest.mark.parametrize("format", FORMATS)
def test_neurons_that_plugins_declare_come_back(format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = images()
    snn = convert(pooled(nn.MaxPool2d(2)), x, neuron=ExportedMaker(levels=2))
    with pytest.raises(ExportError, match=r"1 \(Exported\): a file cannot name its type"):
        export(snn, tmp_path / FORMATS[format])
    with monkeypatch.context() as patched:
        offering(patched, ann2snn_neurons=[ExportedMaker])
        loaded = round_trip(snn, tmp_path, format)
        assert torch.equal(run_by_hand(loaded, x, STEPS), run_by_hand(snn, x, STEPS))
        assert torch.equal(simulate(loaded, x, STEPS), simulate(snn, x, STEPS))
        monkeypatch.setattr(Exported, "export_options", lambda self: {"levels": object()})
        with pytest.raises(ExportError, match=r"1 \(Exported\): it holds .*, which cannot be written"):
            export(snn, tmp_path / FORMATS[format])
        monkeypatch.setattr(Exported, "export_options", lambda self: 1 / 0)
        with pytest.raises(
            PluginError,
            match=r"layer 1 .*Neuron 'exported' \(extra 1\.0\).*ZeroDivisionError.*\(in Exported\.export_options\)",
        ):
            export(snn, tmp_path / FORMATS[format])
    with pytest.raises(FormatError, match=r"Exported, which no installed plugin declares in `exports`"):
        load_network(tmp_path / FORMATS[format])


def test_declarations_are_checked() -> None:
    class Undeclared(GradedMaker):
        name = "undeclared"
        exports = (Graded,)

    class NoSuffix(Archive):
        name = "no-suffix"
        suffixes = ("zip",)

    with pytest.raises(PluginError, match=r"Undeclared.exports must be a tuple of layers with a method export_options"):
        KINDS["ann2snn_neurons"].check(Undeclared)
    with pytest.raises(
        PluginError, match=r"NoSuffix.suffixes must be a tuple of suffixes such as '.zip', not \('zip',\)"
    ):
        KINDS["ann2snn_exporters"].check(NoSuffix)


def test_a_description_by_hand_is_a_network() -> None:
    network = NetworkDescription(
        "Constant",
        (
            NodeDescription("x", "input", label="x"),
            NodeDescription("offset", "constant", label="inner.offset", tensors={"value": torch.ones(2)}),
            NodeDescription("added", "function", "operator.add", args=(NodeReference("x"), NodeReference("offset"))),
            NodeDescription("doubled", "method", "mul", args=(NodeReference("added"), 2.0)),
            NodeDescription("output", "output", args=((NodeReference("doubled"), [NodeReference("x")]),)),
        ),
    )
    doubled, (x,) = build(network, {})(torch.ones(3, 2))
    assert torch.equal(doubled, torch.full((3, 2), 4.0))
    assert torch.equal(x, torch.ones(3, 2))


def test_exporters_may_build_layers_of_the_callers_plugins(tmp_path: Path) -> None:
    """Inside of `export`, `load_network` knows the plugins that `export` was given."""

    class Building(Exporter):
        name = "building"

        def export(self, network: NetworkDescription, path: Path) -> None:
            self.network = network
            path.write_text(type(load_network(path, self).get_submodule("1")).__name__, encoding="utf-8")

        def load(self, path: Path) -> NetworkDescription:
            return self.network

    class Plugin:
        @staticmethod
        @hookimpl
        def ann2snn_neurons() -> list[type[ExportedMaker]]:
            return [ExportedMaker]

    ann, x = nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.rand(20, 4)
    snn = convert(ann, x, neuron=ExportedMaker())
    export(snn, tmp_path / "net", Building(), plugins=[Plugin])
    assert (tmp_path / "net").read_text() == "Exported"
