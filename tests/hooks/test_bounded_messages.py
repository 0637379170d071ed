"""Whatever a plugin or a caller hands in, a message stays short, and none fails while it is being written."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sj_ann2snn import (
    Ann2SnnError,
    Converter,
    Correction,
    ExitRule,
    Exporter,
    LayerMapper,
    NeuronMaker,
    Normalization,
    Observer,
    PluginError,
    PluginWarning,
    Readout,
    evaluate,
    export,
    simulate,
)
from sj_ann2snn.builtin.normalizations import Max
from sj_ann2snn.cli import main
from sj_ann2snn.hooks import discovery
from sj_ann2snn.hooks.kinds import KINDS
from sj_ann2snn.support.batches import describe_batch
from sj_ann2snn.support.wording import described, first_line, listed, shown

from ..helpers.installed import Installed
from ..helpers.plugins import plugin

LONGEST = 3000
"""Characters of the longest message about one fault."""

HUGE = 10**6


class Custom(BaseException):
    """Not an `Exception`."""


class Unprintable(Exception):  # noqa: N818
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Exiting(Exception):  # noqa: N818
    def __str__(self) -> str:
        raise SystemExit(3)

    __repr__ = __str__


FAULTS: dict[str, Callable[[], BaseException]] = {
    "RuntimeError": lambda: RuntimeError("boom"),
    "without text": ValueError,
    "SystemExit": lambda: SystemExit(0),
    "BaseException": lambda: Custom("boom"),
    "unprintable": Unprintable,
    "exits while printed": Exiting,
    "huge": lambda: ValueError("x" * HUGE),
    "many lines": lambda: ValueError("line\n" * 10**5),
    "huge argument": lambda: KeyError(["x"] * 10**4),
}
"""What a plugin may raise."""

AT_IMPORT = {
    "RuntimeError": "raise RuntimeError('boom')",
    "SystemExit": "import sys; sys.exit(0)",
    "BaseException": "class Custom(BaseException): pass\nraise Custom('boom')",
    "cancelled": "import asyncio\nraise asyncio.CancelledError",
    "unprintable": "class E(Exception):\n    def __str__(self): raise RuntimeError\n    __repr__ = __str__\nraise E",
    "exits while printed": "class E(Exception):\n    def __str__(self): raise SystemExit\n    __repr__ = __str__\nraise E",
    "huge": f"raise ValueError('x' * {HUGE})",
    "huge PluginError": f"from sj_ann2snn import PluginError\nraise PluginError('x' * {HUGE})",
}
"""Modules of plugins that fail while they are imported."""


class Hostile:
    """A value that cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__


VALUES: dict[str, Callable[[], Any]] = {
    "no repr": Hostile,
    "long text": lambda: "x" * HUGE,
    "long list": lambda: ["x"] * 10**4,
    "nested lists": lambda: [[[0] * 100] * 100],
    "tensor": lambda: torch.zeros(100, 100),
    "text over lines": lambda: "line\n" * 1000,
}
"""Values that a caller may give for any argument."""


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def images() -> torch.Tensor:
    return torch.rand(20, 4)


def convert(**arguments: Any) -> nn.Module:
    return Converter([images()], progress=False, **arguments)(network())


@pytest.mark.parametrize("hook", KINDS)
@pytest.mark.parametrize("fault", AT_IMPORT)
def test_a_plugin_that_fails_at_import_takes_no_other_down(fault: str, hook: str, installed: Installed) -> None:
    installed.add("alpha-bad", f"{AT_IMPORT[fault]}\ndef {hook}(): return []\n")
    installed.add_mode("beta-good", "twice")
    discovery.forget_plugins()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        registry = discovery.load_plugins()
    (warning,) = [str(one.message) for one in seen if one.category is PluginWarning]
    assert "alpha-bad" in warning
    assert len(warning) < 4 * LONGEST
    (failure,) = registry.failures
    assert len(failure.traceback) < 10 * LONGEST
    assert "beta-good" in {one.owner.distribution for found in registry.classes.values() for one in found}
    assert convert(mode="twice") is not None


@pytest.mark.parametrize("hook", KINDS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_hook_that_raises_is_a_failure_of_its_plugin(fault: str, hook: str) -> None:
    def contribute() -> Any:
        raise FAULTS[fault]()

    contribute.__name__ = hook
    from sj_ann2snn import hookimpl

    with pytest.raises(Ann2SnnError) as caught:
        Converter(plugins=[type("Plugin", (), {hook: staticmethod(hookimpl(contribute))})()])
    assert len(str(caught.value)) < LONGEST


def test_ctrl_c_at_import_stays_ctrl_c(installed: Installed) -> None:
    installed.add("alpha-bad", "raise KeyboardInterrupt")
    discovery.forget_plugins()
    with pytest.raises(KeyboardInterrupt):
        discovery.load_plugins()


def raising(base: type, *methods: str, error: Callable[[], BaseException], **members: Any) -> Any:
    """An instance of `base` whose methods raise."""

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise error()

    return type("Faulty", (base,), {"name": "faulty", **dict.fromkeys(methods, fail), **members})()


def faulty_mode(method: str, error: Callable[[], BaseException]) -> Any:
    def observer(self: Any, site: Any) -> Observer:
        found = Max().observer(site)

        def fail(*args: Any) -> Any:
            raise error()

        setattr(found, method, fail)
        return found

    return raising(Normalization, error=error, observer=observer)


def try_parse(error: Callable[[], BaseException]) -> None:
    def fail(cls: type, mode: object) -> Any:
        raise error()

    faulty = type("Faulty", (Max,), {"name": "faulty", "parse": classmethod(fail)})
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        Converter(mode="max", plugins=[plugin("ann2snn_normalizations", faulty)])
    (warning,) = [str(one.message) for one in seen if one.category is PluginWarning]
    assert "'faulty'" in warning
    raise PluginError(warning)


ATTEMPTS: dict[str, Callable[[Callable[[], BaseException]], Any]] = {
    "mode, parse": try_parse,
    "mode, observer": lambda error: convert(mode=raising(Normalization, "observer", error=error)),
    "mode, observe": lambda error: convert(mode=faulty_mode("observe", error)),
    "mode, end_pass": lambda error: convert(mode=faulty_mode("end_pass", error)),
    "mode, scale": lambda error: convert(mode=faulty_mode("scale", error)),
    "mapper": lambda error: convert(mappers={"1": raising(LayerMapper, "map", error=error, claims=(nn.ReLU,))}),
    "neuron, unit": lambda error: convert(neuron=raising(NeuronMaker, "unit", "make", error=error)),
    "neuron, make": lambda error: convert(neuron=raising(NeuronMaker, "make", error=error)),
    "correction": lambda error: convert(corrections=raising(Correction, "correct", error=error)),
    "exit rule": lambda error: evaluate(
        convert(),
        [(images(), torch.zeros(20, dtype=torch.int64))],
        T=2,
        early_exit=raising(ExitRule, "settled", error=error),
        progress=False,
    ),
    "readout, check": lambda error: simulate(
        convert(), images(), 2, readout=raising(Readout, "check", "answers", error=error)
    ),
    "readout, answers": lambda error: simulate(
        convert(), images(), 2, readout=raising(Readout, "answers", error=error)
    ),
    "exporter": lambda error: export(convert(), "network.faulty", raising(Exporter, "export", error=error)),
}
"""Every hook's methods, each with a fault in it."""


@pytest.mark.parametrize("attempt", ATTEMPTS)
@pytest.mark.parametrize("fault", FAULTS)
def test_every_method_of_a_plugin_may_raise_anything(
    fault: str, attempt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PluginError, match="'faulty'|network.faulty") as caught:
        ATTEMPTS[attempt](FAULTS[fault])
    assert len(str(caught.value)) < LONGEST
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_ctrl_c_in_a_plugin_stays_ctrl_c(attempt: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        ATTEMPTS[attempt](KeyboardInterrupt)


ARGUMENTS: dict[str, Callable[[Any], Any]] = {
    "mode": lambda value: Converter(mode=value),
    "neuron": lambda value: Converter(neuron=value),
    "corrections": lambda value: Converter(corrections=value),
    "mappers": lambda value: convert(mappers={"1": value}),
    "leaf_modules": lambda value: convert(leaf_modules=value),
    "convert_only": lambda value: convert(convert_only=value),
    "T": lambda value: Converter(T=value),
    "maxpool": lambda value: Converter(maxpool=value),
    "percentile_bits": lambda value: Converter(mode="99%", percentile_bits=value),
    "initial_potential": lambda value: Converter(initial_potential=value),
    "dataloader": lambda value: Converter(value, progress=False)(network()),
    "T of simulate": lambda value: simulate(convert(), images(), value),
    "input of simulate": lambda value: simulate(
        convert(), value if not isinstance(value, torch.Tensor) else value[0], 2
    ),
    "readout": lambda value: simulate(convert(), images(), 2, readout=value),
    "precision": lambda value: simulate(convert(), images(), 2, precision=value),
    "early_exit": lambda value: evaluate(convert(), [], 2, early_exit=value, progress=False),
    "loader": lambda value: evaluate(convert(), value, 2, progress=False),
    "batch": lambda value: evaluate(convert(), [value], 2, progress=False),
    "labels": lambda value: evaluate(convert(), [(images(), value)], 2, progress=False),
    "format": lambda value: export(convert(), "network.zip", value),
}
"""Arguments that a caller may give anything."""


@pytest.mark.parametrize("argument", ARGUMENTS)
@pytest.mark.parametrize("kind", VALUES)
def test_every_argument_may_be_anything(
    kind: str, argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Ann2SnnError) as caught:
        ARGUMENTS[argument](VALUES[kind]())
    assert len(str(caught.value)) < LONGEST


def test_many_unknown_names_are_cut() -> None:
    with pytest.raises(Ann2SnnError) as caught:
        Converter(**{f"option_{index}": 1 for index in range(10**4)})
    assert len(str(caught.value)) < 2 * LONGEST
    assert "and 9,900 more" in str(caught.value)


def test_the_command_line_shows_a_broken_plugin_in_a_few_lines(
    installed: Installed, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, source in AT_IMPORT.items():
        installed.add(f"bad-{name.replace(' ', '-').lower()}", source)
    discovery.forget_plugins()
    assert main(["plugins", "--json"]) == 1
    out = capsys.readouterr().out
    assert len(json.loads(out)["failed"]) == len(AT_IMPORT)
    assert len(out) < 10**5


def test_helpers_never_fail() -> None:
    for error in (make() for make in FAULTS.values()):
        assert len(described(error)) < 500
        assert len(first_line(error)) < 500
    for value in (make() for make in VALUES.values()):
        assert len(shown(value)) < 500
        assert len(listed([value, value])) < 500
        assert len(describe_batch(value)) < 500
        assert "\n" not in shown(value)
    for value in (KeyboardInterrupt,):
        hostile = type("Interrupting", (), {"__repr__": lambda self, value=value: (_ for _ in ()).throw(value)})()
        with pytest.raises(KeyboardInterrupt):
            shown(hostile)
