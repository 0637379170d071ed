"""StepBias: another bias at each of the first steps after a reset."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from spikingjelly.activation_based import functional

from sj_ann2snn import StepBias

BIAS = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])


def by_steps(layer: StepBias, x: torch.Tensor) -> torch.Tensor:
    functional.reset_net(layer)
    layer.step_mode = "s"
    return torch.stack([layer(one) for one in x])


@pytest.mark.parametrize("parts", [(5,), (1, 4), (2, 1, 2), (3, 2)])
def test_each_step_has_its_bias_and_later_ones_have_none(parts: tuple[int, ...]) -> None:
    layer, x = StepBias(BIAS.reshape(3, 2, 1)), torch.rand(5, 4, 2, 3)
    wanted = x.clone()
    wanted[:3] += BIAS.reshape(3, 1, 2, 1)
    assert torch.equal(by_steps(layer, x), wanted)
    layer.reset()
    layer.step_mode = "m"
    assert torch.equal(torch.cat([layer(part) for part in x.split(parts)]), wanted)
    layer.reset()
    assert torch.equal(torch.cat([layer.add_(part.clone()) for part in x.split(parts)]), wanted)


def test_a_reset_starts_anew() -> None:
    layer, x = StepBias(BIAS), torch.rand(5, 4, 2)
    assert torch.equal(by_steps(layer, x), by_steps(layer, x))
    layer(x[0])
    assert torch.equal(layer(x[0]), x[0])


def test_one_bias_for_a_sample_without_dimensions() -> None:
    layer = StepBias(torch.tensor([1.0, 2.0]))
    assert by_steps(layer, torch.zeros(3, 2)).tolist() == [[1, 1], [2, 2], [0, 0]]


def test_gradients_pass() -> None:
    x = torch.rand(2, 2, requires_grad=True)
    StepBias(BIAS)(x).sum().backward()
    assert torch.equal(x.grad, torch.ones(2, 2))  # type: ignore[arg-type]


def test_copies_count_for_themselves_and_pickles_go_on_where_they_were() -> None:
    layer, x = StepBias(BIAS), torch.zeros(1, 2)
    layer(x)
    other, again = copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))
    assert [one(x).tolist() for one in (layer, other, again)] == [[[3.0, 4.0]]] * 3
    assert layer(x).tolist() == [[5.0, 6.0]]
    assert other(x).tolist() == [[5.0, 6.0]]


def test_the_values_are_in_the_state_dict() -> None:
    layer = StepBias(BIAS)
    assert list(layer.state_dict()) == ["bias"]
    other = StepBias(torch.zeros(3, 2))
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(torch.zeros(1, 2)), BIAS[:1])
    assert torch.equal(StepBias(**layer.export_options()).bias, BIAS)
