"""``sj-ann2snn export``."""

from __future__ import annotations

import importlib.metadata
import json
import types
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sj_ann2snn import Converter, NetworkDescription, hookimpl, load_network, simulate
from sj_ann2snn.builtin.exporters import Archive
from sj_ann2snn.cli import main
from sj_ann2snn.hooks.discovery import load_plugins, using
from sj_ann2snn.hooks.registry import CALLER
from sj_ann2snn.hooks.validation import register_plugin

from ..helpers.command_line import failing
from ..helpers.replaying import spikes_by_hand


def test_export_writes_the_network_that_the_converter_makes(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["export", "usercode:network", "--data", "usercode:data", "--mode", "99%"]
    assert main([*arguments, "--out", "net.zip", "--option", "initial_potential=0.5"]) == 0
    out = capsys.readouterr().out
    assert f"wrote net.zip (archive, {Path('net.zip').stat().st_size:,} bytes)" in out
    assert main([*arguments, "--out", "net.dat", "--format", "torch", "--channel-wise", "--T", "8", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["format"], found["file"], found["bytes"]) == ("torch", "net.dat", Path("net.dat").stat().st_size)
    usercode = importlib.import_module("usercode")
    calibration, _ = usercode.data()
    images = next(iter(calibration))[0]
    for file, format, options in (
        ("net.zip", None, {"initial_potential": 0.5}),
        ("net.dat", "torch", {"channel_wise": True}),
    ):
        loaded = load_network(file, format)
        snn = Converter(calibration, mode="99%", progress=False, **options)(usercode.network())
        assert torch.equal(simulate(loaded, images, T=12), simulate(snn, images, T=12))


def test_export_to_c(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["export", "usercode:network", "--data", "usercode:data", "--mode", "99%", "--out", "net.c"]
    assert main([*arguments, "--to", "c", "--weights", "int8"]) == 0
    out = capsys.readouterr().out
    assert "weights int8: sums take" in out
    assert f"wrote net.c (c, {Path('net.c').stat().st_size:,} bytes)" in out
    assert "void network_step(" in Path("net.c").read_text(encoding="ascii")
    before = Path("net.c").read_bytes()
    assert "this input is not rounded to integers" in failing(capsys, *arguments)
    assert Path("net.c").read_bytes() == before


def test_export_says_what_is_wrong_before_anything_runs(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["export", "usercode:failing", "--data", "usercode:data"]
    assert "belongs to no format. Known formats: 'archive' (.zip)" in failing(capsys, *arguments, "--out", "net.dat")
    assert "format='nir' is not known" in failing(capsys, *arguments, "--out", "net.zip", "--format", "nir")
    assert "--option mode=... is not allowed: use --mode instead" in failing(
        capsys, *arguments, "--out", "net.zip", "--option", "mode=max"
    )
    assert "cannot be written" in failing(
        capsys, "export", "usercode:network", "--data", "usercode:data", "--out", "no/net.zip"
    )
    assert not Path("net.zip").exists()


class Shaped(Archive):
    """Needs the shape of a sample; its other program is SpikingJelly's loop, which may change a step."""

    name = "shaped"
    suffixes = ()

    def __init__(self, *, flip: int = -1, input_shape: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.flip, self.input_shape = flip, input_shape

    def export(self, network: NetworkDescription, path: Path) -> None:
        super().export(network, path)
        path.with_suffix(".json").write_text(json.dumps(self.input_shape))

    def replay(self, path: Path, x: Tensor, T: int) -> Mapping[str, Tensor]:  # noqa: N803
        spikes = spikes_by_hand(load_network(path, Archive()), x, T)
        del spikes["output"]
        if self.flip >= 0:
            next(iter(spikes.values()))[self.flip] += 1
        return spikes


def test_options_of_the_format_and_its_check(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["export", "usercode:network", "--data", "usercode:data", "--T", "6", "--out", "net.file"]
    plugin = types.SimpleNamespace(ann2snn_exporters=hookimpl(lambda: [Shaped]), __name__="shaped")
    registry = load_plugins().copy()
    register_plugin(registry, plugin, CALLER)
    with using(registry):
        assert main([*arguments, "--to", "shaped", "flip=-1", "--check", "3"]) == 0
        out = capsys.readouterr().out
        assert "check: all " in out
        assert "agree spike for spike (3 samples, 6 steps" in out
        _, test = importlib.import_module("usercode").data()
        assert json.loads(Path("net.json").read_text()) == list(next(iter(test))[0].shape[1:])
        assert main([*arguments, "--to", "shaped", "flip=4", "--check", "--json"]) == 1
        found = json.loads(capsys.readouterr().out)["check"]
        assert (found["agrees"], found["samples"], found["steps"], found["differences"][0]["step"]) == (False, 4, 6, 5)
        assert "--format shaped flip: 'flip'" in failing(capsys, *arguments, "--to", "shaped", "flip")
        assert "unknown option no" in failing(capsys, *arguments, "--to", "shaped", "no=1")
    assert "the format 'archive' has no check" in failing(capsys, *arguments, "--to", "archive", "--check")
