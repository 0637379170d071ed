"""Layers that put packed values elsewhere: the same values as torch's operations on numbers."""

from __future__ import annotations

import operator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sj_ann2snn import Converter, simulate
from sj_ann2snn.compat import layer
from sj_ann2snn.layers import Stepwise
from sj_ann2snn.simulation.engine.bits import layers
from sj_ann2snn.simulation.engine.bits.values import Flattened, PackedBits
from sj_ann2snn.simulation.engine.levels.values import Levels
from sj_ann2snn.simulation.engine.packed.moves import UPSAMPLING, flattens, may_flatten, move_of
from sj_ann2snn.simulation.engine.packed.values import Packed

from ...helpers.networks import relative_error
from .networks import branching, lines
from .spikes import SAMPLES, STEPS, packed, random_spikes

pytest.importorskip("numba", reason="numba is not installed")


def levels(spikes: Tensor) -> Levels:
    return Levels((spikes * 3).short().movedim(2, -1).contiguous())


def counts(spikes: Tensor) -> Packed:
    found = layers.average_packed(nn.AvgPool2d((1, 2)), packed(spikes.repeat_interleave(2, -1)))
    assert found is not None
    return found


ALL = slice(None)
MOVES: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
    (F.pad, ((1, 2, 0, 3),), {}),
    (F.pad, ((2, 1),), {"mode": "constant", "value": None}),
    (F.pad, ((0, 0, 0, 0, 8, 16),), {"value": 0.0}),
    (nn.ZeroPad2d(2), (), {}),
    (nn.ConstantPad2d((0, 1, 2, 3), 0.0), (), {}),
    (F.interpolate, (), {"scale_factor": 2}),
    (F.interpolate, ((9, 4),), {"mode": "nearest"}),
    (F.interpolate, (), {"scale_factor": 1.7, "recompute_scale_factor": True}),
    (operator.getitem, ((ALL, ALL, slice(None, None, 2), slice(1, -1)),), {}),
    (operator.getitem, ((ALL, slice(8, 16)),), {}),
    (operator.getitem, ((ALL, slice(8, None), slice(2)),), {}),
    (operator.getitem, ((..., slice(2, None)),), {}),
    (operator.getitem, ((ALL, slice(8), ..., slice(-3, None)),), {}),
    (F.adaptive_avg_pool2d, (6,), {}),
    (F.adaptive_avg_pool2d, ((6, None),), {}),
]


@pytest.mark.parametrize("store", [packed, levels, counts])
@pytest.mark.parametrize(("operation", "args", "kwargs"), MOVES)
def test_moves(operation: Any, args: Any, kwargs: Any, store: Any) -> None:
    torch.manual_seed(0)
    x = store(random_spikes(16, 6, 6))
    module = Stepwise(operation)
    move = move_of(module)
    assert move is not None
    found = move(x, *args, **kwargs)
    if operation is F.interpolate and store is levels:
        assert found is None  # torch enlarges no integers of 16 bits
        return
    module.step_mode = "m"
    assert type(found) is type(x)
    assert torch.equal(found.unpacked(), module(x.unpacked(), *args, **kwargs))  # type: ignore[union-attr]


@pytest.mark.parametrize("module", [nn.Upsample(scale_factor=3), UPSAMPLING[-1](size=(5, 7))])
def test_upsampling(module: Any) -> None:
    x = random_spikes(10, 4, 6)
    found: Any = move_of(module)(packed(x))  # type: ignore[misc]
    assert found.shape[2] == 10
    assert torch.equal(found.unpacked().flatten(0, 1), F.interpolate(x.flatten(0, 1), module.size, module.scale_factor))


@pytest.mark.parametrize("module", [nn.AdaptiveAvgPool2d(4), layer.AdaptiveAvgPool2d((4, 6)), nn.AdaptiveAvgPool1d(6)])
def test_adaptive_pools_that_leave_images_as_they_are(module: Any) -> None:
    move, x = move_of(module), packed(random_spikes(10, 4, 6))
    assert move is not None
    same = module.output_size == (4, 6)
    assert (move(x) is x) == same
    line = packed(random_spikes(10, 6))
    assert (move(line) is line) == (module.output_size == 6)


@pytest.mark.parametrize("store", [packed, levels, counts])
@pytest.mark.parametrize("dim", [1, 2, -1])
@pytest.mark.parametrize("function", [torch.cat, torch.concat, torch.concatenate])
def test_joining(function: Any, dim: int, store: Any) -> None:
    sizes = [[16, 6, 6] for _ in range(3)]
    for size, other in zip(sizes, (8, 24, 5), strict=True):
        size[dim - 1 if dim > 0 else dim] = other
    parts = [store(random_spikes(*size)) for size in sizes]
    found: Any = move_of(Stepwise(function))(parts, dim)  # type: ignore[misc]
    joined = torch.cat([one.unpacked().flatten(0, 1) for one in parts], dim)
    assert torch.equal(found.unpacked().flatten(0, 1), joined)


def test_what_is_moved_as_numbers() -> None:
    x, odd, line = packed(random_spikes(16, 6, 6)), packed(random_spikes(12, 6, 6)), packed(random_spikes(16))
    constant = torch.zeros(SAMPLES * STEPS, 16, 6, 6)
    cat, pad, cut = (move_of(Stepwise(one)) for one in (torch.cat, F.pad, operator.getitem))
    enlarge = move_of(Stepwise(F.interpolate))
    assert cat
    assert pad
    assert cut
    assert enlarge
    assert cat([odd, x], 1) is None  # channels that begin within a byte
    assert cat([x, odd], 1) is not None
    assert cat([x, constant], 1) is None
    assert cat([x, counts(random_spikes(16, 6, 6))], 1) is None
    assert cat([x, levels(random_spikes(16, 6, 6))], 1) is None
    assert cat([x, x], 0) is None
    assert cat([x, odd], 2) is None
    assert cat([x, packed(random_spikes(16, 5, 6))], 1) is None
    assert cat([Flattened(x), Flattened(x)], 1) is None
    for given in ((-1, 0), (1, 1, 1, 1, 4, 4), (0, 0, 0, 0, 0, 0, 1, 1)):
        assert pad(x, given) is None
    assert pad(odd, (0, 0, 0, 0, 0, 8)) is None
    assert pad(x, (1, 1), "reflect") is None
    assert pad(x, (1, 1), value=1.0) is None
    assert pad(Flattened(x), (1, 1)) is None
    for index in (0, (ALL, 0), (slice(1), ALL), (ALL, slice(4, 12)), (ALL, slice(0, 16, 2)), (ALL, ALL, slice(6, 6))):
        assert cut(x, index) is None
    for index in ((..., slice(2), ...), (..., 0), (ALL, torch.arange(2)), (ALL, ALL, ALL, ALL, ..., ALL)):
        assert cut(x, index) is None
    assert enlarge(x, scale_factor=2, mode="bilinear") is None
    assert cat([line, line], 1) is not None
    for module in (nn.ReLU(), Stepwise(torch.roll), Stepwise(nn.ReflectionPad2d(1)), torch.cat, nn.Identity()):
        assert move_of(module) is None
    assert move_of(nn.ConstantPad2d(1, 1.0))(x) is None  # type: ignore[misc]
    watched = nn.ZeroPad2d(1)
    watched.register_forward_hook(lambda *_: None)
    assert move_of(watched) is None


@pytest.mark.parametrize(
    ("module", "args", "kwargs", "wanted"),
    [
        (nn.Flatten(), (), {}, True),
        (layer.Flatten(), (), {}, True),
        (nn.Flatten(2), (), {}, False),
        (Stepwise(torch.flatten), (1,), {}, True),
        (Stepwise(torch.flatten), (), {"start_dim": 1}, True),
        (Stepwise("flatten"), (1, 3), {}, True),
        (Stepwise("flatten"), (1, 2), {}, False),
        (Stepwise("flatten"), (), {}, False),
        (Stepwise("view"), (STEPS * SAMPLES, -1), {}, True),
        (Stepwise("reshape"), ((-1, 360),), {}, True),
        (Stepwise(torch.reshape), ((STEPS * SAMPLES, 360),), {}, True),
        (Stepwise("view"), (-1, 36), {}, False),
        (Stepwise("view"), (-1,), {}, False),
        (Stepwise(torch.relu), (), {}, False),
    ],
)
def test_flattening(module: Any, args: Any, kwargs: Any, wanted: bool) -> None:
    spikes = random_spikes(10, 6, 6)
    x = packed(spikes)
    assert flattens(module, (x, *args), kwargs) == wanted
    assert may_flatten(module) or not wanted
    assert not flattens(module, (spikes, *args), kwargs)
    found = Flattened(x)
    assert found.shape == (STEPS, SAMPLES, 360)
    assert torch.equal(found.unpacked(), spikes.flatten(2))
    assert torch.equal(found.active().per_step(), x.per_step())


@pytest.mark.parametrize("make", [branching, lines])
def test_all_of_a_network_is_packed(make: Any, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is unpacked but what no layer reads as bits: an empty slice of features, and what is added to others."""
    unpacked: list[tuple[int, ...]] = []
    original = PackedBits.unpacked

    def seen(self: PackedBits) -> Tensor:
        unpacked.append(self.shape[2:])
        return original(self)

    monkeypatch.setattr(PackedBits, "unpacked", seen)
    simulate(Converter([x], progress=False)(make()), x, 4)
    assert set(unpacked) <= ({(10, 10, 10), (16, 5, 5), (30,)} if make is branching else set())


class Sized(nn.Module):
    """Asks how large its images are, and adds what is the same for all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(288, 4)
        self.border = nn.Parameter(torch.rand(1, 8, 6, 6) - 0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.second(F.relu(self.first(x))) + self.border)
        result: Tensor = self.last(y.reshape(y.size(0), y.size(1) * y.shape[2] * y.shape[-1]))
        return result


def test_sizes_and_constants_that_all_samples_share(
    x: Tensor, in_numbers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(3)
    snn = Converter([x], progress=False)(Sized().eval())
    wanted = in_numbers(lambda: simulate(snn, x, 9))
    assert relative_error(simulate(snn, x, 9), wanted) < 1e-6


class ByName(nn.Module):
    """Calls functions with the names of their arguments, as few people do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(16, 8, 3), nn.Linear(968, 4)
        self.up, self.border, self.same = nn.Upsample(scale_factor=2), nn.ZeroPad2d(1), nn.AdaptiveAvgPool2d(8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.same(input=F.relu(self.first(x)))
        y = F.pad(input=torch.cat(tensors=(y, y), axis=1), pad=(1, 0, 1, 0))
        y = F.relu(self.second(F.adaptive_avg_pool2d(input=y, output_size=9)))
        y = F.interpolate(input=self.border(input=self.up(input=y)), size=11)
        result: Tensor = self.last(torch.flatten(input=y, start_dim=1))
        return torch.sub(input=result, other=1.0)


def test_arguments_by_name(x: Tensor, in_numbers: Any) -> None:
    torch.manual_seed(4)
    snn = Converter([x], progress=False)(ByName().eval())
    assert relative_error(simulate(snn, x, 9), in_numbers(lambda: simulate(snn, x, 9))) < 1e-6


def test_arguments_that_torch_does_not_have_are_left_to_it() -> None:
    x = packed(random_spikes(16, 6, 6))
    for function, args in ((torch.cat, ([x, x], 1)), (F.pad, (x, (1, 1))), (F.interpolate, (x, 12))):
        move = move_of(Stepwise(function))
        assert move is not None
        assert move(*args) is not None
        assert move(*args, out=None) is None
    pool = move_of(Stepwise(F.adaptive_avg_pool2d))
    assert pool is not None
    assert pool(x, 6, out=None) is None
