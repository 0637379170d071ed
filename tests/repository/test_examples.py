"""Every example runs without arguments and says what it promises."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import warnings
from pathlib import Path

import pytest

from ..helpers.networks import using_threads

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason=f"{EXAMPLES} is missing: it comes with the repository")

pytest.importorskip("sklearn", reason="the examples train on scikit-learn's digits")


def output_of(name: str, folder: Path) -> str:
    """What an example prints, run as a program; torch and SpikingJelly are imported already."""
    out = io.StringIO()
    with using_threads(1), contextlib.chdir(folder), contextlib.redirect_stdout(out), warnings.catch_warnings():
        warnings.simplefilter("default")
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    assert not list(folder.iterdir()), "an example writes no files"
    return out.getvalue()


def number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    assert found, f"{pattern} is not in:\n{text}"
    return float(found[1])


def test_every_example_has_a_test() -> None:
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert {path.stem for path in EXAMPLES.glob("*.py")} <= tested


def test_basic_conversion(tmp_path: Path) -> None:
    text = output_of("basic_conversion.py", tmp_path)
    ann, snn = number(r"ANN accuracy ([\d.]+)", text), number(r"after 50 steps ([\d.]+)", text)
    assert ann > 0.93
    assert abs(ann - snn) < 0.03
    assert "Conv2d + BatchNorm2d" in text


def test_own_mode(tmp_path: Path) -> None:
    text = output_of("own_mode.py", tmp_path)
    ann = number(r"ANN +([\d.]+)", text)
    for line in ("max ", "mean-sigma ", "mean-sigma k=2.0"):
        assert abs(ann - number(rf"(?m)^{re.escape(line)} *([\d.]+) after 50", text)) < 0.04
    scales = [float(one) for one in re.findall(r"λ ([\d.]+),", text)]
    assert len(set(scales)) == 3, "each line has a λ of its own"


def test_stepping_by_hand(tmp_path: Path) -> None:
    text = output_of("stepping_by_hand.py", tmp_path)
    assert number(r"after 32 steps +([\d.]+)", text) > 0.85
    assert number(r"by hand: ([\d.e-]+) all", text) < 1e-4
    assert number(r"all at once, ([\d.e-]+) simulated", text) < 1e-4
    assert len(re.findall(r"spikes per neuron and step", text)) == 2


def test_residual_network(tmp_path: Path) -> None:
    text = output_of("residual_network.py", tmp_path)
    ann = number(r"ANN +([\d.]+)", text)
    assert ann > 0.93
    for way in ("cumulative", "momentum"):
        assert abs(ann - number(rf"maxpool {way} +([\d.]+)", text)) < 0.05
    assert "operator.add" in text
    assert re.search(r"relu .*if neuron +[\d.]+ to [\d.]+", text), "one scale per channel"


def test_segmentation(tmp_path: Path) -> None:
    pytest.importorskip("torchvision.models", exc_type=(ImportError, RuntimeError))
    text = output_of("segmentation.py", tmp_path)
    shares = [float(one) for one in re.findall(r"([\d.]+)% of the pixels", text)]
    assert len(shares) == 3
    assert shares[-1] > 90
    errors = [float(one) for one in re.findall(r"relative error ([\d.]+)", text)]
    assert errors == sorted(errors, reverse=True)


def test_detection(tmp_path: Path) -> None:
    pytest.importorskip("torchvision.models", exc_type=(ImportError, RuntimeError))
    text = output_of("detection.py", tmp_path)
    assert "convert_only=['backbone', 'rpn.head', 'roi_heads.box_head']" in text
    assert number(r"(\d+) spiking layers", text) == 24
    overlaps = [float(one) for one in re.findall(r"overlap with them by ([\d.]+)", text)]
    assert len(overlaps) == 4
    assert min(overlaps) > 0.6
