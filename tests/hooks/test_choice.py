"""Which class or instance an argument means, the same for every hook."""

from __future__ import annotations

from typing import Any

import pytest

from sj_ann2snn import OptionError
from sj_ann2snn.hooks.choice import choose, find
from sj_ann2snn.hooks.discovery import load_plugins
from sj_ann2snn.hooks.kinds import KINDS, HookKind
from sj_ann2snn.hooks.registry import CALLER, Owner, PluginFailure, Registry

NAMED = [kind for kind in KINDS.values() if not kind.named_freely]
"""Modes, which parse what users write, have tests of their own."""


def stand_in(kind: HookKind) -> type:
    """A class of this kind that does nothing."""
    methods = dict.fromkeys(getattr(kind.base, "__abstractmethods__", ()), lambda self: None)
    return type("Sample", (kind.base,), {"name": "zebra", **methods})


def registry_with(kind: HookKind) -> Registry:
    registry = load_plugins().copy()
    registry.add({kind.hook: [stand_in(kind)]}, Owner("samples", "1.2"))
    registry.failures.append(PluginFailure(Owner("broken", "0.3", "entry"), "ImportError: no module"))
    return registry


@pytest.mark.parametrize("kind", NAMED, ids=lambda kind: kind.hook)
def test_an_unknown_name_gets_suggestions_owners_and_what_failed(kind: HookKind) -> None:
    with pytest.raises(OptionError) as caught:
        choose(registry_with(kind), kind, "zbera")
    message = str(caught.value)
    assert message.startswith(f"{kind.argument}='zbera' is not known. Did you mean 'zebra'? Known {kind.plural}: ")
    assert "'zebra' (samples 1.2)" in message
    assert f"as an instance of {kind.base.__name__}." in message
    assert "broken 0.3 (entry point 'entry'): ImportError: no module" in message


@pytest.mark.parametrize("kind", NAMED, ids=lambda kind: kind.hook)
def test_names_instances_and_nothing_else(kind: HookKind) -> None:
    registry = registry_with(kind)
    by_name = choose(registry, kind, "ZEBRA")
    assert by_name.found == find(registry, kind, "zebra")
    assert by_name.instance is None
    assert by_name.found.owner == Owner("samples", "1.2")
    given: Any = by_name.found.cls()
    assert choose(registry, kind, given).instance is given
    assert choose(registry, kind, given).found.owner == CALLER
    with pytest.raises(OptionError, match=rf"^{kind.argument}=Sample is a class; give an instance"):
        choose(registry, kind, by_name.found.cls)
    with pytest.raises(
        OptionError, match=rf"^{kind.argument}=3 is not allowed: .*or an instance of {kind.base.__name__}"
    ):
        choose(registry, kind, 3)
