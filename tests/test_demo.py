"""The demo: its data, its network, what it measures, and its pictures."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sj_ann2snn import Converter, EvaluationResult, InputError, simulate
from sj_ann2snn.cli import main
from sj_ann2snn.cli.data import digits, mnist
from sj_ann2snn.cli.firing import ann_inputs, firing_rates, neuron_rates
from sj_ann2snn.cli.idx import find_idx, read_idx
from sj_ann2snn.cli.pictures import LayerRates, accuracy_picture, firing_rate_picture, spread
from sj_ann2snn.cli.sweep import ModeRun, Sweep
from sj_ann2snn.cli.tutorial import train, tutorial_network

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
    for divisor in (2, 3, 4, 5):
        for layer, scale in modes["max"]["lambdas"].items():
            assert modes[f"1/{divisor}"]["lambdas"][layer]["max"] == pytest.approx(scale["max"] / divisor)


def test_the_numbers_are_complete(demo: tuple[dict[str, Any], Path]) -> None:
    numbers, folder = demo
    assert json.loads((folder / "demo.json").read_text(encoding="utf-8")) == numbers
    assert numbers["data"] == {"name": "scikit-learn digits", "train_images": 1297, "test_images": 500}
    assert (numbers["T"], numbers["epochs"], numbers["seed"], numbers["samples"]) == (30, 5, 0, 500)
    for mode in numbers["modes"]:
        assert len(mode["accuracy"]) == 30
        assert list(mode["lambdas"]) == ["relu1", "relu2", "relu3", "relu4"]
        assert mode["synops_per_sample"] > mode["spikes_per_sample"] > 0
        assert sum(layer["spikes_per_sample"] for layer in mode["layers"]) == pytest.approx(mode["spikes_per_sample"])
        assert mode["owner"].startswith("sj-ann2snn ")


def test_the_pictures_are_pictures(demo: tuple[dict[str, Any], Path]) -> None:
    numbers, folder = demo
    assert sorted(path.name for path in folder.iterdir()) == sorted(["demo.json", *numbers["pictures"]])
    for name in numbers["pictures"]:
        picture = image_of(folder / name)
        assert picture.shape[0] > 500
        assert picture.shape[1] > 1000
        assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 100


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["demo", "--epochs", "1", "--T", "4", "--modes", "max", "1/2", "--out", str(tmp_path / "x")]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "scikit-learn digits: 1297 training images, 1 epochs, seed 0"
    head = next(line for line in lines if line.startswith("mode"))
    assert head.split() == ["mode", "t=1", "t=2", "t=4", "spikes", "synops", "seconds"]
    numbers = json.loads((tmp_path / "x" / "demo.json").read_text(encoding="utf-8"))
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


def test_pyplot_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    accuracy_picture(SWEEPS["six"], "data", tmp_path / "a.png")
    rates = [LayerRates("relu1", torch.rand(10), torch.rand(10))]
    firing_rate_picture({"max": rates}, 5, tmp_path / "b.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--data", "mnist"], "--data mnist needs --data-dir DIR"),
        (["--data-dir", "."], "--data-dir belongs to --data mnist"),
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
    assert "pip install 'sj-ann2snn[demo]'" in err
    assert "epoch" not in err, "found out before training"


# MNIST -------------------------------------------------------------------------------------------


def write_idx(path: Path, array: np.ndarray[Any, Any]) -> None:
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_part(folder: Path, part: str, count: int, *, suffix: str = "", first: int = 0) -> None:
    """Digits blown up to 28 by 28 pixels, as MNIST's files."""
    found = digits()
    images = found.train_images[first : first + count]
    large = nn.functional.interpolate(images, size=28, mode="bilinear")
    write_idx(folder / f"{part}-images-idx3-ubyte{suffix}", (large[:, 0] * 255).round().numpy())
    write_idx(folder / f"{part}-labels-idx1-ubyte{suffix}", found.train_labels[first : first + count].numpy())


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_are_read(tmp_path: Path, suffix: str) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    write_idx(tmp_path / f"a{suffix}", array)
    path = find_idx(tmp_path, "a")
    assert path == tmp_path / f"a{suffix}"
    np.testing.assert_array_equal(read_idx(path, 3), array)


def test_no_idx_file() -> None:
    assert find_idx(Path("nowhere"), "a") is None


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "starts with nothing"),
        (b"\x00\x00\x08\x01\x00\x00\x00\x02ab", "must start with the bytes 0 0 8 3, and it starts with 0 0 8 1"),
        (b"\x00\x00\x0d\x03" + bytes(12), "0 0 13 3"),
        (b"\x00\x00\x08\x03\x00\x00", "ends inside its header"),
        (b"\x00\x00\x08\x03" + struct.pack(">3I", 1, 2, 2) + b"abc", "shape (1, 2, 2), 4 bytes, and 3 bytes follow"),
        (b"\x00\x00\x08\x03" + struct.pack(">3I", 1, 2, 2) + b"abcde", "and 5 bytes follow"),
    ],
)
def test_damaged_idx_files_are_told(tmp_path: Path, content: bytes, told: str) -> None:
    for path, written in ((tmp_path / "a", content), (tmp_path / "b.gz", gzip.compress(content))):
        path.write_bytes(written)
        with pytest.raises(InputError) as caught:
            read_idx(path, 3)
        assert told in str(caught.value)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"no gzip at all", gzip.compress(bytes(1000))[:-12]], ids=["no gzip", "cut short"])
def test_damaged_compression_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.gz").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read"):
        read_idx(tmp_path / "a.gz", 1)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_the_test_images_alone_are_split(tmp_path: Path, suffix: str) -> None:
    write_part(tmp_path, "t10k", 50, suffix=suffix)
    data = mnist(tmp_path)
    assert data.train_images.shape == (40, 1, 28, 28)
    assert data.test_images.shape == (10, 1, 28, 28)
    assert data.train_images.dtype == torch.float32
    assert float(data.train_images.max()) == 1.0
    expected = digits().train_labels[:50]
    assert torch.equal(torch.cat([data.train_labels, data.test_labels]), expected)


def test_training_images_are_used_where_they_are(tmp_path: Path) -> None:
    write_part(tmp_path, "t10k", 10)
    write_part(tmp_path, "train", 30, suffix=".gz", first=10)
    data = mnist(tmp_path)
    assert (len(data.train_images), len(data.test_images)) == (30, 10)
    assert torch.equal(data.train_labels, digits().train_labels[10:40])


def test_torchvisions_layout_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_part(tmp_path / "MNIST" / "raw", "t10k", 10)
    write_part(tmp_path / "MNIST" / "raw", "train", 30, first=10)
    without = mnist_without_torchvision(tmp_path, monkeypatch)
    pytest.importorskip("torchvision", exc_type=ImportError)
    data = mnist(tmp_path)
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        assert torch.equal(getattr(data, name), getattr(without, name))
    assert (len(data.train_images), len(data.test_images)) == (30, 10)


def mnist_without_torchvision(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torchvision", None)
        patch.setitem(sys.modules, "torchvision.datasets", None)
        return mnist(folder)


def test_a_torchvision_folder_with_test_images_only(tmp_path: Path) -> None:
    write_part(tmp_path / "MNIST" / "raw", "t10k", 10)
    assert len(mnist(tmp_path).train_images) == 8


@pytest.mark.parametrize("folder", ["", "not/there"])
def test_missing_data_is_told(tmp_path: Path, folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / folder
    assert main(["demo", "--data", "mnist", "--data-dir", str(place)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: No MNIST in {place}")
    assert "t10k-images-idx3-ubyte" in err
    assert "MNIST/raw" in err
    assert ("The folder does not exist." in err) == bool(folder)


@pytest.mark.parametrize(
    ("present", "missing"), [("images-idx3", "t10k-labels-idx1-ubyte"), ("labels-idx1", "t10k-images-idx3-ubyte")]
)
def test_half_of_the_data_is_told(tmp_path: Path, present: str, missing: str) -> None:
    write_part(tmp_path, "t10k", 5)
    (tmp_path / missing).unlink()
    with pytest.raises(InputError, match=rf"t10k-{present}-ubyte is there, and {missing} .* is missing"):
        mnist(tmp_path)


def test_more_images_than_labels_are_told(tmp_path: Path) -> None:
    write_part(tmp_path, "t10k", 5)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.zeros(4))
    with pytest.raises(InputError, match=r"5 images, and .* 4 labels"):
        mnist(tmp_path)


def test_the_demo_on_mnist(tmp_path: Path) -> None:
    write_part(tmp_path / "data", "t10k", 500, suffix=".gz")
    arguments = ["--data", "mnist", "--data-dir", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    numbers = run_demo(*arguments, "--epochs", "10", "--T", "20", "--modes", "99.9%")
    assert numbers["data"] == {"name": "MNIST", "train_images": 400, "test_images": 100}
    assert numbers["ann_accuracy"] > 0.6
    assert numbers["modes"][0]["accuracy"][-1] > 0.5


# Data and network --------------------------------------------------------------------------------


def test_digits_are_split_once_and_for_all() -> None:
    one, other = digits(), digits()
    assert torch.equal(one.test_images, other.test_images)
    assert one.train_images.shape == (1297, 1, 8, 8)
    assert one.test_images.shape == (500, 1, 8, 8)
    assert 0.0 == float(one.train_images.min()) < float(one.train_images.max()) == 1.0
    assert sum(len(x) for x, _ in one.calibration) == 1297
    assert set(one.test_labels.tolist()) == set(range(10))


def test_the_tutorials_network() -> None:
    kinds = [type(layer) for layer in tutorial_network(28)]
    block = [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.AvgPool2d]
    assert kinds == [*block, *block, *block, nn.Flatten, nn.Linear, nn.ReLU]
    for size, padding in ((28, (0, 0)), (22, (0, 0)), (21, (1, 1)), (8, (1, 1))):
        network = tutorial_network(size)
        assert network.conv1.padding == padding
        assert network(torch.rand(2, 1, size, size)).shape == (2, 10)
    assert tutorial_network(28).bn1.eps == 1e-3


def test_images_too_small_for_the_network_are_told() -> None:
    with pytest.raises(InputError, match="7 by 7"):
        tutorial_network(7)


def test_training_ends_in_eval_mode_and_lowers_the_loss() -> None:
    found = digits()
    network = tutorial_network(8)
    told: list[str] = []
    # 65 images in batches of 64 would leave a batch of one, which BatchNorm cannot normalize.
    train(network, found.train_images[:65], found.train_labels[:65], epochs=15, seed=0, tell=told.append)
    losses = [float(line.rpartition(" ")[2]) for line in told]
    assert len(losses) == 15
    assert losses[-1] < losses[0] / 2
    assert not any(module.training for module in network.modules())


# Firing rates ------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 4, 50])
def test_one_neuron_is_a_staircase(steps: int) -> None:
    inputs = torch.linspace(-0.5, 2.0, 1000, dtype=torch.float64) + 1e-6
    rates = neuron_rates(inputs, steps)
    expected = (inputs * steps).floor().clamp(0, steps) / steps
    torch.testing.assert_close(rates, expected)


def test_rates_of_a_network_fit_its_inputs_and_its_output() -> None:
    torch.manual_seed(3)
    ann = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 6), nn.ReLU())
    x = torch.rand(40, 5)
    converter = Converter([x], mode="1/2", progress=False)
    snn = converter(ann)
    rates = firing_rates(snn, ["1", "3"], x, steps=25)
    inputs = ann_inputs(ann, ["1", "3"], x)
    assert inputs["1"].shape == rates["1"].shape == (280,)
    torch.testing.assert_close(inputs["1"].view(40, 7), ann[0](x).detach())
    # The first layer's input is constant, so every neuron is the single neuron of the left-hand picture.
    currents = inputs["1"].double() / converter.report.scales["1"][0]
    away_from_a_step = ((currents * 25).frac() - 0.5).abs() < 0.49
    torch.testing.assert_close(
        rates["1"].double()[away_from_a_step], neuron_rates(currents, 25)[away_from_a_step], atol=1e-6, rtol=0
    )
    output = rates["3"].view(40, 6) * converter.report.scales["3"][0]
    torch.testing.assert_close(output, simulate(snn, x, T=25), atol=1e-5, rtol=1e-5)
    assert not any(module._forward_hooks for network in (ann, snn) for module in network.modules())


def test_the_saturated_share_counts_active_inputs() -> None:
    assert LayerRates("a", torch.tensor([-1.0, 0.5, 1.0, 1.5, 3.0]), torch.zeros(5)).saturated == 0.5
    assert LayerRates("a", torch.tensor([-1.0, 0.0]), torch.zeros(2)).saturated == 0.0


# Pictures ----------------------------------------------------------------------------------------


def sweep_of(curves: dict[str, Sequence[float]], ann: float) -> Sweep:
    steps = len(next(iter(curves.values())))
    runs = []
    for mode, curve in curves.items():
        result = EvaluationResult(tuple(curve), 100, float(len(curve)), 1.0, 1.0, 0.1, (), 1.0)
        runs.append(ModeRun(mode, mode, "test 1", {"relu": (1.0, 1.0)}, result, nn.Identity()))
    return Sweep(ann, steps, tuple(runs))


def rising(end: float, steps: int = 50) -> list[float]:
    return [end * (1 - 0.9 ** (t + 1)) / (1 - 0.9**steps) for t in range(steps)]


SWEEPS = {
    "six": sweep_of({m: rising(e) for m, e in zip(MODES, (0.97, 0.978, 0.978, 0.973, 0.95, 0.9), strict=True)}, 0.978),
    "all alike": sweep_of({m: rising(0.99) for m in MODES}, 0.99),
    "two collapse": sweep_of({"max": rising(0.99), "1/4": rising(0.7), "1/5": rising(0.28)}, 0.99),
    "all collapse": sweep_of({"max": rising(0.1), "1/5": rising(0.12)}, 0.99),
    "nine, long names": sweep_of({f"mean-plus-{k}-sigma": rising(0.9 + k / 100) for k in range(9)}, 0.99),
    "one step": sweep_of({"max": [0.5], "1/2": [0.9]}, 0.95),
    "seven steps": sweep_of({"max": rising(0.8, 7)}, 0.9),
    "64 steps": sweep_of({"max": rising(0.8, 64)}, 0.9),
    "perfect": sweep_of({"max": [0.0, 1.0, 1.0]}, 1.0),
    "hopeless": sweep_of({"max": [0.0, 0.0, 0.0]}, 0.0),
}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every figure that is saved."""
    from matplotlib.figure import Figure

    figures: list[Any] = []
    saved = Figure.savefig

    def savefig(self: Any, *args: Any, **kwargs: Any) -> None:
        figures.append(self)
        saved(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return figures


def check_texts(figure: Any) -> None:
    """No two texts overlap, and none is cut off."""
    renderer = figure.canvas.get_renderer()
    boxes = []
    for axes in figure.findobj(lambda one: hasattr(one, "get_xlim")):
        texts = [*axes.texts, axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label]
        for axis, limits in ((axes.xaxis, sorted(axes.get_xlim())), (axes.yaxis, sorted(axes.get_ylim()))):
            ticks = [tick for tick in axis.get_major_ticks() if limits[0] <= tick.get_loc() <= limits[1]]
            texts += [tick.label1 for tick in ticks if tick.label1.get_visible()]
        boxes += [(text.get_text(), text.get_window_extent(renderer)) for text in texts if text.get_text().strip()]
    for parent in {figure, *figure.findobj(lambda one: hasattr(one, "supxlabel"))}:
        texts = [*parent.texts, *(text for legend in parent.legends for text in legend.get_texts())]
        boxes += [(text.get_text(), text.get_window_extent(renderer)) for text in texts if text.get_text().strip()]
    assert len(boxes) > 8
    width, height = figure.canvas.get_width_height()
    for index, (text, box) in enumerate(boxes):
        assert box.x0 >= -1, f"{text!r} is cut off on the left"
        assert box.y0 >= -1, f"{text!r} is cut off below"
        assert box.x1 <= width + 1, f"{text!r} is cut off on the right"
        assert box.y1 <= height + 1, f"{text!r} is cut off above"
        for other, other_box in boxes[:index]:
            # Extents hold the font's full line height; a shared edge is no overlap.
            across = min(box.x1, other_box.x1) - max(box.x0, other_box.x0)
            along = min(box.y1, other_box.y1) - max(box.y0, other_box.y0)
            assert across < 1 or along < 3, f"{text!r} and {other!r} overlap"


@pytest.mark.parametrize("name", SWEEPS)
def test_accuracy_pictures_are_readable(name: str, tmp_path: Path, drawn: list[Any]) -> None:
    sweep = SWEEPS[name]
    accuracy_picture(sweep, "some data, 100 test images", tmp_path / "a.png")
    (figure,) = drawn
    check_texts(figure)
    assert image_of(tmp_path / "a.png").std() > 0.05
    texts = [text.get_text() for text in figure.axes[1].texts]
    assert all(run.mode in texts for run in sweep.runs)
    assert "ANN" in texts
    whole, close = figure.axes
    assert whole.get_ylim()[0] == 0
    low, high = close.get_ylim()
    best = max(run.result.accuracy[-1] for run in sweep.runs)
    assert low <= best <= high
    below = [run for run in sweep.runs if run.result.accuracy[-1] < low]
    assert sum(text.endswith("↓") for text in texts) == len(below)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 7])
def test_firing_rate_pictures_are_readable(count: int, tmp_path: Path, drawn: list[Any]) -> None:
    inputs = torch.linspace(-1, 3, 2000)
    modes = {
        f"mode {index}": [LayerRates(name, inputs * index, (inputs * index).clamp(0, 1)) for name in ("relu1", "relu3")]
        for index in range(1, count + 1)
    }
    firing_rate_picture(modes, 50, tmp_path / "a.png")
    (figure,) = drawn
    check_texts(figure)
    assert image_of(tmp_path / "a.png").std() > 0.05


def test_pictures_do_not_depend_on_the_users_settings(tmp_path: Path) -> None:
    import matplotlib

    accuracy_picture(SWEEPS["six"], "data", tmp_path / "a.png")
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "black", "savefig.dpi": 30}):
        before = dict(matplotlib.rcParams)
        accuracy_picture(SWEEPS["six"], "data", tmp_path / "b.png")
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("seed", range(20))
def test_spread_keeps_the_gap_the_order_and_the_limits(seed: int) -> None:
    random = np.random.default_rng(seed)
    wanted = random.uniform(-0.5, 1.5, size=random.integers(1, 9)).tolist()
    places = spread(wanted, 0.1, 0.0, 1.0)
    order = np.argsort(wanted, kind="stable")
    assert np.all(np.diff(np.array(places)[order]) >= 0.1 - 1e-9)
    assert min(places) >= -1e-9
    assert max(places) <= 1 + 1e-9


def test_spread_moves_nothing_without_need_and_shares_what_it_must() -> None:
    assert spread([0.2, 0.8, 0.5], 0.1, 0.0, 1.0) == pytest.approx([0.2, 0.8, 0.5])
    assert spread([0.5, 0.5], 0.2, 0.0, 1.0) == pytest.approx([0.4, 0.6])
    assert spread([1.0, 1.0, 1.0], 0.25, 0.0, 1.0) == pytest.approx([0.5, 0.75, 1.0])
    assert spread([0.5] * 5, 1.0, 0.0, 1.0) == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0])


def test_the_demo_leaves_the_number_of_threads_alone(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    run_demo("--epochs", "1", "--T", "2", "--modes", "max", "--out", str(tmp_path))
    assert torch.get_num_threads() == before
