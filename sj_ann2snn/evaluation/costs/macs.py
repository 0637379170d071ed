"""Counts the multiply-accumulates (MACs) of one pass through a network, by layer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn

from ...support.locks import exclusive

__all__ = ["MacCount", "count_macs"]

aten = torch.ops.aten

UNKNOWN = (
    "_cdist_forward",
    "_cudnn_rnn",
    "_embedding_bag",
    "_embedding_bag_forward_only",
    "_native_multi_head_attention",
    "_transformer_encoder_layer_fwd",
    "_trilinear",
    "gru",
    "lstm",
    "mkldnn_rnn_layer",
    "miopen_rnn",
    "rnn_relu",
    "rnn_tanh",
)
"""Operations of torch that multiply, and whose MACs are not known."""


class MacCount:
    """The MACs of one pass.

    Attributes:
        layers: By the name of the innermost module that was running; empty for the network itself.
        not_counted: Operations whose MACs are not known, with the layer.
    """

    def __init__(self) -> None:
        self.layers: dict[str, int] = {}
        self.not_counted: dict[tuple[str, str], None] = {}

    @property
    def total(self) -> int:
        """Of all layers."""
        return sum(self.layers.values())


def count_macs(network: nn.Module, run: Callable[[], Any]) -> tuple[MacCount, Any]:
    """The MACs of `run`, which calls the network, and what it returns.

    torch's own counter counts them, so that layers, functions and methods count alike, and zeros of the padding too.

    >>> layer = nn.Conv2d(3, 8, 3, padding=1)
    >>> count_macs(layer, lambda: layer(torch.zeros(1, 3, 4, 4)))[0].total == 4 * 4 * 8 * 27
    True
    """
    from torch.utils import flop_counter  # imports Triton

    count = MacCount()
    running = [""]

    def note(name: str) -> Callable[..., int]:
        def unknown(*_: Any, **__: Any) -> int:
            count.not_counted[running[-1], name.strip("_")] = None
            return 0

        unknown._get_raw = True  # type: ignore[attr-defined]  # torch then calls it with anything
        return unknown

    rules = {getattr(aten, name): note(name) for name in UNKNOWN if hasattr(aten, name)}
    counter = flop_counter.FlopCounterMode(display=False, custom_mapping={**rules, **_more_rules()})
    taken = 0

    def settle() -> None:
        """Add what was counted since the last call to the innermost module."""
        nonlocal taken
        found = counter.get_total_flops() // 2
        if found != taken:
            count.layers[running[-1]] = count.layers.get(running[-1], 0) + found - taken
            taken = found

    with (
        exclusive(*network.modules()),
        torch.no_grad(),
        _without_fast_paths(),
        _followed(network, running, settle),
        counter,
    ):
        result = run()
        settle()
    return count, result


def _more_rules() -> dict[Any, Callable[..., Any]]:
    """Products that torch's counter does not know, in FLOPs."""
    from torch.utils import flop_counter

    def matrix_vector(matrix: Any, *_: Any, **__: Any) -> Any:
        return 2 * matrix[0] * matrix[1]

    def added(_: Any, matrix: Any, *__: Any, **___: Any) -> Any:
        return 2 * matrix[0] * matrix[1]

    def dot(x: Any, *_: Any, **__: Any) -> Any:
        return 2 * x[0]

    def attend(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> Any:
        return flop_counter.sdpa_flop_count(q, k, v)  # type: ignore[no-untyped-call]

    rules: dict[Any, Callable[..., Any]] = {aten.mv: matrix_vector, aten.addmv: added, aten.dot: dot, aten.vdot: dot}
    attention = getattr(aten, "_scaled_dot_product_flash_attention_for_cpu", None)
    if attention is not None and attention not in flop_counter.flop_registry:
        rules[attention] = attend
    return rules


@contextmanager
def _followed(network: nn.Module, running: list[str], settle: Callable[[], None]) -> Iterator[None]:
    """Keep the names of the modules that are running on a stack, and call `settle` whenever that changes."""

    calls = {module: itertools.cycle(names) for module, names in _names_of_calls(network).items()}

    def enter(module: nn.Module, *_: Any) -> None:
        settle()
        running.append(next(calls[module]))

    def leave(*_: Any) -> None:
        settle()
        running.pop()

    # Copies of a layer that a network calls several times share their hooks.
    owners = {id(module._forward_pre_hooks): module for module in calls}.values()
    handles = [
        handle
        for module in owners
        for handle in (module.register_forward_pre_hook(enter), module.register_forward_hook(leave))
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _names_of_calls(network: nn.Module) -> dict[nn.Module, list[str]]:
    """The names of every module; of one that a graph calls by several names, in the order of the calls."""
    found = {module: [name] for name, module in network.named_modules()}
    for prefix, graph_module in network.named_modules():
        if not isinstance(graph_module, fx.GraphModule):
            continue
        called: dict[nn.Module, list[str]] = {}
        for node in graph_module.graph.nodes:
            if node.op == "call_module":
                name = f"{prefix}.{node.target}" if prefix else str(node.target)
                called.setdefault(graph_module.get_submodule(str(node.target)), []).append(name)
        found.update(called)
    return found


@contextmanager
def _without_fast_paths() -> Iterator[None]:
    """Let attention and transformer layers compute step by step; their fused forms show no products."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
