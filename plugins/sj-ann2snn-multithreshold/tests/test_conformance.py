"""The neuron and the mode keep the contracts of their hooks."""

from __future__ import annotations

from typing import ClassVar

import sj_ann2snn_multithreshold

from sj_ann2snn.testing import NeuronTests, NormalizationTests


class TestTwoSteps(NeuronTests):
    plugin_class = sj_ann2snn_multithreshold.MultiThreshold
    plugin = sj_ann2snn_multithreshold
    saturates = False
    whole_spikes = False
    negative_spikes = True


class TestOneStepFromZero(NeuronTests):
    plugin_class = sj_ann2snn_multithreshold.MultiThreshold
    options: ClassVar = {"T": 1, "rest": False}
    saturates = False
    whole_spikes = False
    negative_spikes = True


class TestMode(NormalizationTests):
    plugin_class = sj_ann2snn_multithreshold.MultiThresholdMode
    plugin = sj_ann2snn_multithreshold
