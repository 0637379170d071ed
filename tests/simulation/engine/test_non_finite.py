"""A NaN or an infinite value is an error if the answer would hide it, and none where the ANN ignores it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import Converter, InputError, NonFiniteError, NotConvertedWarning, evaluate, simulate
from tests.helpers.networks import GradedMaker

NAN, INF = math.nan, math.inf


def convert(ann: nn.Module, *inputs: Tensor, **options: Any) -> nn.Module:
    return Converter([inputs], progress=False, **options)(ann.eval())


@pytest.fixture
def x() -> Tensor:
    return torch.rand(40, 1, 10, 10, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def snn(x: Tensor) -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 8, 3), nn.LeakyReLU(0.1), nn.Flatten())
    return convert(nn.Sequential(*layers, nn.Linear(32, 3)), x)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_the_input_and_its_samples_are_named(snn: nn.Module, x: Tensor, value: float) -> None:
    x[17, 0, 4, 4] = x[33, 0, 2, 2] = value
    kind = "NaN" if math.isnan(value) else "infinite"
    expected = (
        rf"input is {kind} in 2 value\(s\) \(first affected samples of 40: 17, 33\); it first shows at 0 \(Conv2d\)"
    )
    with pytest.raises(NonFiniteError, match=expected):
        simulate(snn, x, T=5)
    labels = torch.zeros(40, dtype=torch.int64)
    batches = [(torch.rand_like(x), labels), (x, labels)]
    for early_exit in (None, 0.5):
        with pytest.raises(NonFiniteError, match=f"Batch 1 cannot be evaluated. The {expected}"):
            evaluate(snn, batches, T=5, early_exit=early_exit, progress=False)


@pytest.mark.parametrize("name", ["0.weight", "0.bias", "3.weight", "3.bias", "6.weight", "6.bias"])
@pytest.mark.parametrize("value", [NAN, INF])
def test_the_weight_is_named(snn: nn.Module, x: Tensor, name: str, value: float) -> None:
    if (name, value) == ("6.bias", INF):
        pytest.skip("the answer is infinite, as the ANN's is")
    with torch.no_grad():
        snn.get_parameter(name).view(-1)[0] = value
    kind = "NaN" if math.isnan(value) else "infinite"
    with pytest.raises(NonFiniteError, match=rf"weight {name} is {kind} in 1 value\(s\); it first shows at {name[0]}"):
        simulate(snn, x, T=5)


def test_half_precision_that_overflowed(snn: nn.Module, x: Tensor) -> None:
    assert simulate(snn, x.half(), T=3).isfinite().all()
    with pytest.raises(NonFiniteError, match="input is infinite"):
        simulate(snn, (x * 1e6).half(), T=3)


def test_what_overflows_inside_is_named(x: Tensor) -> None:
    ann = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    with torch.no_grad():
        ann[0].weight.abs_().add_(1)
    snn = convert(ann, x)
    with pytest.raises(NonFiniteError, match=r"result of 0 \(Conv2d\) is infinite, although the input and the weights"):
        simulate(snn, x.sign() * 3e38, T=3)


class Divided(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(torch.relu(self.first(x)) / x.sum(1, keepdim=True))
        return self.last(torch.relu(hidden))


@pytest.mark.parametrize("neuron", ["if", GradedMaker()])
def test_a_division_by_zero_behind_a_neuron(neuron: Any) -> None:
    torch.manual_seed(0)
    x = torch.rand(30, 4)
    snn = convert(Divided(), x, neuron=neuron)
    x[5] = 0
    with pytest.raises(NonFiniteError, match=r"result of truediv \(truediv\) is NaN"):
        simulate(snn, x, T=5)
    with pytest.raises(NonFiniteError, match="Batch 0"):
        evaluate(snn, [(x, torch.zeros(30, dtype=torch.int64))], T=5, progress=False)


def test_networks_that_run_step_by_step(snn: nn.Module, x: Tensor) -> None:
    wrapped = nn.Sequential(snn, nn.Identity())
    assert simulate(wrapped, x, T=3).isfinite().all()
    bad = x.clone()
    bad[3, 0, 0, 0] = NAN
    with pytest.raises(
        NonFiniteError,
        match=r"In the submodule '0': .*first affected samples of 40: 3\); it first shows at 0 \(Conv2d\)",
    ):
        simulate(wrapped, bad, T=3)
    with torch.no_grad():
        snn.get_parameter("3.weight").view(-1)[0] = NAN
    with pytest.raises(NonFiniteError, match=r"In the submodule '0': The weight 3\.weight is NaN"):
        simulate(wrapped, x, T=3)


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = torch.where(mask, x, torch.zeros_like(x))
        return self.last(torch.relu(self.second(torch.relu(self.first(x)))))


def test_what_the_network_masks_does_not_matter() -> None:
    torch.manual_seed(0)
    x, mask = torch.rand(20, 4), torch.rand(20, 4) > 0.3
    snn = convert(Masked(), x, mask)
    expected = simulate(snn, (x, mask), T=8)
    assert simulate(snn, (torch.where(mask, x, NAN), mask), T=8).equal(expected)
    with pytest.raises(NonFiniteError, match="The input 'x' is NaN"):
        simulate(snn, (torch.full_like(x, NAN), mask), T=8)


class CutOff(nn.Module):
    """Looks at the first half of a sequence, behind its neurons."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv1d(2, 4, 1), nn.Linear(20, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.conv(x))[..., :5].flatten(1))


def test_what_the_network_cuts_off_behind_a_neuron_does_not_matter() -> None:
    torch.manual_seed(0)
    x = torch.rand(20, 2, 10)
    snn = convert(CutOff(), x)
    padded = x.clone()
    padded[:, :, 5:] = NAN
    assert simulate(snn, padded, T=8).equal(simulate(snn, x, T=8))
    padded[7, 0, 4] = NAN
    with pytest.raises(NonFiniteError, match=r"first affected samples of 20: 0, 1"):
        simulate(snn, padded, T=8)


class TwoAnswers(Masked):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x.nan_to_num(), torch.ones_like(x) > 0), x * 2


def test_an_answer_without_neurons_is_as_it_is() -> None:
    torch.manual_seed(0)
    x = torch.rand(20, 4)
    snn = convert(TwoAnswers(), x)
    x[3] = NAN
    spiking, plain = simulate(snn, x, T=8)
    assert spiking.isfinite().all()
    assert plain.isnan().any(1).nonzero().flatten().tolist() == [3]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.value, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.register_buffer("mask", torch.full((5, 5), -INF).triu(1))

    def forward(self, x: Tensor, actions: Tensor) -> Tensor:
        weights = (self.query(x) @ x.transpose(1, 2) + self.mask).softmax(-1)
        hidden = torch.relu(weights @ self.value(x))
        return self.last(hidden).mean(1) + actions


def test_masks_of_minus_infinity() -> None:
    torch.manual_seed(0)
    x, actions = torch.rand(8, 5, 4), torch.zeros(8, 2)
    with pytest.warns(NotConvertedWarning, match="softmax"):
        snn = convert(Attention(), x, actions)
    expected = simulate(snn, (x, actions), T=8)
    actions[:, 1] = -INF
    found = simulate(snn, (x, actions), T=8)
    assert found[:, 0].equal(expected[:, 0])
    assert (found[:, 1] == -INF).all()


def test_minus_infinity_is_zero_behind_a_relu() -> None:
    ann = nn.Sequential(nn.ReLU(), nn.Linear(3, 2))
    x = torch.rand(20, 3)
    snn = convert(ann, x)
    x[4, 1] = -INF
    with torch.no_grad():
        assert torch.allclose(simulate(snn, x, T=256), ann(x), atol=0.01)


def test_a_pool_that_pads_with_minus_infinity(x: Tensor) -> None:
    pool = nn.Sequential(nn.ConstantPad2d(1, -INF), nn.MaxPool2d(3, 2))
    ann = nn.Sequential(pool, nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2, padding=1), nn.Conv2d(4, 2, 2))
    assert simulate(convert(ann, x), x, T=4).isfinite().all()


def test_all_tiles_are_looked_at(snn: nn.Module) -> None:
    x = torch.rand(600, 1, 10, 10)
    x[599, 0, 4, 4] = NAN
    with pytest.raises(NonFiniteError, match="first affected samples of 600: 599"):
        simulate(snn, x, T=2)


def test_the_network_stays_as_it_was(snn: nn.Module, x: Tensor) -> None:
    before = str(snn)
    expected = simulate(snn, x, T=4)
    with pytest.raises(NonFiniteError):
        simulate(snn, x * NAN, T=4)
    assert simulate(snn, x, T=4).equal(expected)
    assert not any(module._forward_hooks for module in snn.modules())
    assert str(snn) == before


def test_other_dtypes_are_what_the_network_says(snn: nn.Module, x: Tensor) -> None:
    with pytest.raises(InputError):
        simulate(snn, x.double() * 1e300, T=2)
