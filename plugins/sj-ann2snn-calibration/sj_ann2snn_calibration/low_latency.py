"""The best combination for binary spikes, under one name."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from sj_ann2snn import CalibrationSite, Recent, require_integer

from .joint import Joint, usual_delay
from .staircase import Staircase, StaircaseObserver

__all__ = ["LowLatency"]


class LowLatency(Staircase):
    """Thresholds per channel for the steps that count, an initial potential of one half, and the joint correction.

    >>> LowLatency.suggests["corrections"]
    (<class 'sj_ann2snn_calibration.joint.Joint'>,)

    Args:
        T: Number of time steps for which the network will run.
        earliest: Fewest steps after which it may be stopped; see `Joint`.

    Raises:
        OptionError: `T` is not an integer of at least 1, or `earliest` is not one of at most T.

    Source: as for `Staircase` and `Joint`.
    """

    name = "low-latency"
    suggests: ClassVar[dict[str, Any]] = {**Staircase.suggests, "corrections": (Joint,)}
    anytime: ClassVar[dict[str, Any]] = {"earliest": 4}

    def __init__(self, *, T: int = 8, earliest: int | None = None) -> None:  # noqa: N803 - as in `Staircase`
        super().__init__(T=T)
        self.earliest = None if earliest is None else require_integer("earliest", earliest, 1, T, what=f"for T={T} it")

    def observer(self, site: CalibrationSite) -> StaircaseObserver:
        counted = self.T - usual_delay(self.T)
        if self.earliest is not None:
            # Between the numbers of steps that count at the one end and at the other.
            counted = round(math.sqrt(counted * (self.earliest - Recent.delay(self.earliest))))
        return StaircaseObserver(site, max(1, counted))
