"""Mode and correction keep the contracts of their hooks."""

from __future__ import annotations

from typing import ClassVar

import sj_ann2snn_spikenorm

from sj_ann2snn.testing import CorrectionTests, NormalizationTests


class TestSpikeNorm(NormalizationTests):
    plugin_class = sj_ann2snn_spikenorm.SpikeNorm
    plugin = sj_ann2snn_spikenorm


class TestLargestCurrent(CorrectionTests):
    """Where λ is too small, neurons saturate, and no number of steps makes up for it."""

    plugin_class = sj_ann2snn_spikenorm.LargestCurrent
    plugin = sj_ann2snn_spikenorm
    mode = 0.3
    steps = 64
    any_neuron = False


class TestPercentileByChannel(CorrectionTests):
    plugin_class = sj_ann2snn_spikenorm.LargestCurrent
    options: ClassVar = {"current_percentile": 99.0, "current_channel_wise": True}
    mode = 0.3
    steps = 64
    any_neuron = False
