"""Notices what a network writes into itself while it runs."""

from __future__ import annotations

from collections import deque
from typing import Any

from torch import Tensor, nn

__all__ = ["PlainState", "written_tensors"]

_OWN = frozenset(vars(nn.Module())) | {"inplace"}
"""Attributes that torch itself keeps in a module."""


class PlainState:
    """The attributes of a network's modules that are neither parameters, buffers nor modules, at one moment."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._values = {
            (name, attribute): (value, _fingerprint(value))
            for name, module in network.named_modules()
            for attribute, value in vars(module).items()
            if attribute not in _OWN
        }

    def changed(self) -> list[str]:
        """The qualified names of the attributes that have changed since."""
        now = PlainState(self._network)._values
        keys = [*self._values, *(key for key in now if key not in self._values)]
        return [
            ".".join(filter(None, key))
            for key in keys
            if key not in self._values or key not in now or now[key][1] != self._values[key][1]
        ]

    def restore(self) -> None:
        """Give attributes that held no tensor their former value, and remove new ones."""
        for name, module in self._network.named_modules():
            for attribute in [one for one in vars(module) if one not in _OWN]:
                before = self._values.get((name, attribute))
                if before is None:
                    del vars(module)[attribute]
                elif not isinstance(before[0], Tensor):
                    vars(module)[attribute] = before[0]


def _fingerprint(value: Any, depth: int = 3) -> Any:
    if isinstance(value, Tensor):
        return id(value), value._version
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        return repr(value)
    if depth and isinstance(value, (list, tuple, deque)):
        return [_fingerprint(item, depth - 1) for item in value]
    if depth and isinstance(value, dict):
        return [(key, _fingerprint(item, depth - 1)) for key, item in value.items()]
    return id(value)


def written_tensors(network: nn.Module) -> dict[str, tuple[int, int]]:
    """Which tensor each parameter and buffer is, and how often it was written to in place."""
    return {
        name: (id(tensor), tensor._version) for name, tensor in (*network.named_parameters(), *network.named_buffers())
    }
