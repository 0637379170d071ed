"""Arguments of the converter for one layer, beside those that the network was made with."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Mapping
from typing import Any

from ..conversion.layer_settings import LayerSettings
from ..errors import OptionError
from ..support.names import NEGATIVE

__all__ = ["arguments_at", "carried_out", "for_layers"]


def arguments_at(call: Mapping[str, Any], layer: str) -> dict[str, Any]:
    """What holds for a layer of a network that was made with the arguments `call`.

    >>> arguments_at({"mode": "max", "layers": {"layer1.*": {"mode": "99%"}}}, "layer1.relu")
    {'mode': '99%'}
    """
    whole = {name: value for name, value in call.items() if name != "layers"}
    return {**whole, **_own(call, layer)}


def carried_out(call: Mapping[str, Any], layer: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """`arguments` for the whole network; for the layer itself, if arguments of its own would hide them.

    >>> carried_out({"layers": {"pool": {"maxpool": "avg"}}}, "pool", {"maxpool": "cumulative"})
    {'layers': {'pool': {'maxpool': 'cumulative'}}}
    """
    hidden = set(arguments) & set(_own(call, layer))
    return for_layers(call, [layer], arguments) if hidden else dict(arguments)


def for_layers(call: Mapping[str, Any], layers: Iterable[str], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The argument `layers` that gives some layers `arguments`, and leaves every other layer as it is.

    >>> for_layers({"layers": {"layer1.*": {"mode": "99%"}}}, ["layer1.relu"], {"mode": "max"})
    {'layers': {'layer1.*': {'mode': '99%'}, 'layer1.relu': {'mode': 'max'}}}

    Of several patterns that match, the last one wins, so these layers come last.

    Args:
        call: The arguments with which the network was made.
        layers: Their qualified names.
        arguments: Those that a single layer may have.
    """
    found: dict[str, Any] = {**_given(call).by_pattern}
    for layer in layers:
        pattern = glob.escape(layer.removesuffix(NEGATIVE))
        own = _own({"layers": found}, layer) if pattern in found else {}
        found.pop(pattern, None)
        found[pattern] = {**own, **arguments}
    return {"layers": found}


def _own(call: Mapping[str, Any], layer: str) -> dict[str, Any]:
    """The layer's own arguments."""
    settings = _given(call)
    return settings.merged(settings.matching(layer.removesuffix(NEGATIVE)))


def _given(call: Mapping[str, Any]) -> LayerSettings:
    """What the argument `layers` said; nothing, if a file was changed so that it says nothing that is allowed."""
    try:
        return LayerSettings(call.get("layers", {}))
    except OptionError:
        return LayerSettings({})
