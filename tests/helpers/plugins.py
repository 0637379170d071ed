"""Plugin objects with one hook."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from sj_ann2snn import hookimpl


def plugin(hook: str, *classes: type) -> Any:
    """A plugin object with one hook that contributes `classes`."""

    def contribute() -> list[type]:
        return list(classes)

    contribute.__name__ = hook
    return SimpleNamespace(**{hook: hookimpl(contribute)})
