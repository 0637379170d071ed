"""Adaptive and global max pooling, module by module and through the converter."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sj_ann2snn_adaptive_maxpool import AdaptiveMaxPoolMapper, SpatialMax
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from sj_ann2snn import Converter, CumulativeMax, OptionError, UnsupportedError, evaluate, simulate

OWN = "sj-ann2snn-adaptive-maxpool"

POOLS = [
    pytest.param(nn.AdaptiveMaxPool1d(1), (11,), id="1d-global"),
    pytest.param(nn.AdaptiveMaxPool1d(4), (11,), id="1d-overlapping"),
    pytest.param(nn.AdaptiveMaxPool2d((3, None)), (7, 5), id="2d-none"),
    pytest.param(nn.AdaptiveMaxPool2d(2), (8, 8), id="2d-even"),
    pytest.param(nn.AdaptiveMaxPool3d((1, 2, 3)), (3, 5, 4), id="3d"),
    pytest.param(SpatialMax((2, 3)), (5, 5), id="spatial"),
    pytest.param(SpatialMax((3,), keepdim=True), (5, 5), id="spatial-keepdim"),
]


class Net(nn.Module):
    """Convolution, ReLU and a pool that the forward calls as a function."""

    def __init__(self, pool: Callable[[Tensor], Any], pooled: int = 6) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 6, 3, padding=1)
        self.head = nn.Linear(pooled, 4)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(torch.relu(self.conv(x))).flatten(1))


def spikes(*shape: int) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(2)) < 0.3).float()


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(("pool", "size"), POOLS)
def test_sums_up_to_the_maximum_of_the_sums_at_every_step(pool: nn.Module, size: tuple[int, ...]) -> None:
    x_seq = spikes(20, 3, 2, *size)
    layer = CumulativeMax(pool)
    total: Tensor | float = 0.0
    for step, x in enumerate(x_seq):
        out = layer(x)
        assert set(out.unique().tolist()) <= {0.0, 1.0}
        total = total + out
        torch.testing.assert_close(total, pool(x_seq[: step + 1].sum(0)), rtol=0, atol=0)


@pytest.mark.parametrize(("pool", "size"), POOLS)
def test_step_modes_agree_and_keep_their_state(pool: nn.Module, size: tuple[int, ...]) -> None:
    x_seq = torch.randn(9, 3, 2, *size)
    single, multi = CumulativeMax(pool), CumulativeMax(pool)
    multi.step_mode = "m"
    stepwise = torch.stack([single(x) for x in x_seq])
    # Two calls: the second one goes on where the first one ended.
    torch.testing.assert_close(torch.cat([multi(x_seq[:4]), multi(x_seq[4:])]), stepwise)


def test_reset_clears_the_memory() -> None:
    layer = CumulativeMax(nn.AdaptiveMaxPool1d(1))
    left, right = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 1.0]]])
    assert [layer(left).item(), layer(right).item()] == [1.0, 0.0]
    functional.reset_net(layer)
    assert layer(right).item() == 1.0


NETWORKS = [
    pytest.param(lambda: Net(nn.AdaptiveMaxPool2d(1)), id="module"),
    pytest.param(lambda: Net(nn.AdaptiveMaxPool2d((2, 3)), 36), id="module-overlapping"),
    pytest.param(lambda: Net(lambda x: F.adaptive_max_pool2d(x, 1)), id="functional"),
    pytest.param(lambda: Net(lambda x: F.adaptive_max_pool2d(x, output_size=(1, 1))), id="functional-keyword"),
    pytest.param(lambda: Net(lambda x: F.adaptive_max_pool1d(x.flatten(2), 2), 12), id="functional-1d"),
    pytest.param(lambda: Net(lambda x: F.adaptive_max_pool3d(x.unsqueeze(2), 1)), id="functional-3d"),
    pytest.param(lambda: Net(lambda x: x.amax((2, 3))), id="method"),
    pytest.param(lambda: Net(lambda x: x.amax(dim=-1, keepdim=True), 48), id="method-keepdim"),
    pytest.param(lambda: Net(lambda x: torch.amax(x, (-1, -2))), id="function"),
    pytest.param(lambda: Net(lambda x: torch.amax(x, axis=(2, 3), keepdims=True)), id="numpy-names"),
    pytest.param(lambda: Net(lambda x: F.adaptive_max_pool2d(x, 1, return_indices=True)[0]), id="unread-indices"),
    pytest.param(lambda: Net(lambda x: torch.adaptive_max_pool1d(x.flatten(2), 1)[0]), id="torch-1d"),
    pytest.param(lambda: Net(lambda x: torch.max(x.flatten(2), 2, keepdim=True)[0]), id="max"),
    pytest.param(lambda: Net(lambda x: x.amax(1), 64), id="channels"),
    pytest.param(lambda: Net(lambda x: x.amax((1, 3)), 8), id="channels-and-columns"),
    pytest.param(lambda: Net(lambda x: x.permute(0, 2, 3, 1).amax((1, 2))), id="channels-last"),
    pytest.param(lambda: Net(lambda x: x[:, :, :6, 0].amax(1)), id="as-many-rows-as-channels"),
]


@pytest.mark.parametrize("channel_wise", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
def test_networks_follow_their_ann(network: Callable[[], nn.Module], channel_wise: bool) -> None:
    ann, x = network().eval(), torch.rand(12, 2, 8, 8)
    converter = Converter([x], mode="max", channel_wise=channel_wise, progress=False)
    snn = converter(ann)
    (pool,) = [entry for entry in converter.report if entry.becomes == "cumulative max"]
    assert pool.owner.startswith(OWN)
    assert pool.exact
    wanted = ann(x).detach()
    errors = [(simulate(snn, x, T=steps) - wanted).abs().max().item() for steps in (20, 400)]
    # A soft-reset neuron's mean is off by at most one spike, that is by 1 / T.
    assert errors[1] < 0.02
    assert errors[1] < errors[0] / 5


def test_the_mean_is_exact_where_rates_are() -> None:
    # After eight steps every rate of eighths is met exactly, and so is their maximum.
    ann = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(), nn.AdaptiveMaxPool2d(2))
    nn.init.ones_(ann[0].weight)
    x = torch.tensor([0.0, 3 / 8, 4 / 8])[torch.randint(0, 3, (6, 1, 5, 5))]
    calibration = torch.ones(1, 1, 5, 5)
    snn = Converter([calibration], mode="max", progress=False)(ann)
    torch.testing.assert_close(simulate(snn, x, T=8), ann(x), rtol=0, atol=1e-6)
    # Pooling the spikes of each step says too much: rates of 3/8 and 4/8 do not spike at the same steps.
    spiking = Converter([calibration], mode="max", progress=False)(ann[:2])
    with torch.no_grad():
        pooled = sum(F.adaptive_max_pool2d(spiking(x), 2) for _ in range(8)) / 8
    assert bool((pooled - ann(x) > 0.1).any())


def test_layer_wise_run_equals_the_hand_written_loop() -> None:
    ann, x = Net(nn.AdaptiveMaxPool2d((3, 2)), 36).eval(), torch.rand(5, 2, 8, 8)
    snn = Converter([x], progress=False)(ann)
    steps = 25
    functional.reset_net(snn)
    with torch.no_grad():
        loop = sum(snn(x) for _ in range(steps)) / steps
    functional.reset_net(snn)
    functional.set_step_mode(snn, "m")
    with torch.no_grad():
        multi = snn(x.expand(steps, *x.shape)).mean(0)
    functional.reset_net(snn)
    functional.set_step_mode(snn, "s")
    torch.testing.assert_close(simulate(snn, x, T=steps), loop)
    torch.testing.assert_close(multi, loop)
    torch.testing.assert_close(simulate(copy.deepcopy(snn), x, T=steps), loop)


def test_evaluate_runs_on_it() -> None:
    ann, x = Net(nn.AdaptiveMaxPool2d(1)).eval(), torch.rand(40, 2, 8, 8)
    snn = Converter([x], progress=False)(ann)
    result = evaluate(snn, [(x, ann(x).argmax(1))], T=300, progress=False)
    assert result.accuracy[-1] >= 0.95


def test_in_front_of_every_neuron_the_pool_itself_stays() -> None:
    ann = nn.Sequential(nn.AdaptiveMaxPool2d(2), nn.Conv2d(2, 3, 1), nn.ReLU())
    x = torch.rand(4, 2, 7, 7)
    converter = Converter([x], progress=False)
    snn = converter(ann)
    assert converter.report["0"].becomes == "itself"
    assert not any(isinstance(module, CumulativeMax) for module in snn.modules())


def test_a_users_subclass_is_converted() -> None:
    class GlobalMaxPool(nn.AdaptiveMaxPool2d):
        def __init__(self) -> None:
            super().__init__(1)

    converter = Converter([torch.rand(4, 2, 8, 8)], progress=False)
    converter(Net(GlobalMaxPool()))
    assert converter.report["pool"].becomes == "cumulative max"


@pytest.mark.parametrize(
    ("pool", "reason"),
    [
        pytest.param(lambda x: sum(F.adaptive_max_pool2d(x, 1, return_indices=True)), "indices", id="indices"),
        pytest.param(lambda x: sum(torch.adaptive_max_pool1d(x.flatten(2), 1)), "indices", id="torch-1d"),
        pytest.param(lambda x: x - x.amax(), "over all samples of the batch", id="everything"),
    ],
)
def test_what_cannot_be_exact_is_refused(pool: Callable[[Tensor], Tensor], reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        Converter([torch.rand(4, 2, 8, 8)], progress=False)(Net(pool, 6 * 64 if reason.startswith("over all") else 6))


def test_module_with_indices_is_refused_by_name() -> None:
    class WithIndices(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.AdaptiveMaxPool2d(1, return_indices=True)

        def forward(self, x: Tensor) -> Tensor:
            values, indices = self.inner(x)
            return values + indices

    with pytest.raises(UnsupportedError, match=r"pool\.inner \(AdaptiveMaxPool2d\).*indices.*without return_indices"):
        Converter([torch.rand(4, 2, 8, 8)], progress=False)(Net(WithIndices()))


def test_without_the_plugin_the_core_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SJ_ANN2SNN_DISABLE_PLUGINS", OWN)
    with pytest.raises(UnsupportedError, match=r"pool \(AdaptiveMaxPool2d\)"):
        Converter([torch.rand(4, 2, 8, 8)], progress=False)(Net(nn.AdaptiveMaxPool2d(1)))


def test_a_mapper_may_be_named_for_one_site() -> None:
    x = torch.rand(4, 2, 8, 8)
    converter = Converter([x], mappers={"pool": "adaptive-max-pool"}, progress=False)
    converter(Net(nn.AdaptiveMaxPool2d(1)))
    assert converter.report["pool"].mapper == AdaptiveMaxPoolMapper.name
    with pytest.raises(OptionError, match="adaptive-max-pool"):
        Converter([x], mappers={"pool": "adaptive-maxpool"})
