"""Which plugin made a layer of a converted network, noted in the network itself, and which layer failed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType

from torch import fx, nn

from ..errors import PluginError
from .blame import Culprit, describe_failure

__all__ = ["failing_layer", "maker_of_layer", "note_makers", "plugin_failure"]

Layers = Iterable[tuple[str, nn.Module]]
"""Layers with their qualified names; a name may occur again, for a copy."""

KEY = "ann2snn_makers"
"""Key of a converted network's `meta`: the plugins that made its layers, by qualified name."""


def note_makers(network: fx.GraphModule, makers: Mapping[str, Culprit]) -> None:
    """Note which plugins made layers of `network`, by qualified name; plain text, which any pickle holds."""
    if makers:
        network.meta[KEY] = {name: (who.what, who.owner) for name, who in makers.items()}


def maker_of_layer(network: nn.Module, name: str) -> Culprit | None:
    """The plugin that made the layer called `name`, or a layer around it; None for any other layer."""
    for prefix, part in network.named_modules():
        noted = getattr(part, "meta", {}).get(KEY) if isinstance(part, fx.GraphModule) else None
        for target, (what, owner) in (noted or {}).items():
            whole = f"{prefix}.{target}" if prefix else target
            if f"{name}.".startswith(f"{whole}."):
                return Culprit(what, owner)
    return None


def failing_layer(error: BaseException, layers: Layers) -> tuple[str, nn.Module, str] | None:
    """The innermost of `layers` that was at work when `error` was raised: its name, the module, and the method.

    Found in the traceback, because keeping track of every call would slow the simulation down.
    """
    known = {id(module): (name, module) for name, module in layers if name}
    found = None
    frame: TracebackType | None = error.__traceback__
    while frame is not None:
        for value in list(frame.tb_frame.f_locals.values()):
            found = known.get(id(value), found)
        frame = frame.tb_next
    return None if found is None else (*found, _method(error, found[1]))


def _method(error: BaseException, module: nn.Module) -> str:
    """The innermost method of the module's own class that was at work."""
    own = {name for cls in type(module).__mro__ if not cls.__module__.startswith("torch.") for name in vars(cls)}
    frame: TracebackType | None = error.__traceback__
    found = "forward"
    while frame is not None:
        code = frame.tb_frame.f_code
        if frame.tb_frame.f_locals.get("self") is module and code.co_name in own:
            found = code.co_name
        frame = frame.tb_next
    return found


def plugin_failure(network: nn.Module, layers: Layers, given: str, error: BaseException) -> PluginError | None:
    """The error to raise if a layer failed that a plugin made; None if another layer failed.

    Args:
        network: The network.
        layers: Its layers, or the copies of them that ran.
        given: The input of the network, in words.
        error: What was raised.
    """
    found = failing_layer(error, layers)
    who = None if found is None else maker_of_layer(network, found[0])
    if found is None or who is None:
        return None
    name, module, method = found
    doing = f"which made the layer {name}, in a simulation of {given}"
    return PluginError(describe_failure(who, doing, f"{type(module).__name__}.{method}", error))
