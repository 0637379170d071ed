"""Conformance tests for plugins: subclass the class for your hook, and pytest runs the contract on your plugin.

>>> from sj_ann2snn.builtin.normalizations import Max
>>> from sj_ann2snn.testing import NormalizationTests
>>> class TestMax(NormalizationTests):
...     plugin_class = Max

Each class describes in its docstring what it checks and which attributes declare a legitimate difference. The tests run
with the built-ins and the plugin under test only, whatever else is installed. `sj_ann2snn.testing.fixtures` has
fixtures for your own tests: isolated plugins, and distributions that look installed.

This package needs pytest; nothing else in sj-ann2snn does.
"""

from __future__ import annotations

import pytest

# Must come before the imports, so that a failing assert shows its values.
pytest.register_assert_rewrite(
    *(
        f"{__name__}.{module}"
        for module in (
            "contract",
            "corrections",
            "exit_rules",
            "exporters",
            "mappers",
            "neurons",
            "normalizations",
            "readouts",
            "stateful",
        )
    )
)

from .contract import PluginTests  # noqa: E402
from .corrections import CorrectionTests  # noqa: E402
from .exit_rules import ExitRuleTests  # noqa: E402
from .exporters import ExporterTests  # noqa: E402
from .mappers import LayerMapperTests, MapperCase  # noqa: E402
from .neurons import NeuronTests  # noqa: E402
from .normalizations import NormalizationTests  # noqa: E402
from .readouts import ReadoutTests  # noqa: E402

__all__ = [
    "CorrectionTests",
    "ExitRuleTests",
    "ExporterTests",
    "LayerMapperTests",
    "MapperCase",
    "NeuronTests",
    "NormalizationTests",
    "PluginTests",
    "ReadoutTests",
]
