"""The checks of a release notice what is wrong with an archive, and read the lowest versions."""

from __future__ import annotations

import importlib.util
import io
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

CI = Path(__file__).resolve().parents[2] / ".ci"

pytestmark = pytest.mark.skipif(not CI.is_dir(), reason=f"{CI} is missing: it comes with the repository")


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, CI / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, Path]:
    """A wheel and a source archive of a distribution of two files, as they should be."""
    packages = script("packages")
    monkeypatch.setattr(packages, "call", lambda *command, cwd: "good/__init__.py\0good/page.css\0")
    with zipfile.ZipFile(tmp_path / "good-1.0-py3-none-any.whl", "w") as wheel:
        for name in ("good/__init__.py", "good/page.css", "good-1.0.dist-info/METADATA"):
            wheel.writestr(name, "")
    with tarfile.open(tmp_path / "good-1.0.tar.gz", "w:gz") as source:
        for name in ("good-1.0/good/__init__.py", "good-1.0/good/page.css", "good-1.0/PKG-INFO"):
            source.addfile(tarfile.TarInfo(name), io.BytesIO())
    return packages, tmp_path


RULES = {
    "wheel": {"tracked": ["{package}"], "added": ["METADATA/METADATA"]},
    "sdist": {"tracked": ["{package}"], "added": ["PKG-INFO"]},
}


def test_archives_as_they_should_be(archives: tuple[ModuleType, Path]) -> None:
    packages, folder = archives
    assert packages.compare("good", folder, folder, RULES) == []


def test_files_that_are_missing_or_stray_are_named(
    archives: tuple[ModuleType, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    packages, folder = archives
    with zipfile.ZipFile(folder / "good-1.0-py3-none-any.whl", "a") as wheel:
        wheel.writestr("tests/test_good.py", "")
    assert packages.compare("good", folder, folder, RULES) == [
        "good-1.0-py3-none-any.whl holds tests/test_good.py, which is not on the list"
    ]
    monkeypatch.setattr(packages, "call", lambda *command, cwd: "good/__init__.py\0good/page.css\0good/new.css\0")
    assert "good-1.0.tar.gz lacks good/new.css" in packages.compare("good", folder, folder, RULES)
    (folder / "good-1.0.tar.gz").unlink()
    assert packages.compare("good", folder, folder, RULES)[0].startswith("good: expected a wheel and a source archive")


def test_unmet_requirements_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    packages = script("packages")
    stated = ["pytest>=9999", "no-such-package>=1", "pytest>=1", "no-such-package; extra == 'more'"]
    monkeypatch.setattr(packages.importlib.metadata, "requires", lambda name: stated)
    first, second = packages.unmet(["good"])
    assert first.startswith("good requires pytest>=9999; installed is ")
    assert second == "good requires no-such-package>=1; installed is nothing"


def test_the_lowest_versions_are_those_of_the_metadata() -> None:
    lowest = script("lowest").lowest
    extras = {"test": ["own[demo]", "c>=1.0,<2"], "demo": ["d>=3; python_version < '4'"]}
    assert lowest(["a>=1.2", "own[test]"], "own", extras) == {"a": "1.2", "c": "1.0", "d": "3"}
    with pytest.raises(SystemExit, match="'a<2' in pyproject.toml has no lower bound"):
        lowest(["a<2"], "own", {})
