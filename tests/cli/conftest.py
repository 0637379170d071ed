"""What the tests of the command line share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..helpers.command_line import USER_CODE


@pytest.fixture
def no_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The built-ins alone, whatever is installed where the tests run."""
    monkeypatch.setenv("SJ_ANN2SNN_LOAD_PLUGINS", "")
    monkeypatch.delenv("SJ_ANN2SNN_DISABLE_PLUGINS", raising=False)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current directory with the user's module."""
    (tmp_path / "usercode.py").write_text(USER_CODE, encoding="utf-8")
    (tmp_path / "userbroken.py").write_text("import no_such_package_at_all\n", encoding="utf-8")
    (tmp_path / "usersyntax.py").write_text("def f(:\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SJ_ANN2SNN_LOAD_PLUGINS", "")
    yield tmp_path
    for name in ("usercode", "userbroken", "usersyntax"):
        sys.modules.pop(name, None)
