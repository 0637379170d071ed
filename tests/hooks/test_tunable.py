"""Values of options that a class offers to be tried: `tunable`."""

from __future__ import annotations

from typing import Any

import pytest

from sj_ann2snn import IFNeuron, Max, NeuronMaker, PluginError
from sj_ann2snn.hooks.discovery import load_plugins
from sj_ann2snn.hooks.kinds import CORRECTIONS, MODES, NEURONS, READOUTS
from sj_ann2snn.testing import NeuronTests, NormalizationTests

TUNED = (MODES, NEURONS, CORRECTIONS, READOUTS)


def neuron(**attributes: Any) -> type[NeuronMaker]:
    return type("Own", (IFNeuron,), {"name": "own", **attributes})


@pytest.mark.parametrize(
    ("tunable", "message"),
    [
        (
            {"levels": (1, 2)},
            r"Own\.tunable names 'levels', which is not an option of the class; its options are backend",
        ),
        ({"mode": ("max",)}, r"Own\.tunable names 'mode'"),
        ({"initial_potential": 0.5}, r"Own\.tunable must hold a tuple of values for each option"),
        ({"initial_potential": ()}, r"Own\.tunable must hold a tuple of values"),
        ({"backend": "torch"}, r"Own\.tunable must hold a tuple of values"),
        (["initial_potential"], r"Own\.tunable must hold a tuple of values"),
    ],
)
def test_what_no_option_can_be_is_refused(tunable: Any, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        NEURONS.check(neuron(tunable=tunable))


@pytest.mark.parametrize("anytime", [{"earliest": 4}, {"T": 4}, ["earliest"], {"other": 1}])
def test_options_of_a_network_for_all_steps_are_options_besides_t(anytime: Any) -> None:
    class Own(Max):
        name = "own"

        def __init__(self, *, T: int = 8, other: int = 1) -> None: ...  # noqa: N803

    Own.anytime = anytime
    if anytime == {"other": 1}:
        MODES.check(Own)
    else:
        with pytest.raises(PluginError, match=r"Own\.anytime must hold values of options besides T .*T, other\.$"):
            MODES.check(Own)


def test_every_declared_value_can_be_used() -> None:
    values = [
        (one.cls, name, value)
        for kind in TUNED
        for one in load_plugins().registered(kind)
        for name, given in one.cls.tunable.items()
        for value in given
    ]
    assert len(values) > 10
    for cls, name, value in values:
        made = cls.parse(value) if name == "mode" else cls(**{name: value})
        assert isinstance(made, cls)


class Contract(NeuronTests):
    plugin_class = neuron(tunable={"initial_potential": (0.25, "half")})


class Modes(NormalizationTests):
    plugin_class = type("Own", (Max,), {"name": "own", "tunable": {"mode": ("own", "other")}})


def test_the_kit_finds_a_value_that_the_class_refuses() -> None:
    with pytest.raises(Exception, match="initial_potential='half'"):
        Contract().test_tunable_values_are_allowed()
    with pytest.raises(AssertionError, match="tunable says 'other', which parse"):
        Modes().test_tunable_values_are_allowed()


# Pytest collects classes by their names.
del NeuronTests, NormalizationTests
