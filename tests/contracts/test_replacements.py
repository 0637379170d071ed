"""Every description states how the stages of a conversion treat it."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

import sj_ann2snn.contracts.replacements as contract
from sj_ann2snn import (
    Analog,
    Average,
    Converter,
    LayerMapper,
    Linear,
    MemoryLayer,
    NeuronAfterPool,
    Product,
    Rearrange,
    Refuse,
    Remove,
    Replacement,
    Site,
    Spike,
    Stateful,
    Sum,
    Value,
    Varies,
    Weighted,
    hookimpl,
    simulate,
)
from sj_ann2snn.contracts.replacements import ScaleFlow
from sj_ann2snn.conversion.scale_rules import RULES

from ..helpers.networks import relative_error

EXAMPLES = (
    Analog(lambda operation, sequences: nn.Identity(), "gate"),
    Average(),
    Linear(),
    NeuronAfterPool(Average()),
    Product(),
    Rearrange(),
    Refuse("it is forbidden", "Take another"),
    Remove(),
    Spike(),
    Stateful(nn.Identity, "pool"),
    Sum(),
    Weighted(),
)


def site(*varies: Varies) -> Site:
    values = tuple(Value((2, 3), torch.float32, one, f"x{index}") for index, one in enumerate(varies))
    return Site("layer", "operation", args=values)


VARYING, STATIC = Varies.VARYING, Varies.STATIC


def test_there_is_an_example_of_every_description() -> None:
    classes = {cls for cls in vars(contract).values() if isinstance(cls, type) and issubclass(cls, Replacement)}
    assert classes - {Replacement} == {type(one) for one in EXAMPLES}


def test_every_scale_flow_has_a_rule() -> None:
    assert set(RULES) == set(ScaleFlow)
    assert {one.scale_flow for one in EXAMPLES} == set(ScaleFlow)


@pytest.mark.parametrize(
    ("replacement", "varies", "objection"),
    [
        (Product(), (VARYING, VARYING), "it multiplies two spike streams"),
        (Product(), (VARYING, STATIC), None),
        (Product(divisor=1), (STATIC, VARYING), "it divides by a spike stream"),
        (Product(divisor=1), (VARYING, STATIC), None),
        (Linear(), (VARYING, VARYING), None),
        (Linear((0,)), (VARYING, STATIC), None),
        (Linear((0,)), (VARYING, VARYING), "its weights would be spikes"),
        (Weighted(), (VARYING,), None),
        (Weighted(), (VARYING, VARYING), "only its first argument may vary"),
        (Stateful(nn.Identity, "pool"), (STATIC, VARYING), "only its first argument may vary"),
        (Average(), (VARYING, STATIC), None),
        (Remove(), (VARYING, VARYING), "only its first argument may vary"),
        (Sum(), (VARYING, VARYING), None),
        (Rearrange(), (VARYING, VARYING), None),
        (Refuse("it is forbidden", "Take another"), (VARYING,), "it is forbidden"),
    ],
)
def test_objections(replacement: Replacement, varies: tuple[Varies, ...], objection: str | None) -> None:
    positions = [index for index, one in enumerate(varies) if one is VARYING]
    found = replacement.objection(site(*varies), positions)
    if objection is None:
        assert found is None
    else:
        assert found is not None
        assert found[0].startswith(objection)


def test_where_nothing_varies_modules_with_memory_are_not_needed() -> None:
    assert EXAMPLES[0].when_static() == Linear()
    assert Stateful(nn.Identity, "pool").when_static() == Average()
    assert Average(nn.Identity, exact=False).when_static() == Average()
    for one in (Spike(), Sum(), Weighted(), Product()):
        assert one.when_static() is one


def test_what_the_report_says() -> None:
    said = {type(one): one.becomes(site(VARYING), "if") for one in EXAMPLES}
    assert said[Spike] == "if neuron"
    assert said[Stateful] == "pool"
    assert said[Analog] == "gate"
    assert said[Remove] == "nothing"
    assert said[Refuse] == "refused"
    assert said[Sum] == said[Product] == "itself"
    assert Spike(negative_slope=0.1).becomes(site(VARYING), "if") == "difference of two if neurons"
    analog = Analog(lambda operation, sequences: nn.Identity(), "gate")
    assert Spike(analog=analog).becomes(site(VARYING), "if") == "gate, then if neuron"
    assert Spike(analog=analog).becomes(site(STATIC), "if") == "itself, then if neuron"


def test_exactness_follows_from_the_description() -> None:
    assert not Average(exact=False).is_exact
    assert not Stateful(nn.Identity, "pool", exact=False).is_exact
    assert all(one.is_exact for one in EXAMPLES)


@dataclasses.dataclass(frozen=True)
class Halve(Replacement):
    """A description of somebody else's: linear, channel by channel, with a name in the report."""

    scale_flow = ScaleFlow.PER_CHANNEL

    def becomes(self, site: Site, neuron: str) -> str:
        return "halving"


class Half(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / 2


class HalfMapper(LayerMapper):
    name = "half"
    claims = (Half,)

    def map(self, site: Site) -> Replacement:
        return Halve()


class Plugin:
    @hookimpl
    def ann2snn_layer_mappers(self) -> list[type[LayerMapper]]:
        return [HalfMapper]


def test_a_new_description_needs_no_line_of_the_core() -> None:
    """Its traits say all: the stages ask the description, not its type."""
    ann = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), Half(), nn.Linear(6, 3)).eval()
    x = torch.rand(64, 4)
    converter = Converter([x], plugins=[Plugin()], channel_wise=True, progress=False)
    snn = converter(ann)
    assert converter.report["2"].becomes == "halving"
    assert converter.report.scalers == (), "scales pass through it"
    assert relative_error(simulate(snn, x, T=400), ann(x).detach()) < 0.02


class Largest(MemoryLayer):
    """The growth of the maximum over dimension 1."""

    def __init__(self) -> None:
        super().__init__()
        self.register_memory("total", 0.0)

    def single_step_forward(self, x: torch.Tensor) -> torch.Tensor:
        before = self.total.amax(1) if isinstance(self.total, torch.Tensor) else 0.0
        self.total = self.total + x
        return self.total.amax(1) - before


class LargestMapper(LayerMapper):
    name = "largest"
    claims = ("amax",)

    def map(self, site: Site) -> Replacement:
        return Stateful(Largest, "largest")


class WithLargest:
    @hookimpl
    def ann2snn_layer_mappers(self) -> list[type[LayerMapper]]:
        return [LargestMapper]


def test_scales_per_channel_do_not_pass_a_maximum_over_channels() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv1d(2, 6, 3), nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu(self.conv(x)).amax(1))  # of [N, 6, 6]: as many places as channels

    ann, x = Net(), torch.rand(20, 2, 8)
    with torch.no_grad():
        ann.conv.weight.mul_(torch.arange(1.0, 7).view(-1, 1, 1))
    converter = Converter([x], mode="max", channel_wise=True, plugins=[WithLargest()], progress=False)
    assert relative_error(simulate(converter(ann), x, T=400), ann(x).detach()) < 0.02
    assert converter.report.scalers
