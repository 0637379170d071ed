"""The neuron keeps the contract of its hook."""

from __future__ import annotations

from typing import ClassVar

import sj_ann2snn_differential

from sj_ann2snn.testing import NeuronTests


class TestDifferential(NeuronTests):
    plugin_class = sj_ann2snn_differential.Differential
    plugin = sj_ann2snn_differential
    saturates = False
    whole_spikes = False
    negative_spikes = True


class TestThreeSizes(NeuronTests):
    plugin_class = sj_ann2snn_differential.Differential
    options: ClassVar = {"thresholds": 3}
    rate_error = 4.0  # what lies between two sizes stays
    saturates = False
    whole_spikes = False
    negative_spikes = True
