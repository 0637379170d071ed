"""Finds operations that mix the samples of a batch.

Such a network has no answer for a single sample. In step mode "m", which merges time with the samples, it would mix
time steps as well. Whether an operation mixes samples is not guessed from its kind but tried.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from ...support.trees import tensors

__all__ = ["mixing_nodes"]

TOLERANCE = 1e-3


class _Keeper(fx.Interpreter):
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.extra_traceback = False
        self.kept: dict[fx.Node, list[Tensor]] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        self.kept[n] = [tensor.detach().clone() for tensor in tensors(result)]
        return result


def mixing_nodes(module: fx.GraphModule, samples: tuple[Any, ...]) -> frozenset[fx.Node]:
    """The nodes at which a sample begins to depend on the others.

    Args:
        module: A traced network.
        samples: Three samples, one value per input.
    """
    whole = _run(module, samples, slice(0, 3))
    parts = (_run(module, samples, slice(0, 2)), slice(0, 2)), (_run(module, samples, slice(1, 3)), slice(1, 3))
    mixing: set[fx.Node] = set()
    tainted: set[fx.Node] = set()
    carrying: set[fx.Node] = set()
    for node in module.graph.nodes:
        if node.op != "placeholder" and not any(source in carrying for source in node.all_input_nodes):
            continue  # made of parameters and sizes alone
        if whole[node]:
            carrying.add(node)
        if any(source in tainted for source in node.all_input_nodes):
            tainted.add(node)
        elif any(
            _differs(one, other, taken)
            for part, taken in parts
            for one, other in zip(whole[node], part[node], strict=False)
        ):
            mixing.add(node)
            tainted.add(node)
    return frozenset(mixing)


def _run(module: fx.GraphModule, samples: tuple[Any, ...], taken: slice) -> dict[fx.Node, list[Tensor]]:
    keeper = _Keeper(module)
    with torch.no_grad():
        keeper.run(*(value[taken].clone() if _holds_samples(value) else value for value in samples))
    return keeper.kept


def _holds_samples(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] == 3


def _differs(whole: Tensor, part: Tensor, taken: slice) -> bool:
    """True if the samples in both runs came out differently; the planner checks shapes."""
    if (
        whole.device.type == "meta"
        or not whole.dim()
        or not part.dim()
        or whole.shape[0] * 2 != part.shape[0] * 3
        or not whole.shape[0]
    ):
        return False
    per_sample = whole.shape[0] // 3
    expected = whole[taken.start * per_sample : taken.stop * per_sample]
    if expected.shape != part.shape:
        return False
    precise = torch.complex128 if expected.is_complex() else torch.float64
    expected, found = expected.to(precise), part.to(precise)
    return bool((expected - found).norm() > TOLERANCE * expected.norm() + 1e-12)
