"""Distributions with plugins, installed into folders of the test's own."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sj_ann2snn import Converter
from sj_ann2snn.testing.fixtures import FakeDistributions

MODE = """
from sj_ann2snn import hookimpl
from sj_ann2snn.builtin.normalizations import Max

class Mode(Max):
    name = {name!r}
    replaces = {replaces!r}

@hookimpl
def ann2snn_normalizations():
    return [Mode]
"""

MAPPER = """
from torch import nn
from sj_ann2snn import LayerMapper, Spike, hookimpl
from rectifier_layer import Rectifier

class Mapper(LayerMapper):
    name = {name!r}
    claims = ({claims},)
    replaces = {replaces!r}

    def map(self, site):
        return Spike()

@hookimpl
def ann2snn_layer_mappers():
    return [Mapper]
"""

RECTIFIER = """
import torch

class Rectifier(torch.nn.Module):
    def forward(self, x):
        return torch.where(x > 0, x, torch.zeros_like(x))
"""
"""A layer that the core does not know."""


class Installed(FakeDistributions):
    """Distributions with a mode or a mapper each."""

    def add_mode(self, distribution: str, name: str, *replaces: str, **options: Any) -> None:
        self.add(distribution, MODE.format(name=name, replaces=replaces), **options)

    def add_mapper(self, distribution: str, name: str, *replaces: str, claims: str = "Rectifier") -> None:
        self.add(distribution, MAPPER.format(name=name, claims=claims, replaces=replaces))

    def add_rectifier(self) -> nn.Module:
        """A network with a layer that only plugins know."""
        place = self.root / "rectifier-layer"
        place.mkdir()
        (place / "rectifier_layer.py").write_text(RECTIFIER, encoding="utf-8")
        self.monkeypatch.syspath_prepend(str(place))
        import rectifier_layer  # type: ignore[import-not-found]

        return nn.Sequential(nn.Linear(4, 5), rectifier_layer.Rectifier(), nn.Linear(5, 2))


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))


def converted(ann: nn.Module, **arguments: Any) -> Converter:
    converter = Converter([torch.rand(20, 4)], progress=False, **arguments)
    converter(ann)
    return converter


def owner_of_mode(converter: Converter) -> str:
    return type(converter.normalization).__module__.replace("_", "-")


def two_modes(installed: Installed) -> None:
    installed.add_mode("alpha-modes", "twice")
    installed.add_mode("beta-modes", "twice", version="0.2")
