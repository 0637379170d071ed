"""The correction and the neuron keep the contracts of their hooks."""

from __future__ import annotations

from typing import ClassVar

import sj_ann2snn_offsets as plugin

from sj_ann2snn.testing import CorrectionTests, NeuronTests


class TestForwardTemporalBias(CorrectionTests):
    plugin = plugin
    plugin_class = plugin.ForwardTemporalBias
    any_neuron = False


class TestOffsetSpikes(NeuronTests):
    """Half a spike in the probe, and half a spike after it."""

    plugin = plugin
    plugin_class = plugin.OffsetSpikes
    options: ClassVar = {"probe_steps": 3}
