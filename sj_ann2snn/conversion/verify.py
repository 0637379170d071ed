"""Compares the rewritten network with the ANN."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import VerificationError
from ..hooks.registry import BUILTIN
from ..support.structures import open_values
from ..support.trees import map_tensors, tensors
from ..support.wording import first_line
from .draft import APPROXIMATED, YOU, Draft

__all__ = ["TOLERANCE", "require_same", "verify"]

TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3}
"""Allowed relative L2 error of the network with folded scales against the ANN, by dtype."""


def verify(draft: Draft, normalized: nn.Module) -> None:
    """Compare the network with folded scales with the ANN, on the draft's two samples.

    Args:
        draft: With scales.
        normalized: What `rewrite_normalized` built from it.

    Raises:
        VerificationError: They differ by more than rounding explains.
    """
    with torch.no_grad():
        # If pools were exchanged, compare with the ANN that has the new pools.
        exchanged = any(APPROXIMATED in node.meta for node in draft.module.graph.nodes)
        wanted = draft.module(*map_tensors(draft.samples, Tensor.clone)) if exchanged else draft.answer
        mappers = _plugin_mappers(draft)
        try:
            got = normalized(*draft.samples)
        except Exception as error:
            raise VerificationError(
                "The network with folded scales fails on the first two calibration samples "
                f"({type(error).__name__}: {first_line(error)}), so no spiking network is returned. A mapper that "
                f"describes an operation wrongly is the usual cause.{mappers}"
            ) from error
        require_same(got, wanted, mappers)


def _plugin_mappers(draft: Draft) -> str:
    """A sentence that names the mappers of plugins that decided something, with the layers."""
    layers: dict[str, list[str]] = {}
    for decision in draft.plan.decisions.values():
        if decision.mapper and decision.owner.split()[0] not in (BUILTIN, YOU):
            layers.setdefault(str(decision.culprit), []).append(decision.site.name)
    shown = "; ".join(f"{who} for {', '.join(names)}" for who, names in layers.items())
    return f" Mappers of plugins in use: {shown}." if shown else ""


def require_same(got: Any, wanted: Any, mappers: str = "") -> None:
    """Compare two outputs: tensors, or tuples, lists and dicts of them.

    Args:
        got: The output of the network with folded scales.
        wanted: That of the ANN.
        mappers: A sentence about the mappers in use, for the message.

    Raises:
        VerificationError: They differ by more than rounding explains.
    """
    error, tolerance = relative_error(open_values(got)[0], open_values(wanted)[0])
    if not error <= tolerance:
        raise VerificationError(
            f"The network with folded scales differs from the ANN by a relative error of {error:.2g} "
            f"(allowed: {tolerance:g}) on the first two calibration samples, so no spiking network is returned. "
            "The usual causes, which torch.fx cannot see, are a forward hook that changes results, randomness at "
            "inference, or state kept between calls. A mapper that describes an operation wrongly has the same "
            f"effect.{mappers} If none of these applies, please report it; verify=False turns the check off."
        )


def relative_error(got: Any, wanted: Any) -> tuple[float, float]:
    """The largest relative L2 error over all output tensors, and the allowed one."""
    worst, tolerance = 0.0, 0.0
    for one, other in itertools.zip_longest(tensors(got), tensors(wanted)):
        if one is None or other is None or one.shape != other.shape:
            return float("inf"), 0.0
        if not bool(torch.isfinite(other).all()):
            return float("nan"), 0.0
        scale = other.double().norm().item()
        error = (one.double() - other.double()).norm().item() / (scale or 1.0)
        if not error <= worst:  # NaN counts as worse than any number
            worst = error
        tolerance = max(tolerance, TOLERANCE.get(other.dtype, 1e-3))
    return worst, tolerance
