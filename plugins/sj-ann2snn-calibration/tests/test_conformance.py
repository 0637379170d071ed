"""The modes and the correction keep the contracts of their hooks."""

from __future__ import annotations

from typing import ClassVar

import sj_ann2snn_calibration as plugin
from torch import Tensor

from sj_ann2snn.testing import CorrectionTests, NormalizationTests


class TestStaircase(NormalizationTests):
    plugin = plugin
    plugin_class = plugin.Staircase
    options: ClassVar = {"T": 8}


class TestLowLatency(NormalizationTests):
    plugin = plugin
    plugin_class = plugin.LowLatency
    options: ClassVar = {"T": 4}


class TestJoint(CorrectionTests):
    """For classes it lowers the divergence of the softmax of the answers, not their distance."""

    plugin = plugin
    plugin_class = plugin.Joint
    options: ClassVar = {"epochs": 12}
    any_neuron = False

    def error(self, answers: Tensor, wanted: Tensor) -> float:
        logarithms = wanted.log_softmax(1)
        return float((logarithms.exp() * (logarithms - answers.log_softmax(1))).sum(1).mean())


class TestLayerByLayer(CorrectionTests):
    plugin = plugin
    plugin_class = plugin.LayerByLayer


class TestSnnCalibration(CorrectionTests):
    plugin = plugin
    plugin_class = plugin.SnnCalibration
