"""`Stepwise` runs any operation step by step on a sequence."""

from __future__ import annotations

import operator
from collections import namedtuple
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from sj_ann2snn import Stepwise

Pair = namedtuple("Pair", ["one", "other"])


def by_steps(module: nn.Module, *sequences: Tensor) -> Any:
    """The module in step mode "s", one step at a time."""
    functional.set_step_mode(module, "s")
    return [module(*(x[t] for x in sequences)) for t in range(len(sequences[0]))]


def all_at_once(module: nn.Module, *sequences: Tensor) -> Any:
    functional.set_step_mode(module, "m")
    return module(*sequences)


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param(nn.Softmax(dim=1), id="module"),
        pytest.param(torch.sigmoid, id="function"),
        pytest.param("sigmoid", id="method"),
        pytest.param(nn.Flatten(), id="flatten"),
        pytest.param(nn.Unfold(2), id="unfold"),
    ],
)
def test_stepwise_runs_any_operation(operation: Any) -> None:
    x = torch.rand(5, 4, 3, 6, 6)
    module = Stepwise(operation)
    wanted = torch.stack(by_steps(module, x))
    got = all_at_once(module, x)
    assert got.shape == wanted.shape
    assert torch.allclose(got, wanted, rtol=1e-6)


def test_stepwise_passes_on_other_arguments() -> None:
    x = torch.rand(5, 4, 3, 6)
    module = Stepwise(torch.flatten)
    module.step_mode = "m"
    assert module(x, 1).shape == (5, 4, 18)
    assert module(x, start_dim=1, end_dim=-1).shape == (5, 4, 18)
    module.step_mode = "s"
    assert module(x[0], 1).shape == (4, 18)


def test_stepwise_leaves_parameters_alone() -> None:
    x, bias = torch.rand(5, 4, 3), torch.rand(3)
    module = Stepwise(operator.add, sequences=(0,))
    module.step_mode = "m"
    assert torch.equal(module(x, bias), x + bias)
    module = Stepwise(operator.add, sequences=(1,))
    module.step_mode = "m"
    assert torch.equal(module(bias, x), x + bias)
    weight = torch.rand(4, 3)  # of the size of the batch, but no sequence
    module = Stepwise(F.linear, sequences=(0,))
    module.step_mode = "m"
    assert torch.equal(module(x, weight), F.linear(x.flatten(0, 1), weight).view(5, 4, 4))


def test_stepwise_takes_several_sequences_in_nests() -> None:
    x, y = torch.rand(5, 4, 3), torch.rand(5, 4, 2)
    module = Stepwise(torch.cat, sequences=(0, 1))
    module.step_mode = "m"
    assert torch.equal(module([x, y], 1), torch.cat([x, y], 2))
    assert torch.equal(module((x, y), dim=1), torch.cat([x, y], 2))
    assert torch.equal(module(tensors=[x, y], dim=1), torch.cat([x, y], 2))


def test_stepwise_returns_several_results() -> None:
    x = torch.rand(5, 4, 6)
    module = Stepwise(torch.chunk)
    module.step_mode = "m"
    for one, other in zip(module(x, 3, 1), x.chunk(3, 2), strict=True):
        assert torch.equal(one, other)
    pair = Stepwise(lambda x: Pair(x + 1, [x * 2, {"sum": x.sum(1)}]))
    pair.step_mode = "m"
    got = pair(x)
    assert isinstance(got, Pair)
    assert torch.equal(got.one, x + 1)
    assert torch.equal(got.other[0], x * 2)
    assert torch.allclose(got.other[1]["sum"], x.sum(2))


def test_stepwise_lets_a_batch_become_finer() -> None:
    x = torch.arange(5 * 4 * 6.0).view(5, 4, 6)
    module = Stepwise("view")
    assert torch.equal(all_at_once(Stepwise(lambda x: x.view(-1, 2)), x), torch.stack([one.view(-1, 2) for one in x]))
    module.step_mode = "m"
    assert module(x, -1, 2).shape == (5, 12, 2)


def test_stepwise_passes_on_sizes() -> None:
    x = torch.rand(5, 4, 6)
    module = Stepwise("size")
    module.step_mode = "m"
    assert module(x) == (20, 6)
    assert isinstance(module(x), torch.Size)
    assert module(x, 0) == 20


def test_stepwise_says_what_it_runs() -> None:
    assert "flatten" in repr(Stepwise(torch.flatten))
    assert "view" in repr(Stepwise("view"))
    assert "Softmax" in repr(Stepwise(nn.Softmax(1)))
    assert "step_mode=s" in repr(Stepwise("view"))
