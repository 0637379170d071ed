"""A network run by SpikingJelly's hand-written loop, as another program would."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["spikes_by_hand"]


@torch.no_grad()
def spikes_by_hand(network: nn.Module, x: Tensor, steps: int) -> dict[str, Tensor]:
    """What the IF neurons emit at every step, ``[T, N, ...]``, by name; and the outputs, as "output"."""
    seen: dict[str, list[Tensor]] = {}
    for name, module in network.named_modules():
        if type(module).__name__ == "IFNode":
            module.register_forward_hook(
                lambda module, args, result, name=name: seen.setdefault(name, []).append(result.clone())
            )
    seen["output"] = [network(x) for _ in range(steps)]
    return {name: torch.stack(values) for name, values in seen.items()}
