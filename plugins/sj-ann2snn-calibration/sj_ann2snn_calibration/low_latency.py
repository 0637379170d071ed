"""The best combination for binary spikes, under one name."""

from __future__ import annotations

from typing import Any, ClassVar

from sj_ann2snn import CalibrationSite

from .joint import Joint, usual_delay
from .staircase import Staircase, StaircaseObserver

__all__ = ["LowLatency"]


class LowLatency(Staircase):
    """Thresholds per channel for the steps that count, an initial potential of one half, and the joint correction.

    >>> LowLatency.suggests["corrections"]
    (<class 'sj_ann2snn_calibration.joint.Joint'>,)

    Args:
        T: Number of time steps for which the network will run.

    Raises:
        OptionError: `T` is not an integer of at least 1.

    Source: as for `Staircase` and `Joint`.
    """

    name = "low-latency"
    suggests: ClassVar[dict[str, Any]] = {**Staircase.suggests, "corrections": (Joint,)}

    def observer(self, site: CalibrationSite) -> StaircaseObserver:
        return StaircaseObserver(site, self.T - usual_delay(self.T))
