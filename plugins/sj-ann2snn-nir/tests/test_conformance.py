"""The exporter keeps the contract of its hook."""

from __future__ import annotations

from typing import ClassVar

import sj_ann2snn_nir
from sj_ann2snn_nir.readers import missing

from sj_ann2snn.testing import ExporterTests


class TestNir(ExporterTests):
    plugin_class = sj_ann2snn_nir.Nir
    plugin = sj_ann2snn_nir
    options: ClassVar = {"input_shape": (1, 8, 8)}
    refused = ("residual", "max pool")  # a constant, a part of the channels; a max pool
    replays = not missing("sinabs")
    not_replayed = ("double",)  # sinabs computes in single precision
