"""The neuron keeps the contract of its hook."""

from __future__ import annotations

from typing import ClassVar

import sj_ann2snn_signed

from sj_ann2snn.testing import NeuronTests


class TestSigned(NeuronTests):
    plugin_class = sj_ann2snn_signed.Signed
    plugin = sj_ann2snn_signed
    rate_error = 0.5
    negative_spikes = True


class TestTwoLevels(NeuronTests):
    plugin_class = sj_ann2snn_signed.Signed
    options: ClassVar = {"levels": 2, "initial_potential": 0.0}
    negative_spikes = True
