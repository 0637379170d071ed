"""Whether a converted network is made of the ANN, and which of its parts compute something else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from ..support.wording import listed
from .advice import call_of
from .data import Chunk, cut
from .layer_arguments import carried_out
from .mismatch import ALLOWED, find_mismatches, not_of_this_ann
from .passes import Passes
from .result import Advice
from .table import percent

__all__ = ["compared"]

ALLOWED_OF_FILES = 0.3
"""Difference from the ANN, without time, of a network without notes: it may have been corrected, or have bounds."""


def compared(passes: Passes, ann: nn.Module, chunks: Sequence[Chunk]) -> tuple[float, list[Advice]]:
    """How far the network without time is from the ANN, and advice on the parts that differ.

    Raises:
        InputError: They have little in common.
    """
    some = cut(chunks[0], 64)[0]
    error = passes.compare(some)
    network = passes.network
    if error <= (ALLOWED if network.noted else ALLOWED_OF_FILES):
        return error, []
    if str(network.call.get("weights", "")).startswith("tuned"):
        return error, []  # corrections changed weights on purpose, which makes another network without time
    pools = [name for name, what in network.notes.approximate.items() if "Pool" in what or "pool" in what]
    known = {layer.target for layer in network.layers}
    exchanged = [network.prefix + name for name in pools if name not in known]
    if exchanged:
        arguments = carried_out(network.call, exchanged[0], {"maxpool": "cumulative"})
        text = (
            f"average pools stand for the ANN's max pools ({listed(exchanged)}), which changes the answer by "
            f'{percent(error)} before a neuron spikes: maxpool="cumulative" computes the maximum'
        )
        return error, [Advice(exchanged[0], "maxpool", text, arguments, call_of(network.call, arguments), error)]
    found = find_mismatches(network, ann, some.inputs)
    if not found:
        raise not_of_this_ann(error)
    return error, [_mismatch_advice(one.layer, one.error, one.batchnorm, error, network.call) for one in found]


def _mismatch_advice(layer: str, here: float, batchnorm: str, error: float, call: dict[str, Any]) -> Advice:
    where = layer or "the output"
    part = f"{batchnorm} in front of {where}" if batchnorm else f"what leads to {where}"
    text = (
        f"{part} is not that of this ANN: {where} differs by {percent(here)} although everything in front of it is "
        "right, without a single spike. The network was converted with other weights or statistics"
        f"{' (a BatchNorm in training mode changes them)' if batchnorm else ''}: convert the ANN again"
    )
    return Advice(layer, "batchnorm" if batchnorm else "mismatch", text, {}, call_of(call, {}), error)
