"""``sj-ann2snn new-plugin``: what it writes installs, is found, passes its own tests and lints clean."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path

import pytest

import sj_ann2snn
from sj_ann2snn import InputError
from sj_ann2snn.cli import main
from sj_ann2snn.cli.new_plugin import KINDS, new_plugin
from sj_ann2snn.hooks import kinds

REPOSITORY = Path(sj_ann2snn.__file__).resolve().parent.parent

MODULES = {
    "normalization": "mode.py",
    "mapper": "mapper.py",
    "neuron": "neuron.py",
    "correction": "correction.py",
    "exit-rule": "rule.py",
    "readout": "readout.py",
    "exporter": "exporter.py",
}

# The longest name that is allowed changes no line's breaks.
NAMES = ["sj-ann2snn-sample", "low-latency", "A_name.that--is-as-long-as-a-name-may-be"]


def run(*command: str, cwd: Path | None = None, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    places = [*([str(path)] if path else []), os.environ.get("PYTHONPATH", ""), str(REPOSITORY)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SJ_ANN2SNN_", "PYTEST_"))}
    environment |= {
        "PYTHONPATH": os.pathsep.join(filter(None, places)),
        "PIP_NO_INDEX": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


def checked(*command: str, cwd: Path | None = None, path: Path | None = None) -> str:
    done = run(*command, cwd=cwd, path=path)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_hook_has_a_kind() -> None:
    assert {hook for _, hook in KINDS.values()} == set(kinds.KINDS)
    assert set(KINDS) == set(MODULES)


@pytest.mark.parametrize("kind", KINDS)
def test_the_distribution_holds_what_it_says(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "written"
    command = [
        "new-plugin",
        "sj-ann2snn-sample",
        "--kind",
        kind,
        "--directory",
        str(folder),
        "--author",
        "Ada Lovelace",
    ]
    assert main(command) == 0
    told = capsys.readouterr().out
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    package = "sj_ann2snn_sample"
    assert files == {
        "LICENSE",
        "README.md",
        "pyproject.toml",
        f"{package}/__init__.py",
        f"{package}/{MODULES[kind]}",
        f"{package}/py.typed",
        f"tests/test_{package}.py",
    }
    assert all(file in told for file in files)
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == "sj-ann2snn-sample"
    assert project["authors"] == [{"name": "Ada Lovelace"}]
    assert project["entry-points"] == {"sj_ann2snn": {"sample": package}}
    assert project["dependencies"] == [f"sj-ann2snn>={'.'.join(sj_ann2snn.__version__.split('.')[:2])}"]
    licence = (folder / "LICENSE").read_text(encoding="utf-8")
    assert licence.startswith("MIT License\n")
    assert "Ada Lovelace" in licence
    assert "    pip install .\n" in (folder / "README.md").read_text(encoding="utf-8")


def test_the_distributions_install_and_work(tmp_path: Path) -> None:
    """One installation of all of them, one look at what is installed, one run of all their tests."""
    written = tmp_path / "written"
    folders = {kind: new_plugin(f"sj-ann2snn-sample-{kind}", kind, written / kind, "Ada Lovelace")[0] for kind in KINDS}
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-compile"]
    checked(*pip, "--target", str(site), *map(str, folders.values()))
    report = json.loads(checked(sys.executable, "-c", LISTED, path=site))
    assert not report["failed"]
    found = {one["distribution"]: one for one in report["plugins"]}
    tried = {one["distribution"]: one for one in report["tried"]}
    for kind, (_, hook) in KINDS.items():
        name, package = f"sj-ann2snn-sample-{kind}", f"sj_ann2snn_sample_{kind.replace('-', '_')}"
        assert {path.name for path in (site / package).iterdir()} == {"__init__.py", "py.typed", MODULES[kind]}
        plugin = found[name]
        assert (plugin["version"], plugin["entry_point"], list(plugin["hooks"])) == ("0.1.0", f"sample-{kind}", [hook])
        assert [one["name"] for one in plugin["hooks"][hook]] == [f"sample-{kind}"]
        assert (tried[name]["name"], tried[name]["status"]) == (f"sample-{kind}", "works")

    junit = tmp_path / "report.xml"
    checked(
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--junitxml={junit}",
        ".",
        cwd=written,
        path=site,
    )
    ran = {kind: [0, 0] for kind in KINDS}
    for case in ElementTree.parse(junit).getroot().iter("testcase"):
        kind = next(one for one in KINDS if case.attrib["classname"].startswith(f"{one}.tests."))
        ran[kind][case.find("skipped") is not None] += 1
    for kind, (passed, skipped) in ran.items():
        assert passed > 5, kind
        # What a sample does not offer is skipped: files that others run, more cases, exact merges, a compiled loop.
        assert (skipped > 0) == (kind in ("exporter", "mapper", "normalization", "neuron")), kind


LISTED = "import sys; from sj_ann2snn.cli import main; sys.exit(main(['plugins', '--json', '--check']))"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_distribution_lints_clean(kind: str, name: str, tmp_path: Path) -> None:
    ruff = pytest.importorskip("ruff", reason="ruff is not installed here; the extra `lint` brings it")
    folder, _ = new_plugin(name, kind, tmp_path / "written", "Ada Lovelace")
    checked(sys.executable, "-m", ruff.__name__, "check", "--no-cache", ".", cwd=folder)
    checked(sys.executable, "-m", ruff.__name__, "format", "--check", "--no-cache", ".", cwd=folder)


def test_the_distributions_are_typed(tmp_path: Path) -> None:
    mypy = pytest.importorskip("mypy", reason="mypy is not installed here; the extra `lint` brings it")
    folders = [new_plugin(f"sample-{kind}", kind, tmp_path / kind, "Ada Lovelace")[0] for kind in KINDS]
    written = [str(found) for folder in folders for found in folder.glob("sj_ann2snn_sample_*")]
    assert len(written) == len(KINDS)
    settings = tmp_path / "mypy.ini"
    settings.write_text(
        "[mypy]\nstrict = True\n[mypy-spikingjelly.*]\nignore_missing_imports = True\nfollow_imports = skip\n"
    )
    # Only the stubs of torch take long, and they are read once.
    arguments = ["--config-file", str(settings), "--cache-dir", str(tmp_path / "cache"), *written]
    checked(sys.executable, "-m", mypy.__name__, *arguments, cwd=tmp_path)


@pytest.mark.parametrize(
    "name",
    ["", "-x", "x-", "a b", "ü", "x/y", "../x", "a" * 41, "3d-mode", "sj_ann2snn", "sj-ann2snn-"],
)
def test_names_that_cannot_be_used(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="is not a valid name for a distribution|Begin with a letter|is the name of this package"
    ):
        new_plugin(name, "neuron", tmp_path / "written")
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [
        ("sj-ann2snn-max", "normalization", r"There is already a normalization mode 'max', from sj-ann2snn "),
        ("relu", "mapper", r"There is already a layer mapper 'relu'"),
        ("neuron", "neuron", r"gives classes the name NeuronMaker, which already means something else"),
        ("test-mode", "normalization", r"gives classes the name TestMode"),
    ],
)
def test_names_that_mean_something_already(name: str, kind: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=told):
        new_plugin(name, kind, tmp_path / "written")


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "precious.txt").write_text("mine", encoding="utf-8")
    assert main(["new-plugin", "low-latency", "--kind", "neuron", "--directory", str(tmp_path)]) == 2
    assert f"{tmp_path} exists and is not empty; nothing was written. Name another folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]
    with pytest.raises(InputError, match="exists and is not a folder"):
        new_plugin("low-latency", "neuron", tmp_path / "precious.txt")


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    new_plugin("low-latency", "neuron", tmp_path)
    assert (tmp_path / "sj_ann2snn_low_latency" / "neuron.py").is_file()


def test_the_name_is_the_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    new_plugin("Low_Latency", "neuron")
    assert (tmp_path / "sj-ann2snn-low-latency" / "sj_ann2snn_low_latency" / "__init__.py").is_file()


@pytest.mark.parametrize("name", ["mmse", "sj-ann2snn-mmse", "MMSE", "json", "torch"])
def test_the_distribution_is_called_like_its_relatives(name: str, tmp_path: Path) -> None:
    plugin = name.lower().removeprefix("sj-ann2snn-")
    new_plugin(name, "normalization", tmp_path)
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == f"sj-ann2snn-{plugin}"
    assert project["entry-points"] == {"sj_ann2snn": {plugin: f"sj_ann2snn_{plugin}"}}


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be written: .* Name another --directory"):
        new_plugin("low-latency", "neuron", tmp_path / "file" / "inside")


@pytest.mark.parametrize(("known", "written"), [("Grace Hopper", "Grace Hopper"), ("", "the authors")])
def test_the_author_is_gits_user_or_the_authors(
    known: str, written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sj_ann2snn.cli.new_plugin._git_user", lambda: known)
    new_plugin("low-latency", "neuron", tmp_path)
    assert f" {written}\n" in (tmp_path / "LICENSE").read_text(encoding="utf-8")


@pytest.mark.parametrize("author", ['A "B" C', "back\\slash", "two\nlines"])
def test_an_author_that_breaks_the_metadata(author: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--author .* is not allowed"):
        new_plugin("low-latency", "neuron", tmp_path / "written", author)


@pytest.mark.skipif(
    not (REPOSITORY / "pyproject.toml").is_file(), reason="the package is not run from its repository here"
)
def test_the_wheel_holds_the_templates_and_the_kit(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    shutil.copytree(REPOSITORY / "sj_ann2snn", source / "sj_ann2snn", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    checked(*pip, "--wheel-dir", str(tmp_path), str(source))
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    package = REPOSITORY / "sj_ann2snn"
    wanted = [*package.rglob("*.template"), *(package / "testing").rglob("*.py")]
    assert {str(path.relative_to(REPOSITORY)) for path in wanted} <= held
