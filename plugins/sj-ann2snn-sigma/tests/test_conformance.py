"""The mode keeps the contract of its hook."""

from __future__ import annotations

from typing import ClassVar

import sj_ann2snn_sigma

from sj_ann2snn.testing import NormalizationTests


class TestMeanSigma(NormalizationTests):
    plugin_class = sj_ann2snn_sigma.MeanSigma
    plugin = sj_ann2snn_sigma
    modes = ("mean+3sigma", "mean+sigma", "mean + 2.5 * sigma")


class TestIgnoringZeros(NormalizationTests):
    plugin_class = sj_ann2snn_sigma.MeanSigma
    options: ClassVar = {"sigma_ignore_zeros": True}
