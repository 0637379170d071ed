"""What the tests of plugins share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sj_ann2snn.hooks import discovery

from ..helpers.installed import Installed


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installed]:
    monkeypatch.delenv(discovery.ALLOW_VARIABLE, raising=False)
    monkeypatch.delenv(discovery.DENY_VARIABLE, raising=False)
    discovery._load.cache_clear()
    yield Installed(tmp_path, monkeypatch)
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]
    discovery._load.cache_clear()
