"""The modes keep the contract of their hook."""

from __future__ import annotations

from typing import ClassVar

import sj_ann2snn_calibration

from sj_ann2snn.testing import NormalizationTests


class TestStaircase(NormalizationTests):
    plugin_class = sj_ann2snn_calibration.Staircase
    plugin = sj_ann2snn_calibration
    options: ClassVar = {"T": 8}


class TestLowLatency(NormalizationTests):
    plugin_class = sj_ann2snn_calibration.LowLatency
    plugin = sj_ann2snn_calibration
    options: ClassVar = {"T": 4}
