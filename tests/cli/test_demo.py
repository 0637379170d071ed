"""``sj-ann2snn demo``: what it measures, prints and draws."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sj_ann2snn.cli import main

pytest.importorskip("sklearn", reason="the demo trains on scikit-learn's digits")
pytest.importorskip("matplotlib", reason="the demo draws with matplotlib")

MODES = ["max", "99.9%", "1/2", "1/3", "1/4", "1/5"]


def run_demo(*arguments: str) -> dict[str, Any]:
    """The numbers of a demo that went well."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        assert main(["demo", "--json", *arguments]) == 0
    numbers: dict[str, Any] = json.loads(out.getvalue())
    return numbers


def image_of(path: Path) -> Any:
    """The pixels of a picture."""
    from matplotlib.image import imread

    return imread(path)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """A short demo on the digits, and its folder."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    return run_demo("--epochs", "5", "--T", "30", "--out", str(folder)), folder


# The command -------------------------------------------------------------------------------------


def test_the_demo_learns_and_converts(demo: tuple[dict[str, Any], Path]) -> None:
    numbers, _ = demo
    assert numbers["ann_accuracy"] > 0.95
    assert [mode["mode"] for mode in numbers["modes"]] == MODES
    accuracy = {mode["mode"]: mode["accuracy"] for mode in numbers["modes"]}
    assert accuracy["99.9%"][-1] > numbers["ann_accuracy"] - 0.03
    assert accuracy["99.9%"][-1] > accuracy["99.9%"][0] + 0.3, "it takes time steps"


def test_smaller_scales_mean_more_spikes(demo: tuple[dict[str, Any], Path]) -> None:
    modes = {mode["mode"]: mode for mode in demo[0]["modes"]}
    spikes = [modes[name]["spikes_per_sample"] for name in ("max", "1/2", "1/3", "1/4", "1/5")]
    assert spikes == sorted(spikes)
    assert len(set(spikes)) == 5
    assert len(modes["max"]["lambdas"]) == 4
    for divisor in (2, 3, 4, 5):
        for layer, scale in modes["max"]["lambdas"].items():
            assert modes[f"1/{divisor}"]["lambdas"][layer]["max"] == pytest.approx(scale["max"] / divisor)


def test_the_numbers_are_complete(demo: tuple[dict[str, Any], Path]) -> None:
    numbers, folder = demo
    assert json.loads((folder / "demo.json").read_text(encoding="utf-8")) == numbers
    assert numbers["data"] == {"name": "scikit-learn digits", "train_images": 1297, "test_images": 500}
    assert (numbers["T"], numbers["epochs"], numbers["seed"], numbers["samples"]) == (30, 5, 0, 500)
    assert [mode["mode"] for mode in numbers["modes"]] == MODES
    for mode in numbers["modes"]:
        assert len(mode["accuracy"]) == 30
        assert list(mode["lambdas"]) == ["relu1", "relu2", "relu3", "relu4"]
        assert mode["synops_per_sample"] > mode["spikes_per_sample"] > 0
        assert sum(layer["spikes_per_sample"] for layer in mode["layers"]) == pytest.approx(mode["spikes_per_sample"])
        assert mode["owner"].startswith("sj-ann2snn ")


def test_the_pictures_are_pictures(demo: tuple[dict[str, Any], Path]) -> None:
    numbers, folder = demo
    assert sorted(path.name for path in folder.iterdir()) == sorted(["demo.json", *numbers["pictures"]])
    assert len(numbers["pictures"]) == 2
    for name in numbers["pictures"]:
        picture = image_of(folder / name)
        assert picture.shape[0] > 500
        assert picture.shape[1] > 1000
        levels = np.round(picture.reshape(-1, picture.shape[2]) * 255).astype(np.int64)
        assert len(np.unique(levels @ 256 ** np.arange(picture.shape[2]))) > 100


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["demo", "--epochs", "1", "--T", "4", "--modes", "max", "1/2", "--out", str(tmp_path / "x")]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "scikit-learn digits: 1297 training images, 1 epochs, seed 0"
    head = next(line for line in lines if line.startswith("mode"))
    assert head.split() == ["mode", "t=1", "t=2", "t=4", "spikes", "synops", "seconds"]
    numbers = json.loads((tmp_path / "x" / "demo.json").read_text(encoding="utf-8"))
    assert [mode["mode"] for mode in numbers["modes"]] == ["max", "1/2"]
    for mode in numbers["modes"]:
        row = next(line.split() for line in lines if line.split()[:1] == [mode["mode"]])
        assert row[1:4] == [f"{mode['accuracy'][t - 1]:.4f}" for t in (1, 2, 4)]
        assert row[4] == f"{mode['spikes_per_sample']:,.0f}"
    for layer in ("relu1", "relu2", "relu3", "relu4"):
        assert any(line.startswith(layer) for line in lines)
    assert [line.rpartition("/")[2] for line in lines[-3:]] == ["accuracy.png", "firing-rate.png", "demo.json"]
    assert "epoch 1 of 1: loss" in err


def test_the_same_seed_gives_the_same_numbers(tmp_path: Path) -> None:
    def numbers(seed: str, folder: str) -> dict[str, Any]:
        common = ["--epochs", "1", "--T", "6", "--modes", "1/2", "--out", str(tmp_path / folder)]
        found = run_demo(*common, "--seed", seed)
        for mode in found["modes"]:
            del mode["seconds"]
        return found

    first = numbers("1", "a")
    torch.rand(5)  # what was drawn before does not matter
    assert numbers("1", "b") == first
    assert (tmp_path / "a" / "accuracy.png").read_bytes() == (tmp_path / "b" / "accuracy.png").read_bytes()
    assert (tmp_path / "a" / "firing-rate.png").read_bytes() == (tmp_path / "b" / "firing-rate.png").read_bytes()
    assert numbers("2", "c")["modes"] != first["modes"]


def test_the_demo_leaves_the_random_state_alone(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    run_demo("--epochs", "1", "--T", "2", "--modes", "max", "--out", str(tmp_path))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--data", "mnist"], "--data mnist needs --data-dir DIR"),
        (["--data-dir", "."], "--data-dir is only for --data mnist"),
        (["--epochs", "0"], "argument --epochs: '0' is not allowed"),
        (["--data", "imagenet"], "invalid choice"),
    ],
)
def test_bad_arguments_are_refused(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["demo", *arguments])
    assert stopped.value.code == 2
    assert told in capsys.readouterr().err


def test_an_unknown_mode_is_told_before_training(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--modes", "maximum"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: mode='maximum' is not known.")


@pytest.mark.parametrize(
    ("package", "told"), [("sklearn.datasets", "scikit-learn"), ("matplotlib.figure", "matplotlib")]
)
def test_a_missing_package_is_told(
    package: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["demo"]) == 2
    err = capsys.readouterr().err
    assert told in err
    assert f"pip install {told}" in err
    assert "epoch" not in err, "found out before training"


# Pictures ----------------------------------------------------------------------------------------


def test_the_demo_leaves_the_number_of_threads_alone(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    run_demo("--epochs", "1", "--T", "2", "--modes", "max", "--out", str(tmp_path))
    assert torch.get_num_threads() == before
