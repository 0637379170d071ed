"""The arguments of SpikingJelly's own converters, and what replaces each of them here."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from ..errors import LegacyArgumentWarning, OptionError
from ..support.wording import shown

__all__ = ["UNSET", "instead_of", "instead_of_attribute", "translate_options", "warn_of_momentum"]

UNSET: Any = object()
"""The default of an argument for which None is a value."""

_INSTEAD = {
    "recipe": (
        "This Converter takes what a recipe holds, Converter(dataloader=..., mode=...). For SpikingJelly 2.0's own "
        "Converter, sj_ann2snn.recipe(dataloader=..., mode=...) makes a recipe."
    ),
    "channel_dim": "Leave it out: channels are axis 1.",
    "pre_spike_maxpool": "SpikingJelly's pre_spike_maxpool=True is maxpool='pre-spike' here.",
    "half_threshold": "SpikingJelly's half_threshold=True is initial_potential=0.5 here.",
    "eps": "Leave it out: a channel that never fired takes the λ of its layer.",
    "neuron_factory": (
        "SpikingJelly's neuron_factory is neuron=... here, the name of a neuron or an instance of NeuronMaker, whose "
        "make(site) returns the neuron."
    ),
}
"""What to do about each argument of SpikingJelly that is not a keyword here."""

_NAMES = ("FXConverter", "LocalThresholdBalancingRecipe", "ModuleConverter", "RateCodingRecipe", "download_url")

_SWITCHES = {"half_threshold": ("initial_potential", 0.5), "pre_spike_maxpool": ("maxpool", "pre-spike")}


def instead_of(name: str) -> str:
    """What to do instead of giving SpikingJelly's argument `name`; empty if SpikingJelly has no such argument.

    >>> instead_of("half_threshold")
    "SpikingJelly's half_threshold=True is initial_potential=0.5 here."
    """
    return _INSTEAD.get(name, "")


def instead_of_attribute(name: str) -> str:
    """Where to find SpikingJelly's own `name`, for a script that imports it from this package; otherwise empty.

    >>> instead_of_attribute("download_url")
    " SpikingJelly's own names are in sj_ann2snn.ann2snn: from sj_ann2snn import ann2snn."
    """
    if name not in _NAMES:
        return ""
    return " SpikingJelly's own names are in sj_ann2snn.ann2snn: from sj_ann2snn import ann2snn."


def warn_of_momentum(momentum: Any, *, stacklevel: int) -> None:
    """Warn, at the caller's line, that `momentum` has no effect."""
    warnings.warn(
        f"momentum={shown(momentum)} has no effect: statistics are exact over all of the calibration data, "
        "whereas SpikingJelly averages over batches. Leave the argument out. "
        "(The momentum of the max-pooling gate is maxpool_momentum.)",
        LegacyArgumentWarning,
        stacklevel=stacklevel,
    )


def translate_options(options: Mapping[str, Any], *, stacklevel: int) -> dict[str, Any]:
    """`options` with the arguments of SpikingJelly's `RateCodingRecipe` translated into this package's.

    >>> translate_options({"half_threshold": True, "channel_dim": 1}, stacklevel=1)
    {'initial_potential': 0.5}

    Raises:
        OptionError: An argument has a value without an equivalent here, or repeats an equivalent that is also given.
    """
    given = dict(options)
    for name, (ours, value) in _SWITCHES.items():
        asked = given.pop(name, False)
        if not isinstance(asked, bool):
            raise OptionError(f"{name}={shown(asked)} is not allowed: it must be True or False.")
        if asked and ours in given:
            raise OptionError(
                f"{name}=True and {ours}={shown(given[ours])} say the same thing twice. {instead_of(name)}"
            )
        if asked:
            given[ours] = value
    channel_dim = given.pop("channel_dim", 1)
    if channel_dim != 1:
        raise OptionError(
            f"channel_dim={shown(channel_dim)} is not allowed: channels are axis 1, as in convolutions. "
            "Leave the argument out, or move the axis in the network."
        )
    if given.pop("neuron_factory", None) is not None:
        raise OptionError(f"neuron_factory is not supported. {instead_of('neuron_factory')}")
    if "eps" in given:
        warnings.warn(
            f"eps={shown(given.pop('eps'))} has no effect. {instead_of('eps')}",
            LegacyArgumentWarning,
            stacklevel=stacklevel,
        )
    return given
