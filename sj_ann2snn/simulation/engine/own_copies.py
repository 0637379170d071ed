"""Keeps a network as it is while it is simulated: each runner has copies of its modules."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from ...compat import MemoryModule, fresh_memories, is_plain_if, step_modes
from ...support.locks import exclusive

__all__ = ["left_as_it_was", "own_copies"]

KNOWN = ("spikingjelly.", f"{__name__.partition('.')[0]}.layers.")
"""Where the modules come from whose whole state is their memory and their step mode."""


def own_copies(modules: Mapping[str, nn.Module]) -> dict[str, nn.Module] | None:
    """The modules, with step modes and memories of their own, after a reset; parameters are shared.

    Args:
        modules: Modules without hooks, by name.

    Returns:
        The copies by name; None if a plugin's module cannot be copied.
    """
    # Everything is copied once: a neuron with two names stays one neuron.
    copies: dict[int, Any] = {}
    found = {name: _own_copy(module, copies) for name, module in modules.items()}
    whole = {name: module for name, module in found.items() if module is not None}
    return whole if len(whole) == len(found) else None


def _own_copy(module: nn.Module, copies: dict[int, Any]) -> nn.Module | None:
    known: nn.Module | None = copies.get(id(module))
    if known is not None:
        return known
    remembers = isinstance(module, MemoryModule)
    if remembers and not _is_known(module):
        return _deep_copy(module, copies)
    if not hasattr(module, "step_mode"):
        return module
    copied: nn.Module = object.__new__(type(module))
    copied.__dict__.update(module.__dict__)
    # Hooks that another thread registers meanwhile are not for this simulation.
    copied._forward_hooks, copied._forward_pre_hooks = OrderedDict(), OrderedDict()
    if remembers:
        copied.__dict__["_memories"] = fresh_memories(module)
    copies[id(module)] = copied
    return copied


def _is_known(module: nn.Module) -> bool:
    if is_plain_if(module):
        return True
    nested = any(isinstance(one, MemoryModule) for child in module.children() for one in child.modules())
    return type(module).__module__.startswith(KNOWN) and not nested


def _deep_copy(module: nn.Module, copies: dict[int, Any]) -> nn.Module | None:
    """A copy of a plugin's module, which may keep anything anywhere; only its parameters are shared.

    None if it keeps what cannot be copied.
    """
    for one in module.modules():
        if isinstance(one, MemoryModule):
            # What it remembers now is not needed, and cannot be copied if it carries a gradient history.
            copies[id(one._memories)] = fresh_memories(one)
    copies.update((id(parameter), parameter) for parameter in module.parameters())
    try:
        return copy.deepcopy(module, copies)
    except Exception:
        return None


@contextmanager
def left_as_it_was(network: nn.Module) -> Iterator[None]:
    """Reset the network, and put back its memories and step modes afterwards, even after an error.

    Meanwhile, other threads that want to run the network, or modules of it, wait.
    """
    aware = step_modes(network)
    with exclusive(*(module for module, _ in aware)):
        modes, memories = step_modes(network), _exchange_memories(network)
        try:
            yield
        finally:
            for module, mode in modes:
                module.step_mode = mode  # type: ignore[assignment]
            for module, values in memories:
                module.__dict__["_memories"] = values


def _exchange_memories(network: nn.Module) -> list[tuple[nn.Module, Any]]:
    """Give every module with memory the memory that it has after a reset; returns the earlier ones."""
    remembering = [module for module in network.modules() if isinstance(module, MemoryModule)]
    before = [(module, module._memories) for module in remembering]
    for module in remembering:
        module.__dict__["_memories"] = fresh_memories(module)
    return before
