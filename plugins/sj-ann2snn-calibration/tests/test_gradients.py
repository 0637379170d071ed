"""The neuron with gradients, against the same written step by step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sj_ann2snn_calibration import gradients
from sj_ann2snn_calibration.gradients import fire
from sj_ann2snn_calibration.loops import frame_of
from torch import Tensor

from sj_ann2snn import make_if_neuron


class Spike(torch.autograd.Function):
    """A step whose slope is one within half a threshold."""

    @staticmethod
    def forward(ctx: Any, v: Tensor) -> Tensor:
        ctx.save_for_backward(v)
        return (v >= 1).to(v.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (v,) = ctx.saved_tensors
        return grad * ((v - 1).abs() < 0.5)


def step_by_step(currents: Tensor, log_scale: Tensor, bias: Tensor, potential: Tensor) -> Tensor:
    scale = log_scale.exp().view(-1, 1, 1)
    v: Tensor = potential.expand_as(currents[0])
    emitted = []
    for z in currents:
        v = v + (z + bias.view(-1, 1, 1)) / scale
        spikes = Spike.apply(v)
        v = v - spikes
        emitted.append(spikes * scale)
    return torch.stack(emitted)


@pytest.mark.parametrize("shape", [(4, 1, 1), (4, 3, 2), (1, 1, 1)])
def test_spikes_and_gradients_are_those_of_the_steps_written_out(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    currents = torch.randn(6, 5, 4, 3, 2).double().requires_grad_()
    log_scale, bias = (torch.randn(4).double().mul(0.2).requires_grad_() for _ in range(2))
    potential = torch.rand(*shape).double().requires_grad_()
    given = [currents, log_scale, bias, potential]
    weights = torch.randn(6, 5, 4, 3, 2).double()
    found, wanted = fire(*given), step_by_step(*given)
    torch.testing.assert_close(found, wanted)
    for one, other in zip(
        torch.autograd.grad((found * weights).sum(), given),
        torch.autograd.grad((wanted * weights).sum(), given),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", ["channels first", "channels last", "constant", "vectors", "odd"])
def test_compiled_loops_do_what_torch_does(layout: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    shape = {"vectors": (5, 24, 6), "odd": (4, 3, 5, 7, 3)}.get(layout, (4, 8, 4, 8, 8))
    currents = torch.randn(shape)
    if layout == "channels last":
        currents = currents.movedim(2, -1).contiguous().movedim(-1, 2)
    if layout == "constant":
        currents = currents[:1].expand(shape)
    channels = shape[2]
    currents = currents.to(dtype)
    log_scale, bias = (torch.randn(channels).mul(0.2).requires_grad_() for _ in range(2))
    potential = torch.rand(channels, *(1,) * (len(shape) - 3)).requires_grad_()
    assert frame_of(currents if layout != "constant" else currents.contiguous()) is not None
    found = _emitted_and_gradients(currents, log_scale, bias, potential)
    monkeypatch.setattr(gradients, "frame_of", lambda currents: None)
    wanted = _emitted_and_gradients(currents, log_scale, bias, potential)
    assert torch.equal(found[0], wanted[0])
    for one, other in zip(found[1:], wanted[1:], strict=True):
        assert one.dtype == other.dtype
        tolerance = 1e-5 if dtype == torch.float32 else 1e-2
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * float(other.abs().max()))


def test_threads_share_the_compiled_loops() -> None:
    pytest.importorskip("numba")
    currents, arguments = torch.randn(4, 6, 8, 5, 5), (torch.zeros(8), torch.zeros(8), torch.full((8, 1, 1), 0.5))
    one = _emitted_and_gradients(currents, *(value.clone().requires_grad_() for value in arguments))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        three = _emitted_and_gradients(currents, *(value.clone().requires_grad_() for value in arguments))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one[0], three[0])
    for left, right in zip(one[1:], three[1:], strict=True):
        torch.testing.assert_close(left, right)


def _emitted_and_gradients(currents: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    currents = currents.detach().requires_grad_()
    emitted = fire(currents, *others)
    weights = torch.randn(emitted.shape, generator=torch.Generator().manual_seed(1)).to(emitted.dtype)
    return emitted, *torch.autograd.grad(emitted, [currents, *others], weights)


def test_without_adjustments_it_is_spikingjellys_neuron() -> None:
    torch.manual_seed(0)
    currents = torch.randn(20, 5, 4).double()
    neuron = make_if_neuron(initial_potential=0.5)
    neuron.step_mode = "m"
    found = fire(currents, torch.zeros(4).double(), torch.zeros(4).double(), torch.full((4,), 0.5).double())
    torch.testing.assert_close(found, neuron(currents))


def test_images_keep_their_layout() -> None:
    torch.manual_seed(0)
    currents = torch.randn(3, 2, 4, 5, 5)
    innermost = torch.stack([z.contiguous(memory_format=torch.channels_last) for z in currents])
    arguments = torch.zeros(4), torch.zeros(4), torch.full((4, 1, 1), 0.5)
    assert torch.equal(fire(innermost, *arguments), fire(currents, *arguments))
