"""Channels of values, trials of operations, and dimensions that follow the input's size."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from sj_ann2snn.conversion.graph.channel_products import attention, einsum, matmul
from sj_ann2snn.conversion.graph.channel_trial import followed
from sj_ann2snn.conversion.graph.channels import Channels, joined, labelled, new_channels
from sj_ann2snn.conversion.graph.lengths import flexible_dimensions
from sj_ann2snn.conversion.graph.records import record


def test_channels_pass_a_split_and_a_merge() -> None:
    channels = new_channels((2, 5, 12), -1)
    split = labelled(channels.expanded((2, 5, 12)).view(2, 5, 3, 4))
    assert split is not None
    assert (split.axis, split.dimensions) == (None, {2, 3})
    assert split.is_apart(frozenset({2, 3}))
    assert not split.is_apart(frozenset({2}))
    merged = labelled(split.expanded((2, 5, 3, 4)).transpose(1, 2).transpose(1, 2).reshape(2, 5, 12))
    assert merged is not None
    assert merged.axis == 2


def test_what_is_joined_on_along_time_belongs_to_the_same_channels() -> None:
    known, unknown = new_channels((2, 5, 3), 2).expanded((2, 5, 3)), torch.full((2, 1, 3), torch.nan)
    found = labelled(torch.cat([unknown, known], 1))
    assert found is not None
    assert found.axis == 2
    along = labelled(torch.cat([unknown.movedim(2, 1).expand(2, 3, 2), known.transpose(1, 2)[..., :2]], 1))
    assert along is not None
    assert (along.axis, along.is_apart(frozenset({1}))) == (1, True)
    assert labelled(unknown) is None


@pytest.mark.parametrize(
    ("operation", "axis"),
    [
        (lambda x: -x, 2),
        (lambda x: x.transpose(1, 2), 1),
        (lambda x: x.cumsum(1), 2),
        (lambda x: 3 * x + 1, 2),
        (lambda x: F.max_pool1d(x.transpose(1, 2), 3, 1, 1), 1),
        (lambda x: F.interpolate(x.transpose(1, 2), scale_factor=2, mode="linear"), 1),
        (lambda x: F.avg_pool1d(x.transpose(1, 2), 3, 1, 1), 1),
        (lambda x: x[:, torch.tensor([3, 1])], 2),
        (lambda x: x.amax(1), 1),
        (lambda x: x.flip(2)[..., :4], 2),
    ],
)
def test_operations_that_keep_channels_apart(operation: Callable[[Tensor], Tensor], axis: int) -> None:
    x = torch.randn(2, 6, 6)
    found = followed(operation, x, new_channels(x.shape, 2))
    assert isinstance(found, Channels)
    assert found.axis == axis


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x.cumsum(2),
        lambda x: F.avg_pool1d(x, 3, 1, 1),
        lambda x: F.max_pool1d(x, 3, 1, 1),
        lambda x: x.softmax(2),
        lambda x: x @ torch.ones(6, 6),
        lambda x: x.square(),
        lambda x: x + x.transpose(1, 2),
        lambda x: x.view(3),
        lambda x: None,
        lambda x: 0 * x,
    ],
)
def test_operations_that_mix_channels_or_fail(operation: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(2, 6, 6)

    def run(x: Tensor) -> Tensor | None:
        try:
            return operation(x)
        except RuntimeError:
            return None

    assert followed(run, x, new_channels(x.shape, 2)) is None


def test_matrix_products() -> None:
    x, w = torch.randn(2, 5, 6), torch.randn(6, 6)
    of_x, of_turned = new_channels(x.shape, 2), new_channels((2, 6, 5), 1)
    assert axis_of(matmul((2, 5, 6), (x, of_x, False), (w, None, True))) == 2
    # From the left, a parameter mixes what is in the dimension before the last.
    assert axis_of(matmul((2, 6, 5), (w, None, True), (x.transpose(1, 2), of_turned, False))) == 1
    assert axis_of(matmul((2, 4, 6), (torch.randn(4, 5), None, True), (x, of_x, False))) == 2
    scores = torch.randn(2, 5, 5)
    assert matmul((2, 5, 5), (x, of_x, False), (x.transpose(1, 2), of_turned, False)) is None
    assert axis_of(matmul((2, 5, 6), (scores, None, False), (x, of_x, False))) == 2
    assert axis_of(attention((2, 5, 6), of_x)) == 2
    assert axis_of(attention((2, 5, 6), None)) == 2


@pytest.mark.parametrize(
    ("equation", "shape", "axis"),
    [
        ("ntc,cd->ntd", (2, 5, 4), 2),
        ("ntc,cd->ndt", (2, 4, 5), 1),
        ("ntc,c->ntc", (2, 5, 6), 2),
        ("ntc,ts->nsc", (2, 7, 6), None),
    ],
)
def test_einsum(equation: str, shape: tuple[int, ...], axis: int | None) -> None:
    x = torch.randn(2, 5, 6)
    sizes = {"c": 6, "d": 4, "t": 5, "s": 7}
    w = torch.randn([sizes[letter] for letter in equation.split("->")[0].split(",")[1]])
    found = einsum(shape, equation, [(x, new_channels(x.shape, 2), False), (w, None, True)])
    # A parameter that mixes over time makes new channels there.
    assert axis_of(found) == (1 if axis is None else axis)


def test_joined_channels_broadcast() -> None:
    image, per_channel = new_channels((2, 3, 4, 4), 1), new_channels((2, 3, 1, 1), 1)
    assert axis_of(joined((2, 3, 4, 4), [image, per_channel])) == 1
    assert joined((2, 3, 4, 4), []) is None
    assert joined((2, 3), [image]) is None


class Sizes(nn.Module):
    def __init__(self, fixed: bool) -> None:
        super().__init__()
        self.conv, self.fixed = nn.Conv2d(3, 4, 3), fixed
        self.linear = nn.Linear(4 * 6, 2)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        y = self.conv(x + other)
        return self.linear(y.flatten(1)) if self.fixed else y.permute(0, 2, 3, 1)


@pytest.mark.parametrize(("fixed", "dims"), [(False, {1, 2}), (True, set())])
def test_flexible_dimensions(fixed: bool, dims: set[int]) -> None:
    module = fx.symbolic_trace(Sizes(fixed))
    samples = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 5, 4)
    found = flexible_dimensions(module, samples, record(module, samples))
    (output,) = (node for node in module.graph.nodes if node.op == "output")
    assert found[output.args[0]] == dims


def axis_of(channels: Channels | None) -> int | None:
    return None if channels is None else channels.axis
