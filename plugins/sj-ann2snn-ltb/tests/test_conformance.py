"""The mode keeps the contract of its hook."""

from __future__ import annotations

from typing import ClassVar

import sj_ann2snn_ltb

from sj_ann2snn.testing import NormalizationTests


class TestLocalThresholdBalancing(NormalizationTests):
    plugin_class = sj_ann2snn_ltb.LocalThresholdBalancing
    plugin = sj_ann2snn_ltb
    relative_error = 2**-8


class TestManySteps(NormalizationTests):
    plugin_class = sj_ann2snn_ltb.LocalThresholdBalancing
    options: ClassVar = {"T": 200, "passes": 3}
    relative_error = 2**-8
