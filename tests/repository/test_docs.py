"""The documentation: its Python runs, its signatures are those of the package, its links lead somewhere, the site builds."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import sj_ann2snn
from sj_ann2snn import Correction, ExitRule, Exporter, LayerMapper, NeuronMaker, Normalization, Observer, Readout
from sj_ann2snn.contracts.trial import Trial, TrialLayer, TrialOutput, TrialSite
from sj_ann2snn.hooks import kinds
from sj_ann2snn.hooks.specs import HookSpecs

ROOT = Path(sj_ann2snn.__file__).resolve().parent.parent
DOCS = ROOT / "docs"

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason=f"{DOCS} is missing: it comes with the repository")

PAGES = sorted(DOCS.glob("*.md")) if DOCS.is_dir() else []
IDS = [page.stem for page in PAGES]

READMES = [*sorted(ROOT.glob("README*.md")), *sorted(ROOT.glob("plugins/*/README.md"))]

BROUGHT = {
    '"burst"': "sj-ann2snn-burst",
    '"cos"': "sj-ann2snn-offsets",
    '"differential"': "sj-ann2snn-differential",
    '"ftbc"': "sj-ann2snn-offsets",
    '"layer-by-layer"': "sj-ann2snn-calibration",
    '"low-latency"': "sj-ann2snn-calibration",
    '"ltb"': "sj-ann2snn-ltb",
    '"multi-threshold"': "sj-ann2snn-multithreshold",
    '"signed"': "sj-ann2snn-signed",
    '"snn-calibration"': "sj-ann2snn-calibration",
    '"nir"': "sj-ann2snn-nir",
    '"onnx"': "sj-ann2snn-onnx",
    "import onnxruntime": "onnxruntime",
    "sj_ann2snn_onnx": "sj-ann2snn-onnx",
    '"sigma"': "sj-ann2snn-sigma",
    '"spike-norm"': "sj-ann2snn-spikenorm",
    '"staircase"': "sj-ann2snn-calibration",
    "torchvision": "images of torchvision's size",
}
"""What a piece of Python says, and the distribution that it then needs."""

RELATED: dict[type, tuple[type, ...]] = {
    Normalization: (Normalization, Observer),
    LayerMapper: (LayerMapper,),
    NeuronMaker: (NeuronMaker,),
    Correction: (Correction, Trial, TrialLayer, TrialOutput, TrialSite),
    Readout: (Readout,),
    ExitRule: (ExitRule,),
    Exporter: (Exporter,),
}
"""For the base class of each hook the classes whose methods the hook reference writes down."""


def blocks(page: Path, kind: str) -> Iterator[str]:
    """The fenced blocks of a page whose first line is exactly ``kind``."""
    for found in re.finditer(r"^```([^\n]*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        if found[1].strip() == kind:
            yield found[2]


# Python ----------------------------------------------------------------------------------------------


def names() -> dict[str, Any]:
    """What a reader has at hand: a trained network, and data."""
    torch.manual_seed(0)
    ann = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5)).eval()
    images = torch.rand(64, 1, 8, 8)
    labels = ann(images).argmax(1)
    loader = [(images[:32], labels[:32]), (images[32:], labels[32:])]
    return {
        "ann": ann,
        "images": images,
        "labels": labels,
        "x": images[:8],
        "calibration_loader": loader,
        "test_loader": loader,
        "__name__": "snippet",
    }


def installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


@pytest.mark.parametrize("page", [*PAGES, *READMES], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_piece_of_python_runs(page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    scope = names()
    needed: set[str] = set()
    for code in blocks(page, "python"):
        missing = {brought for said, brought in BROUGHT.items() if said in code and not installed(brought)}
        if page.parent.parent.name == "plugins" and not installed(page.parent.name):
            missing.add(page.parent.name)
        needed |= missing
        if not missing:
            exec(compile(code, f"{page.name}", "exec"), scope)
    if needed:
        pytest.skip(f"pieces need {', '.join(sorted(needed))}")


def test_there_is_python_to_run() -> None:
    assert sum(1 for page in PAGES for _ in blocks(page, "python")) > 8
    assert all(any(blocks(page, "python")) for page in READMES)


def test_conformance_tests_of_the_documentation_pass(tmp_path: Path) -> None:
    """The test classes of two pages, under pytest, as a reader would run them."""
    for page in ("first-mode", "publishing"):
        code = "\n".join(blocks(DOCS / f"{page}.md", "python"))
        given = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom tests.repository.test_docs import names\n"
        given += "globals().update({**names(), '__name__': __name__})\n"
        (tmp_path / f"test_{page.replace('-', '_')}.py").write_text(f"{given}\n{code}", encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = Counter(
        case.attrib["classname"].split(".")[0]
        for case in ElementTree.parse(report).getroot().iter("testcase")
        if case.find("skipped") is None
    )
    assert set(passed) == {"test_first_mode", "test_publishing"}
    assert min(passed.values()) > 10


# Signatures ------------------------------------------------------------------------------------------


def written(cls: type) -> Iterator[str]:
    """The public methods of a class, each as one line."""
    for name, member in vars(cls).items():
        function = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
        if inspect.isfunction(function) and not name.startswith("_"):
            signature = inspect.signature(function)
            given = [one for one in signature.parameters.values() if one.name not in ("self", "cls")]
            text = str(signature.replace(parameters=given)).replace("'", "")
            yield f"{cls.__name__}.{name}{text}"


def signatures(hook: str) -> str:
    """What the hook reference has to say of a hook."""
    specification = inspect.signature(getattr(HookSpecs, hook))
    lines = [f"{hook}() -> {specification.return_annotation}"]
    for cls in RELATED[kinds.KINDS[hook].base]:
        lines += written(cls)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("hook", kinds.KINDS)
def test_the_hook_reference_has_the_live_signatures(hook: str) -> None:
    section = (DOCS / "hooks.md").read_text(encoding="utf-8").partition(f"\n## `{hook}`\n")[2].partition("\n## ")[0]
    assert section, f"docs/hooks.md has no section '## `{hook}`'"
    assert f'```text title="Signatures"\n{signatures(hook)}```' in section


# Figures ---------------------------------------------------------------------------------------------


def test_the_tables_of_few_steps_are_those_that_the_benchmark_wrote() -> None:
    results = ROOT / "benchmarks" / "results" / "low_latency"
    page = (DOCS / "few-steps.md").read_text(encoding="utf-8")
    assert (results / "low_latency.md").read_text(encoding="utf-8").strip() in page
    settings = (results / "settings_resnet20.md").read_text(encoding="utf-8")
    measured = [line for line in settings.splitlines() if re.match(r"\| \d", line)]
    assert len(measured) > 10
    assert all(line in page for line in measured)
    for picture in ("accuracy_over_steps.png", "accuracy_over_spikes.png"):
        assert (results / picture).read_bytes() == (DOCS / "images" / picture).read_bytes()


def test_the_tables_of_real_networks_are_those_that_the_benchmark_wrote() -> None:
    written = (ROOT / "benchmarks" / "results" / "real_networks" / "real_networks.md").read_text(encoding="utf-8")
    assert written.strip() in (DOCS / "real-networks.md").read_text(encoding="utf-8")


# Links and the site ----------------------------------------------------------------------------------


def links(page: Path) -> list[str]:
    """The targets of a page's links to other files."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"\]\(([^)\s]+)\)", text)
    return [target for target in found if not target.startswith(("http://", "https://", "#"))]


def test_pages_link_to_each_other() -> None:
    assert sum(len(links(page)) for page in PAGES) > len(PAGES)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        assert (page.parent / target.partition("#")[0]).exists(), f"{page.name} links to {target}"


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    for needed in ("material", "latex2mathml"):
        pytest.importorskip(needed, reason=f"{needed} is not installed; the extra `docs` brings it")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    built = {path.parent.name for path in (tmp_path / "site").glob("*/index.html")}
    assert {page.stem for page in PAGES} - {"index"} <= built
    for page in PAGES:
        html = (tmp_path / "site" / ("" if page.stem == "index" else page.stem) / "index.html").read_text(
            encoding="utf-8"
        )
        assert html.count("<math ") == sum(1 for _ in blocks(page, "math")), f"{page.name}: formulas are missing"
        loaded = re.findall(r"<(?:script|img|link rel=\"stylesheet\")[^>]* (?:src|href)=\"(https?:[^\"]*)", html)
        assert not loaded, f"{page.name} loads {loaded}"
        language = "zh-CN" if page.stem.endswith(".zh-CN") else "en"
        assert f'<html lang="{language}"' in html, f"{page.name} says that it is in another language"
