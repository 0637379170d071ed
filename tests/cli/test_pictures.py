"""The pictures of the demo are readable."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sj_ann2snn import EvaluationResult
from sj_ann2snn.cli.pictures import LayerRates, firing_rate_picture, metric_picture, spread
from sj_ann2snn.cli.sweep import ModeRun, Sweep

pytest.importorskip("sklearn", reason="the demo trains on scikit-learn's digits")
pytest.importorskip("matplotlib", reason="the demo draws with matplotlib")

MODES = ["max", "99.9%", "1/2", "1/3", "1/4", "1/5"]


def image_of(path: Path) -> Any:
    """The pixels of a picture."""
    from matplotlib.image import imread

    return imread(path)


def sweep_of(curves: dict[str, Sequence[float]], ann: float) -> Sweep:
    steps = len(next(iter(curves.values())))
    runs = []
    for mode, curve in curves.items():
        result = EvaluationResult({"top1": tuple(curve)}, 100, float(len(curve)), 1.0, 1.0, 0.1, (), 1.0)
        runs.append(ModeRun(mode, mode, "test 1", {"relu": (1.0, 1.0)}, result, nn.Identity()))
    return Sweep({"top1": ann}, steps, tuple(runs))


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
    metric_picture(sweep, "top1", "some data, 100 test images", tmp_path / "a.png")
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


ERRORS = {
    "small": ([0.0185, 0.00037, 7.8e-5], [0.018, 0.0001], 0.0),
    "large": ([12345.0, 2000.0, 1999.5], [3000.0, 1990.0], 1980.0),
    "below zero": ([-3.0, 0.2, 0.91], [-5.0, 0.8], 0.95),
    "all alike": ([0.1, 0.1, 0.1], [0.1, 0.1], 0.1),
    "undefined": ([float("nan")] * 3, [float("nan")] * 2, 1.0),
    "tiny": ([3e-9, 1e-9, 2e-12], [1e-9, 1e-12], 0.0),
}


@pytest.mark.parametrize("name", ERRORS)
def test_pictures_of_other_metrics_are_readable(name: str, tmp_path: Path, drawn: list[Any]) -> None:
    one, other, ann = ERRORS[name]
    curves = {"max": [*one, *one[-1:] * 47], "99.9%": [*other, *other[-1:] * 48]}
    sweep = sweep_of(curves, ann)
    runs = tuple(replace(run, result=replace(run.result, values={"mse": run.result.value})) for run in sweep.runs)
    metric_picture(Sweep({"mse": ann}, 50, runs), "mse", "some data", tmp_path / "a.png")
    (figure,) = drawn
    check_texts(figure)
    low, high = figure.axes[1].get_ylim()
    assert all(low <= run.result.value[-1] <= high for run in runs) or name == "undefined"
    assert low <= ann <= high


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

    metric_picture(SWEEPS["six"], "top1", "data", tmp_path / "a.png")
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "black", "savefig.dpi": 30}):
        before = dict(matplotlib.rcParams)
        metric_picture(SWEEPS["six"], "top1", "data", tmp_path / "b.png")
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


def test_pyplot_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    metric_picture(SWEEPS["six"], "top1", "data", tmp_path / "a.png")
    rates = [LayerRates("relu1", torch.rand(10), torch.rand(10))]
    firing_rate_picture({"max": rates}, 5, tmp_path / "b.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]
