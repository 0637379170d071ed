"""What the tests of plugins share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sj_ann2snn.testing.fixtures import isolated_plugins  # noqa: F401 - a fixture

from ..helpers.installed import Installed


@pytest.fixture
def installed(isolated_plugins: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installed]:  # noqa: F811
    distributions = Installed(tmp_path, monkeypatch)
    yield distributions
    distributions.unload()
