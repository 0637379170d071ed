"""The module by itself: exact in the mean at every step, in both step modes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sj_ann2snn_analog import TemporalDifference
from spikingjelly.activation_based import functional
from torch import Tensor, nn

STEPS, SAMPLES = 12, 3


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


def spikes(*shape: int) -> Tensor:
    """Uneven trains of spikes of several values, with negative ones among them."""
    return torch.randint(-2, 4, (STEPS, SAMPLES, *shape)).double() * 3 * torch.rand(shape, dtype=torch.float64)


def double(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module.double().eval()


UNARY = [
    *(
        pytest.param(activation, (6, 5), id=type(activation).__name__)
        for activation in (
            nn.CELU(0.7),
            nn.ELU(),
            nn.GELU(),
            nn.GELU(approximate="tanh"),
            nn.GLU(1),
            nn.Hardshrink(),
            nn.Hardsigmoid(),
            nn.Hardswish(),
            nn.Hardtanh(),
            nn.LogSigmoid(),
            nn.Mish(),
            nn.SELU(),
            nn.SiLU(),
            nn.Sigmoid(),
            nn.Softplus(),
            nn.Softshrink(),
            nn.Softsign(),
            nn.Tanh(),
            nn.Tanhshrink(),
            nn.Softmax(1),
            nn.LogSoftmax(-1),
            nn.Softmin(1),
        )
    ),
    pytest.param(nn.Softmax2d(), (6, 5, 4), id="Softmax2d"),
    pytest.param(double(nn.LayerNorm(5)), (6, 5), id="LayerNorm"),
    pytest.param(double(nn.RMSNorm(5, eps=1e-6)), (6, 5), id="RMSNorm"),
    pytest.param(double(nn.GroupNorm(3, 6)), (6, 5), id="GroupNorm"),
    pytest.param(nn.InstanceNorm2d(6), (6, 5, 4), id="InstanceNorm"),
    pytest.param(nn.LocalResponseNorm(3), (6, 5), id="LocalResponseNorm"),
    pytest.param(F.normalize, (6, 5), id="normalize"),
    pytest.param(torch.exp, (6,), id="exp"),
    pytest.param("square", (6,), id="method"),
    pytest.param(lambda x: (x.var(1), {"mean": [x.mean(1)]}), (6, 5), id="several-results"),
]

JOINT = [
    pytest.param(torch.mul, [(6, 5, 5), (6, 1, 1)], id="gate"),
    pytest.param(torch.matmul, [(2, 6, 5), (2, 5, 6)], id="matmul"),
    pytest.param(lambda x, y: torch.einsum("nij,nkj->nik", x, y), [(6, 5), (4, 5)], id="einsum"),
    pytest.param(lambda x, y: x / (1 + y.abs()), [(6,), (6,)], id="quotient"),
    pytest.param(F.scaled_dot_product_attention, [(2, 6, 4), (2, 5, 4), (2, 5, 4)], id="attention"),
]


def outputs(result: Any) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result]
    parts = result.values() if isinstance(result, dict) else result
    return [tensor for part in parts if part is not None for tensor in outputs(part)]


def call(operation: Any, *args: Tensor) -> list[Tensor]:
    return outputs(getattr(args[0], operation)(*args[1:]) if isinstance(operation, str) else operation(*args))


def require_exact(layer: TemporalDifference, operation: Any, sequences: list[Tensor]) -> list[list[Tensor]]:
    """Run step by step and compare the mean after each step; all outputs."""
    emitted: list[list[Tensor]] = []
    for step in range(STEPS):
        emitted.append(outputs(layer(*(x_seq[step] for x_seq in sequences))))
        wanted = call(operation, *(x_seq[: step + 1].mean(0) for x_seq in sequences))
        means = [torch.stack(one).mean(0) for one in zip(*emitted, strict=True)]
        torch.testing.assert_close(means, wanted, rtol=1e-9, atol=1e-9)
    return emitted


@pytest.mark.parametrize(("operation", "shape"), UNARY)
def test_the_mean_is_the_operation_on_the_mean_at_every_step(operation: Any, shape: tuple[int, ...]) -> None:
    x_seq = spikes(*shape)
    require_exact(TemporalDifference(operation), operation, [x_seq])
    # The operation itself, step by step, has another mean.
    naive = [torch.stack(one).mean(0) for one in zip(*(call(operation, x) for x in x_seq), strict=True)]
    pairs = zip(naive, call(operation, x_seq.mean(0)), strict=True)
    assert not all(torch.allclose(one, other, atol=1e-3) for one, other in pairs)


@pytest.mark.parametrize(("operation", "shapes"), JOINT)
def test_several_arguments_may_vary(operation: Any, shapes: list[tuple[int, ...]]) -> None:
    layer = TemporalDifference(operation, tuple(range(len(shapes))))
    require_exact(layer, operation, [spikes(*shape) for shape in shapes])


@pytest.mark.parametrize(
    ("operation", "shapes"), [*(pytest.param(one.values[0], [one.values[1]], id=one.id) for one in UNARY), *JOINT]
)
def test_step_modes_agree_across_stretches_of_time(operation: Any, shapes: list[tuple[int, ...]]) -> None:
    sequences = [spikes(*shape) for shape in shapes]
    positions = tuple(range(len(shapes)))
    single, multi = TemporalDifference(operation, positions), TemporalDifference(operation, positions)
    multi.step_mode = "m"
    every = [outputs(single(*(x_seq[step] for x_seq in sequences))) for step in range(STEPS)]
    stepwise = [torch.stack(one) for one in zip(*every, strict=True)]
    stretches = [outputs(multi(*(x_seq[part] for x_seq in sequences))) for part in (slice(0, 5), slice(5, STEPS))]
    at_once = [torch.cat(one) for one in zip(*stretches, strict=True)]
    torch.testing.assert_close(at_once, stepwise, rtol=1e-9, atol=1e-9)


def test_multihead_attention_with_a_mask_that_does_not_vary() -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True).double().eval()
    x_seq = spikes(5, 8)
    hidden = torch.tensor([[False, False, True, True, True]] * SAMPLES)
    layer = TemporalDifference(attention, (0, 1, 2, 3))
    total: Any = 0.0
    with torch.no_grad():
        for x in x_seq:
            out, weights = layer(x, x, x, key_padding_mask=hidden, need_weights=False)
            total = total + out
        wanted, _ = attention(*[x_seq.mean(0)] * 3, key_padding_mask=hidden)
    assert weights is None
    torch.testing.assert_close(total / STEPS, wanted)


def test_parameters_among_the_arguments_are_no_sequences() -> None:
    x_seq, weight = spikes(6, 5), torch.rand(5, dtype=torch.float64)
    layer = TemporalDifference(F.layer_norm, (0,))
    layer.step_mode = "m"
    out = layer(x_seq, (5,), weight=weight).mean(0)
    torch.testing.assert_close(out, F.layer_norm(x_seq.mean(0), (5,), weight))


def test_what_a_mask_hides_may_be_infinite() -> None:
    x_seq = spikes(6, 5)
    x_seq[..., 3:] = -torch.inf
    out = TemporalDifference(torch.softmax)
    total = sum(out(x, -1) for x in x_seq)
    torch.testing.assert_close(total / STEPS, torch.softmax(x_seq.mean(0), -1))


def test_a_function_that_looks_at_the_memory_may_be_used() -> None:
    def halves(x: Tensor) -> Tensor:
        return x.view(x.size(0), 2, -1).prod(1)

    images = spikes(4, 4, 6).to(torch.float32)
    layer = TemporalDifference(halves)
    layer.step_mode = "m"
    strided = images.transpose(2, 4).contiguous().transpose(2, 4)
    torch.testing.assert_close(layer(strided).mean(0), halves(images.mean(0)))


def test_a_constant_input_makes_a_constant_output() -> None:
    # In single precision the sums of a constant are off by a little, which counts t times at step t.
    layer, x = TemporalDifference(nn.LayerNorm(7)), torch.rand(4, 7)
    with torch.no_grad():
        first = layer(x)
        for _ in range(500):
            assert torch.equal(layer(x), first)


def test_single_precision_stays_exact_over_many_steps() -> None:
    x_seq = (torch.rand(4096, 5, 32) < 0.3) * 1.7
    layer, norm = TemporalDifference(nn.LayerNorm(32)), nn.LayerNorm(32).double()
    layer.step_mode = "m"
    with torch.no_grad():
        mean = torch.cat([layer(part) for part in x_seq.split(7)]).double().mean(0)
        wanted = norm(x_seq.double().mean(0))
    assert float((mean - wanted).norm() / wanted.norm()) < 1e-5


def test_reset_clears_the_memory() -> None:
    layer, x_seq = TemporalDifference(nn.SiLU()), spikes(6)
    before = [layer(x) for x in x_seq]
    functional.reset_net(layer)
    assert layer.steps == 0
    assert layer.sums is None
    after = [layer(x[:2]) for x in x_seq]  # another number of samples
    torch.testing.assert_close(after, [x[:2] for x in before])


def test_gradients_flow_until_the_memory_is_detached() -> None:
    layer, x = TemporalDifference(torch.square), torch.rand(3, 4, requires_grad=True)
    layer(x)
    layer(torch.zeros(3, 4)).sum().backward()
    assert x.grad is not None
    layer.detach()
    assert not layer(torch.zeros(3, 4)).requires_grad


@pytest.mark.parametrize(
    ("operation", "shown"),
    [(torch.exp, "exp, step_mode=s"), ("square", "square, step_mode=s"), (nn.SiLU(), "step_mode=s")],
)
def test_shows_what_it_does(operation: Callable[..., Any], shown: str) -> None:
    assert shown in repr(TemporalDifference(operation))


def settling(runs: Sequence[int], *shape: int) -> Tensor:
    """Rows of what stays the same for so many steps in a row: a run of more than one is the mean of all so far, as
    behind neurons that send no change."""
    rows, total, steps = [], torch.zeros(SAMPLES, *shape, dtype=torch.float64), 0
    for run in runs:
        rows.append(total / steps if run > 1 and steps else torch.randn(SAMPLES, *shape, dtype=torch.float64))
        total, steps = total + run * rows[-1], steps + run
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("operation", "shapes"), [*(pytest.param(one.values[0], [one.values[1]], id=one.id) for one in UNARY), *JOINT]
)
def test_steps_with_the_same_input_count_once(operation: Any, shapes: list[tuple[int, ...]]) -> None:
    runs = (3, 1, 1, 6, 1, 20)
    sequences, positions = [settling(runs, *shape) for shape in shapes], tuple(range(len(shapes)))
    calls = 0

    def counted(*args: Tensor) -> Any:
        nonlocal calls
        calls += 1
        return getattr(args[0], operation)(*args[1:]) if isinstance(operation, str) else operation(*args)

    layer, reference = TemporalDifference(counted, positions), TemporalDifference(operation, positions)
    reference.step_mode = "m"
    for most in (4, 0):  # the second time, it goes on from the first
        calls = 0
        result = layer.runs_forward(runs, *sequences)
        assert calls == most
        every = [x_seq.repeat_interleave(torch.tensor(runs), 0) for x_seq in sequences]
        found = [y.repeat_interleave(torch.tensor(list(runs)), 0) for y in outputs(result)]
        torch.testing.assert_close(found, outputs(reference(*every)), rtol=1e-9, atol=1e-9)
        sequences, runs = [x_seq[-1:] for x_seq in sequences], (5,)
    assert layer.steps == reference.steps
