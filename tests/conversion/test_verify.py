"""Verification finds networks whose answers change when they are traced or called again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from spikingjelly.activation_based import neuron
from torch import Tensor, nn

from sj_ann2snn import (
    ConversionError,
    VerificationError,
)
from sj_ann2snn.conversion.verify import relative_error, require_same

from ..helpers.networks import Written, convert, run_by_hand


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def images(count: int = 20) -> Tensor:
    return torch.rand(count, 4)


@pytest.mark.parametrize(
    "change",
    [
        lambda ann: ann[1].register_forward_hook(lambda module, inputs, output: output + 1),
        lambda ann: ann[0].register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2,)),
        lambda ann: ann[1].register_forward_hook(lambda module, args, kwargs, output: output * 3, with_kwargs=True),
        lambda ann: ann.register_forward_hook(lambda module, inputs, output: output.softmax(1)),
    ],
)
def test_hooks_that_change_results_are_found_out(change: Any) -> None:
    ann = network()
    change(ann)
    with pytest.raises(VerificationError, match="first two calibration samples"):
        convert(ann, images())
    snn = convert(ann, images(), verify=False)
    assert [type(module) for module in snn.modules() if isinstance(module, neuron.BaseNode)] == [neuron.IFNode]


def test_hooks_that_only_look_are_no_problem() -> None:
    ann = network()
    data, seen = images(), []
    wanted = convert(ann, data)
    ann[1].register_forward_hook(lambda module, inputs, output: seen.append(output.shape[1:]))
    assert torch.equal(run_by_hand(convert(ann, data), data, 8), run_by_hand(wanted, data, 8))
    assert set(seen) == {torch.Size([6])}


def test_state_kept_between_calls_is_found_out() -> None:
    class Counting(nn.Module):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x * float(self.calls)

    with pytest.raises(ConversionError, match=r"keeps state between calls: a call writes to 1\.calls"):
        convert(nn.Sequential(network(), Counting()), images())


def test_randomness_at_inference_is_found_out() -> None:
    ann = Written(lambda net, x: net.body(x + torch.randn(4)), body=network())
    with pytest.raises(VerificationError, match="randomness at inference"):
        convert(ann, images())


def test_outputs_are_compared_wherever_they_are() -> None:
    one = {"a": torch.ones(3), "b": [torch.zeros(2), (torch.full((2,), 5.0), "text", None)]}
    same = {"a": torch.ones(3), "b": [torch.zeros(2), (torch.full((2,), 5.0), "text", None)]}
    require_same(same, one)
    same["b"][1][0][1] = 5.1  # type: ignore[index]
    with pytest.raises(VerificationError, match=r"relative error of 0\.014 \(allowed: 0\.001\)"):
        require_same(same, one)
    assert relative_error(same, one)[0] == pytest.approx(0.1 / 50**0.5, rel=1e-4)


@pytest.mark.parametrize(
    ("got", "wanted"),
    [
        (torch.ones(3), torch.ones(4)),
        (torch.ones(3), (torch.ones(3), torch.ones(3))),
        ((torch.ones(3), torch.ones(3)), torch.ones(3)),
        (torch.ones(3), torch.full((3,), float("nan"))),
        (torch.full((3,), float("nan")), torch.ones(3)),
        (torch.full((3,), 1e-3), torch.zeros(3)),
    ],
)
def test_outputs_that_are_not_comparable_differ(got: Any, wanted: Any) -> None:
    with pytest.raises(VerificationError, match="differs from the ANN by a relative error of"):
        require_same(got, wanted)


@pytest.mark.parametrize(("dtype", "allowed", "too_much"), [(torch.float32, 5e-4, 5e-3), (torch.float64, 5e-9, 5e-8)])
def test_what_rounding_explains_is_allowed(dtype: torch.dtype, allowed: float, too_much: float) -> None:
    wanted = torch.ones(10, dtype=dtype)
    require_same(wanted * (1 + allowed), wanted)
    with pytest.raises(VerificationError, match=f"relative error of {too_much:.2g} "):
        require_same(wanted * (1 + too_much), wanted)
