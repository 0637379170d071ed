"""The notebooks run from top to bottom in a quick setting, and show the outputs of a full run.

After a change, `MNIST_DIR=DIR SJ_ANN2SNN_LOAD_PLUGINS= jupyter nbconvert --to notebook --execute --inplace FILE` makes
the outputs again.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "examples" / "notebooks"
RUNNER = ROOT / "tests" / "helpers" / "run_notebook.py"
PICTURES = {"if_neuron": 4, "mnist_six_modes": 3, "accuracy_fell": 4}
"""Every notebook, and how many pictures it shows at least."""
LARGEST_PICTURE = 60_000

pytestmark = pytest.mark.skipif(not NOTEBOOKS.is_dir(), reason=f"{NOTEBOOKS} is missing: it comes with the repository")


def read(name: str) -> dict[str, Any]:
    return json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))


def code_cells(name: str) -> list[dict[str, Any]]:
    return [cell for cell in read(name)["cells"] if cell["cell_type"] == "code"]


def test_every_notebook_is_tested() -> None:
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(PICTURES)


@pytest.mark.parametrize("name", PICTURES)
def test_runs_from_top_to_bottom(name: str, tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the notebooks train on scikit-learn's digits")
    pytest.importorskip("matplotlib", reason="the notebooks draw pictures")
    environment = {
        **os.environ,
        "MPLBACKEND": "agg",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "SJ_ANN2SNN_LOAD_PLUGINS": "",  # the same search everywhere
        "SJ_ANN2SNN_NOTEBOOKS": "quick",
    }
    command = [sys.executable, str(RUNNER), str(NOTEBOOKS / f"{name}.ipynb")]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list(tmp_path.iterdir()), "a notebook writes no files"


@pytest.mark.parametrize("name", PICTURES)
def test_outputs_are_those_of_one_run_in_order(name: str) -> None:
    cells = code_cells(name)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert kinds <= {"stream", "display_data", "execute_result"}
    assert not [output for cell in cells for output in cell["outputs"] if output.get("name") == "stderr"]


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_there_and_small(name: str) -> None:
    outputs = [output.get("data", {}) for cell in code_cells(name) for output in cell["outputs"]]
    pictures = [base64.b64decode(data["image/png"]) for data in outputs if "image/png" in data]
    assert len(pictures) >= PICTURES[name]
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert max(map(len, pictures)) < LARGEST_PICTURE


@pytest.mark.parametrize("name", PICTURES)
def test_no_absolute_path(name: str) -> None:
    text = json.dumps([cell["source"] for cell in read(name)["cells"]] + [text_of(name)])
    found = re.findall(r"(?<![\w.:/<\\])(?:/[\w.-]+){2,}|\b[A-Za-z]:\\\\\w+|file://", text)
    assert not found


@pytest.mark.parametrize("name", PICTURES)
def test_links_lead_somewhere(name: str) -> None:
    text = "".join("".join(cell["source"]) for cell in read(name)["cells"] if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert links
    assert not [link for link in links if "://" not in link and not (NOTEBOOKS / link).exists()]


def text_of(name: str) -> str:
    """All outputs as text, without the pictures."""
    parts = []
    for cell in code_cells(name):
        for output in cell["outputs"]:
            parts += output.get("text", [])
            parts += [line for kind, data in output.get("data", {}).items() if kind != "image/png" for line in data]
    return "".join(parts)
