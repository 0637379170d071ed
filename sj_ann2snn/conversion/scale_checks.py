"""Checks that the scale found by a mode keeps the contract."""

from __future__ import annotations

import torch
from torch import Tensor

from ..contracts.normalization import CalibrationSite, Observer
from ..errors import DeadLayerError, ScaleError
from ..support.blame import Culprit, blame

__all__ = ["check_scale"]

MOST_SHOWN = 5


def check_scale(
    observer: Observer, site: CalibrationSite, mode: Culprit, samples: str, *, fired: bool, device: torch.device
) -> Tensor:
    """The observer's scale, at most the activation's maximum.

    Args:
        observer: The observer of one site.
        site: That site.
        mode: The mode in messages.
        samples: Name of the calibration data in messages.
        fired: True if the site's activation was positive anywhere.
        device: Device of the network.

    Raises:
        DeadLayerError: The layer never fired.
        ScaleError: The scale is not finite, not positive, of the wrong shape or on a wrong device.
    """
    with blame(mode, f"asked for the scale of {site.name}", observer, "scale"):
        scale: Tensor = observer.scale()
    allowed: list[tuple[int, ...]] = [()]
    if site.channels is not None:
        allowed.append((site.channels,))
    if not isinstance(scale, Tensor) or tuple(scale.shape) not in allowed:
        given = f"a tensor of shape {tuple(scale.shape)}" if isinstance(scale, Tensor) else repr(scale)
        raise ScaleError(
            f"{mode} returned {given} as the scale of {site.name}; allowed is a tensor of shape "
            f"{' or '.join(map(str, allowed))}."
        )
    known = list(dict.fromkeys(("cpu", device.type)))
    if scale.device.type not in known:
        raise ScaleError(
            f"{mode} returned a scale on the device {scale.device} for {site.name}; allowed is {' or '.join(known)}."
        )
    zero = bool((scale == 0).any())
    if not bool(torch.isfinite(scale).all()) or bool((scale < 0).any()) or (zero and fired):
        raise ScaleError(
            f"{mode} returned the scale {scale.min().item():g} to {scale.max().item():g} for {site.name}; "
            f"a scale must be finite and greater than 0.{_wrong_channels(scale)}"
        )
    if zero:
        raise DeadLayerError(
            f"{site.name} never fired: its activation was 0 for all of {samples}, so its scale is unknown "
            f"({mode}). Calibrate on more data, or on more typical data. If the layer is always dead, "
            "remove it from the network."
        )
    if site.maximum is not None:
        scale = scale.clamp(max=site.maximum)
    # The observer may keep its tensor and write to it later.
    return scale.detach().clone()


def _wrong_channels(scale: Tensor) -> str:
    """The channels whose scale breaks the contract."""
    if not scale.dim():
        return ""
    wrong = (~(scale > 0) | ~scale.isfinite()).nonzero().flatten().tolist()
    shown = ", ".join(f"{scale[channel].item():g} for channel {channel}" for channel in wrong[:MOST_SHOWN])
    more = f" and {len(wrong) - MOST_SHOWN} more" if len(wrong) > MOST_SHOWN else ""
    return f" It is {shown}{more}, of {len(scale)} channels."
