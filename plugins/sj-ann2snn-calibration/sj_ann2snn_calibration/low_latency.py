"""The best combination for binary spikes, under one name."""

from __future__ import annotations

from typing import Any, ClassVar

from .joint import Joint
from .staircase import Staircase

__all__ = ["LowLatency"]


class LowLatency(Staircase):
    """Thresholds for T steps per channel, half a threshold to start from, and the joint correction.

    >>> LowLatency.suggests["corrections"]
    (<class 'sj_ann2snn_calibration.joint.Joint'>,)

    Args:
        T: Number of time steps that the network is to run for.

    Raises:
        OptionError: `T` is no integer from 1 up.

    Source: as for `Staircase` and `Joint`.
    """

    name = "low-latency"
    suggests: ClassVar[dict[str, Any]] = {**Staircase.suggests, "corrections": (Joint,)}
