"""Finds the submodules of a network that convert, for the message about one that cannot be traced as a whole."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..contracts.replacements import Weighted
from ..contracts.site import Varies
from ..errors import ConversionError
from ..support.batches import forward_signature, run_batch
from ..support.neutral import neutral
from ..support.trees import map_tensors
from ..support.wording import shown
from .calibrate import CalibrationData
from .draft import Draft
from .graph.own_network import require_python
from .prepare import working_copy
from .submodule import Part, by_name

__all__ = ["convertible_submodules", "what_to_name"]

MOST_TRIES = 60
"""Submodules that are planned in the search; a message need not be complete, but must not take minutes."""

MOST_NAMES = 8


def what_to_name(part: Part, plan: Callable[[Part], Draft]) -> str:
    """A sentence that names the submodules of a part that convert; empty if there are none."""
    names = convertible_submodules(part, plan)
    if not names:
        return ""
    listed = ", ".join(map(shown, names[:MOST_NAMES]))
    more = f" (and {len(names) - MOST_NAMES} more)" if len(names) > MOST_NAMES else ""
    given = listed if len(names) == 1 else f"[{listed}]"
    return (
        f"Its parts that convert: convert_only={given}{more}. simulate then runs these over time, and the rest of the "
        "network once, on their mean outputs."
    )


def convertible_submodules(part: Part, plan: Callable[[Part], Draft]) -> list[str]:
    """Qualified names of the largest submodules with weights behind neurons, and with nothing that is refused.

    Args:
        part: What cannot be traced.
        plan: Plans a part, or raises an error.
    """
    try:
        require_python(part.ann)
        network = working_copy(part.ann, part.device)
    except ConversionError:  # what cannot be followed, or copied, was reported already
        return []
    calls = _first_calls(network, part)
    tries = 0

    def search(module: nn.Module, prefix: str) -> list[str]:
        nonlocal tries
        found = []
        for name, child in module.named_children():
            if not any(True for _ in child.children()):
                continue
            if prefix + name in calls and next(child.parameters(), None) is not None and tries < MOST_TRIES:
                tries += 1
                whole = part.prefix + prefix + name
                if _converts(Part(child, CalibrationData([calls[prefix + name]]), part.device, whole), plan):
                    found.append(whole)
                    continue
            found += search(child, f"{prefix}{name}.")
        return found

    return search(network, "")


def _converts(part: Part, plan: Callable[[Part], Draft]) -> bool:
    try:
        made = plan(part).plan
    except Exception:  # whatever it is, it is another submodule's problem, and not the one to report
        return False
    behind = [one for one in made.decisions.values() if any(v.varies is Varies.VARYING for v in one.site.values)]
    return bool(made.spikes) and not made.problems and any(isinstance(one.replacement, Weighted) for one in behind)


def _first_calls(network: nn.Module, part: Part) -> dict[str, Any]:
    """The inputs of three samples at the first call of every submodule; none if the network cannot run."""
    calls: dict[str, Any] = {}

    def keep(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if name not in calls:
            calls[name] = map_tensors(by_name(module, args, kwargs), lambda x: (x[:3] if x.dim() else x).clone())

    modules = [(name, module) for name, module in network.named_modules() if name]
    handles = [module.register_forward_pre_hook(partial(keep, name), with_kwargs=True) for name, module in modules]
    signature = forward_signature(network, part.data.first)

    def run(*inputs: Any) -> None:
        signature.caller(network)(*map_tensors(inputs, Tensor.clone))

    try:
        with neutral(network), torch.no_grad():
            run_batch(run, part.data.first, 0, signature, part.device)
    except Exception:
        return {}
    finally:
        for handle in handles:
            handle.remove()
    return calls
