"""The neuron keeps the contract of its hook."""

from __future__ import annotations

from typing import ClassVar

import sj_ann2snn_burst

from sj_ann2snn.testing import NeuronTests


class TestBurst(NeuronTests):
    plugin_class = sj_ann2snn_burst.Burst
    plugin = sj_ann2snn_burst
    rate_error = 0.5


class TestManyLevels(NeuronTests):
    plugin_class = sj_ann2snn_burst.Burst
    options: ClassVar = {"levels": 16, "initial_potential": 0.0}
