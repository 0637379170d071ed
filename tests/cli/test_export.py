"""``sj-ann2snn export``."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import pytest
import torch

from sj_ann2snn import Converter, load_network, simulate
from sj_ann2snn.cli import main

from ..helpers.command_line import failing


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
