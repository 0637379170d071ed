"""The examples with networks out of other packages: a quick run of each, where those packages are installed."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import sys
import warnings
from pathlib import Path

import pytest

from ..helpers.networks import using_threads

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "real_networks"
PACKAGES = {"faces": "facenet_pytorch", "melody": "torchcrepe", "cosmic_rays": "deepCR"}
PLUGINS = ("sj_ann2snn_analog", "sj_ann2snn_differential")

pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason=f"{EXAMPLES} is missing: it comes with the repository")


def test_every_example_is_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(PACKAGES)


def output_of(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """What an example prints, run as a program."""
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    out = io.StringIO()
    with using_threads(1), contextlib.redirect_stdout(out), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the packages
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    return out.getvalue()


def quick_run(name: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> str:
    for package in (PACKAGES[name], *PLUGINS):
        pytest.importorskip(package, reason=f"examples/real_networks/{name}.py needs {package}")
    monkeypatch.setenv("MPLBACKEND", "agg")
    picture = folder / f"{name}.png"
    text = output_of(name, monkeypatch, "--quick", "--T", "4", "--out", str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")
    return text


def number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    assert found, f"{pattern} is not in:\n{text}"
    return float(found[1])


def test_faces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = quick_run("faces", monkeypatch, tmp_path)
    assert "ANN 1 boxes, SNN 1" in text
    assert re.search(r"SNN, 4 steps +6 of 6 faces found, 0 of 3", text), text
    assert number(r"6 faces.*mean ([\d.]+)", text) > 0.95


def test_melody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = quick_run("melody", monkeypatch, tmp_path)
    assert number(r"SNN, 4 steps +([\d.]+)%", text) > 95
    assert number(r"differ by ([\d.]+) cents", text) < 1


def test_cosmic_rays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = quick_run("cosmic_rays", monkeypatch, tmp_path)
    assert number(r"SNN, 4 steps +IoU ([\d.]+)", text) > number(r"ANN +IoU ([\d.]+)", text) - 0.05
    assert number(r"SNN and ANN: ([\d.]+)", text) > 0.95


@pytest.mark.parametrize("name", PACKAGES)
def test_a_missing_package_is_named_in_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in (PACKAGES[name], *PLUGINS):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit) as exit_:
        output_of(name, monkeypatch)
    message = str(exit_.value)
    assert re.match(r"\w+ is missing\. Install what this example needs: pip install ", message), message
    assert "\n" not in message
