"""Whether the scale that a mode found keeps the contract."""

from __future__ import annotations

import torch
from torch import Tensor

from ..contracts.normalization import Observer
from ..errors import DeadLayerError, ScaleError
from ..support.blame import blame

__all__ = ["check_scale"]


def check_scale(observer: Observer, mode: str, samples: str, *, fired: bool, device: torch.device) -> Tensor:
    """The observer's scale, if it keeps the contract.

    Args:
        observer: Of one site.
        mode: What to call the normalization in messages.
        samples: What to call the calibration data.
        fired: The site's activation was positive anywhere.
        device: Where the network lies.

    Raises:
        DeadLayerError: The layer never fired.
        ScaleError: The scale is not finite, positive, of the right shape and on a device that the network knows.
    """
    site = observer.site
    with blame(f"{mode}, asked for the scale of {site.name},"):
        scale: Tensor = observer.scale()
    allowed: list[tuple[int, ...]] = [()]
    if site.channels is not None:
        allowed.append((site.channels,))
    if not isinstance(scale, Tensor) or tuple(scale.shape) not in allowed:
        given = f"a tensor of shape {tuple(scale.shape)}" if isinstance(scale, Tensor) else repr(scale)
        raise ScaleError(
            f"{mode} gave {given} as the scale of {site.name}; allowed is a tensor of shape "
            f"{' or '.join(map(str, allowed))}."
        )
    known = list(dict.fromkeys(("cpu", device.type)))
    if scale.device.type not in known:
        raise ScaleError(
            f"{mode} gave a scale on the device {scale.device} for {site.name}; allowed is {' or '.join(known)}, "
            "where the activations are."
        )
    zero = bool((scale == 0).any())
    if not bool(torch.isfinite(scale).all()) or bool((scale < 0).any()) or (zero and fired):
        raise ScaleError(
            f"{mode} gave the scale {scale.min().item():g} to {scale.max().item():g} for {site.name}; "
            "a scale is finite and greater than 0."
        )
    if zero:
        raise DeadLayerError(
            f"{site.name} never fired: its activation was 0 for all of {samples}, so nothing tells its scale "
            f"({mode}). Calibrate on more, or on more typical, data; a layer that is always dead "
            "can be removed from the network."
        )
    if site.maximum is not None:
        scale = scale.clamp(max=site.maximum)
    return scale
