"""The distributions under plugins/, built as wheels, installed with pip, used by name, and uninstalled."""

from __future__ import annotations

import configparser
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

import pytest

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"

pytestmark = pytest.mark.skipif(
    not PLUGINS.is_dir(), reason=f"{PLUGINS} is missing: the plugin distributions come with the repository"
)


@dataclass(frozen=True)
class Distribution:
    """A distribution, and a user's script that needs it without naming it."""

    name: str
    entry_point: str
    script: str
    fails_with: str
    needs: tuple[str, ...] = ()
    """What it depends on besides the core."""

    @property
    def package(self) -> str:
        return self.name.replace("-", "_")


SIGMA = Distribution(
    name="sj-ann2snn-sigma",
    entry_point="sigma",
    script="""
import json
import torch
from sj_ann2snn import Converter, simulate

torch.manual_seed(0)
ann = torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.ReLU(), torch.nn.Linear(12, 3))
images = torch.rand(100, 6)
converter = Converter(mode="mean+3sigma", channel_wise=True, dataloader=[images], progress=False)
snn = converter(ann)
error = simulate(snn, images, T=300).sub(ann(images)).abs().max().item()
print(json.dumps({"mode": converter.report.mode, "owner": converter.report.mode_owner, "error": error}))
""",
    fails_with="ModeError: mode='mean+3sigma' is not known.",
)

ADAPTIVE_MAXPOOL = Distribution(
    name="sj-ann2snn-adaptive-maxpool",
    entry_point="adaptive-maxpool",
    script="""
import json
import torch
from sj_ann2snn import Converter, simulate

torch.manual_seed(0)
ann = torch.nn.Sequential(
    torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveMaxPool2d(2), torch.nn.Flatten(), torch.nn.Linear(16, 3)
)
images = torch.rand(20, 1, 7, 7)
converter = Converter(mode="max", dataloader=[images], progress=False)
snn = converter(ann)
error = simulate(snn, images, T=300).sub(ann(images)).abs().max().item()
pool = converter.report["2"]
print(json.dumps({"becomes": pool.becomes, "owner": pool.owner, "error": error}))
""",
    fails_with="2 (AdaptiveMaxPool2d)",
)


ANALOG = Distribution(
    name="sj-ann2snn-analog",
    entry_point="analog",
    script="""
import json
import torch
from sj_ann2snn import Converter, simulate

torch.manual_seed(0)
ann = torch.nn.Sequential(
    torch.nn.Linear(6, 12), torch.nn.ReLU(), torch.nn.Linear(12, 12), torch.nn.SiLU(), torch.nn.Linear(12, 3)
)
images = torch.rand(100, 6)
converter = Converter(mode="max", dataloader=[images], progress=False)
snn = converter(ann)
error = simulate(snn, images, T=300).sub(ann(images)).abs().max().item()
smooth = converter.report["3"]
print(json.dumps({"becomes": smooth.becomes, "owner": smooth.owner, "error": error}))
""",
    fails_with="3 (SiLU)",
)


def neuron_distribution(name: str) -> Distribution:
    return Distribution(
        name=f"sj-ann2snn-{name}",
        entry_point=name,
        script=f"""
import json
import torch
from sj_ann2snn import Converter, simulate

torch.manual_seed(0)
ann = torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.ReLU(), torch.nn.Linear(12, 3))
images = torch.rand(100, 6)
converter = Converter(neuron="{name}", dataloader=[images], progress=False)
snn = converter(ann)
error = simulate(snn, images, T=30).sub(ann(images)).abs().max().item()
print(json.dumps({{"neuron": converter.report.neuron, "owner": converter.report.neuron_owner, "error": error}}))
""",
        fails_with=f"OptionError: neuron='{name}' is not known.",
    )


def mode_distribution(name: str, mode: str, steps: int, check: str = "") -> Distribution:
    return Distribution(
        name=f"sj-ann2snn-{name}",
        entry_point=name,
        script=f"""
import json
import torch
from sj_ann2snn import Converter, simulate

torch.manual_seed(0)
ann = torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.ReLU(), torch.nn.Linear(12, 3))
images = torch.rand(100, 6)
converter = Converter(mode="{mode}", T={steps}, dataloader=[images], progress=False)
snn = converter(ann)
error = simulate(snn, images, T={steps}).sub(ann(images)).abs().max().item()
{check}
print(json.dumps({{"mode": converter.report.mode, "owner": converter.report.mode_owner, "error": error}}))
""",
        fails_with=f"ModeError: mode='{mode}' is not known.",
    )


JOINT = "assert converter.report.corrections == (f\"Correction 'joint' ({converter.report.mode_owner})\",)"
CALIBRATION = mode_distribution("calibration", "low-latency", 8, JOINT)
LTB, SPIKENORM = mode_distribution("ltb", "ltb", 16), mode_distribution("spikenorm", "spike-norm", 64)
NIR = Distribution(
    name="sj-ann2snn-nir",
    entry_point="nir",
    script="""
import json
import torch
from sj_ann2snn import Converter, export, load_network, simulate
from sj_ann2snn.hooks import kinds
from sj_ann2snn.hooks.discovery import load_plugins

torch.manual_seed(0)
ann = torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.ReLU(), torch.nn.Linear(12, 3))
images = torch.rand(100, 6)
snn = Converter(dataloader=[images], progress=False)(ann)
export(snn, "network.nir", "nir")
loaded = load_network("network.nir", "nir")
error = simulate(loaded, images, T=30).sub(simulate(snn, images, T=30)).abs().max().item()
(owner,) = [str(one.owner) for one in load_plugins().registered(kinds.EXPORTERS) if one.name == "nir"]
print(json.dumps({"owner": owner, "error": error}))
""",
    fails_with="OptionError: format='nir' is not known.",
    needs=("h5py", "nir", "numpy"),
)
ONNX = Distribution(
    name="sj-ann2snn-onnx",
    entry_point="onnx",
    script="""
import json
import onnx
import torch
from sj_ann2snn import Converter, export, simulate
from sj_ann2snn.hooks import kinds
from sj_ann2snn.hooks.discovery import load_plugins

torch.manual_seed(0)
ann = torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.ReLU(), torch.nn.Linear(12, 3))
snn = Converter(dataloader=[torch.rand(100, 6)], progress=False)(ann)
export(snn, "network.onnx")
weight = onnx.numpy_helper.to_array(onnx.load("network.onnx").graph.initializer[0])
error = torch.from_numpy(weight.copy()).sub(snn.get_submodule("0").weight).abs().max().item()
(owner,) = [str(one.owner) for one in load_plugins().registered(kinds.EXPORTERS) if one.name == "onnx"]
print(json.dumps({"owner": owner, "error": error}))
""",
    fails_with="OptionError: The suffix of 'network.onnx' belongs to no format.",
    needs=("numpy", "onnx"),
)
OFFSETS = Distribution(
    name="sj-ann2snn-offsets",
    entry_point="offsets",
    script="""
import json
import torch
from sj_ann2snn import Converter, simulate

torch.manual_seed(0)
ann = torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.ReLU(), torch.nn.Linear(12, 3))
images = torch.rand(100, 6)
corrected = Converter(corrections="ftbc", T=8, dataloader=[images], progress=False)
corrected(ann)
converter = Converter(neuron="cos", probe_steps=8, dataloader=[images], progress=False)
error = simulate(converter(ann), images, T=300).sub(ann(images)).abs().max().item()
owner = converter.report.neuron_owner
assert corrected.report.corrections == (f"Correction 'ftbc' ({owner})",)
print(json.dumps({"owner": owner, "error": error}))
""",
    fails_with="OptionError: corrections='ftbc' is not known.",
)
BURST, SIGNED, DIFFERENTIAL = (neuron_distribution(name) for name in ("burst", "signed", "differential"))
MULTITHRESHOLD = mode_distribution("multithreshold", "multi-threshold", 2)
NEURONS = (BURST, SIGNED, DIFFERENTIAL)
ALL = (SIGMA, ADAPTIVE_MAXPOOL, ANALOG, *NEURONS, MULTITHRESHOLD, CALIBRATION, LTB, SPIKENORM, NIR, OFFSETS, ONNX)
DISTRIBUTIONS = [pytest.param(one, id=one.name) for one in ALL]


def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SJ_ANN2SNN_")}
    environment |= {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, env=environment, text=True, capture_output=True, timeout=300, **options)


def checked(command: list[str], **options: Any) -> None:
    done = run(command, **options)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"


def build_wheels(directory: Path) -> dict[str, Path]:
    # From copies: whatever a build backend leaves behind stays out of the repository.
    sources = [directory / "sources" / one.name for one in ALL]
    for source in sources:
        shutil.copytree(PLUGINS / source.name, source, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    checked([*pip, "--wheel-dir", str(directory), *map(str, sources)])
    found = {path.name.split("-")[0].replace("_", "-"): path for path in directory.glob("*.whl")}
    assert set(found) == {one.name for one in ALL}
    return found


def environment_without_plugins(directory: Path) -> str:
    """The Python of a fresh virtual environment that has all the packages of this one, but none of the plugins."""
    venv.create(directory, symlinks=True)
    (site_packages,) = directory.glob("lib/python*/site-packages")
    for parent in map(Path, sys.path):
        if parent.name not in ("site-packages", "dist-packages") or not parent.is_dir():
            continue
        for entry in parent.iterdir():
            # A plugin may be installed here, for its own tests: as a folder, as metadata, or editable.
            plain = entry.name.replace("-", "_").lower()
            ours = any(one.package in plain for one in ALL)
            if not ours and not (site_packages / entry.name).exists():
                (site_packages / entry.name).symlink_to(entry)
    return str(directory / "bin" / "python")


RUNNER = """
import json, os, runpy, sys, traceback
from pathlib import Path

import sj_ann2snn  # what takes long is imported once; each script has a process of its own

for script in sys.argv[1:]:
    child = os.fork()
    if not child:
        os.dup2(os.open(script + ".out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os.dup2(os.open(script + ".err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        status = 1
        try:
            runpy.run_path(script, run_name="__main__")
            status = 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    Path(script + ".status").write_text(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))
"""
"""Runs scripts, each as a process of its own."""


def outcomes(python: str, folder: Path) -> dict[str, tuple[int, str, str]]:
    """Exit status, output and errors of every distribution's script."""
    scripts = {one.name: folder / f"{one.package}_script.py" for one in ALL}
    for one in ALL:
        scripts[one.name].write_text(one.script, encoding="utf-8")
    checked([python, "-c", RUNNER, *map(str, scripts.values())], cwd=folder)
    return {
        name: (
            int(Path(f"{script}.status").read_text()),
            Path(f"{script}.out").read_text(),
            Path(f"{script}.err").read_text(),
        )
        for name, script in scripts.items()
    }


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return build_wheels(tmp_path_factory.mktemp("wheels"))


def test_every_folder_is_tested() -> None:
    folders = {path.parent.name for path in PLUGINS.glob("*/pyproject.toml")}
    assert folders == {one.name for one in ALL}


@pytest.mark.parametrize("folder", sorted(PLUGINS.glob("sj-*")), ids=lambda folder: folder.name)
def test_tests_and_examples_start_from_the_same_random_numbers(folder: Path) -> None:
    with (folder / "pyproject.toml").open("rb") as file:
        given = tomllib.load(file)["tool"]["pytest"]["ini_options"]["addopts"]
    assert ("-p", "sj_ann2snn.testing.fixed_seed") in itertools.pairwise(given)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_the_wheel_holds_the_package_its_types_and_the_entry_point(
    distribution: Distribution, wheels: dict[str, Path]
) -> None:
    with zipfile.ZipFile(wheels[distribution.name]) as wheel:
        names = set(wheel.namelist())
        (info,) = {name.split("/")[0] for name in names if ".dist-info/" in name}
        metadata = HeaderParser().parsestr(wheel.read(f"{info}/METADATA").decode())
        entry_points = configparser.ConfigParser()
        entry_points.read_string(wheel.read(f"{info}/entry_points.txt").decode())
    assert {name.split("/")[0] for name in names} == {info, distribution.package}
    sources = {
        f"{distribution.package}/{path.name}"
        for path in (PLUGINS / distribution.name / distribution.package).glob("*.py")
    }
    assert sources | {f"{distribution.package}/py.typed", f"{info}/licenses/LICENSE"} <= names
    assert dict(entry_points["sj_ann2snn"]) == {distribution.entry_point: distribution.package}
    assert metadata["Name"] == distribution.name
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.11"
    required = [line.split(";")[0] for line in metadata.get_all("Requires-Dist") if "extra" not in line]
    assert sorted(re.split(r"[<>=]", name)[0] for name in required) == sorted(("sj-ann2snn", *distribution.needs))
    assert f"pip install . ./plugins/{distribution.name}" in metadata.get_payload()


def test_pip_install_is_all_that_unchanged_scripts_need(wheels: dict[str, Path], tmp_path: Path) -> None:
    python = environment_without_plugins(tmp_path / "venv")
    before = outcomes(python, tmp_path)
    for one in ALL:
        assert one.package not in one.script
        status, _, told = before[one.name]
        assert status == 1, one.name
        assert one.fails_with in told

    checked([python, "-m", "pip", "install", "--no-deps", *map(str, wheels.values())])
    for name, (status, out, told) in outcomes(python, tmp_path).items():
        assert status == 0, told
        answer = json.loads(out)
        assert answer["owner"] == f"{name} {wheels[name].name.split('-')[1]}"
        assert answer["error"] < 0.1, name

    checked([python, "-m", "pip", "uninstall", "--yes", *wheels])
    assert outcomes(python, tmp_path) == before
