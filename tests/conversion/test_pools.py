"""`maxpool=`: pools of spikes, pools in front of the neuron, or average pools in place of max pools."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import neuron
from torch import Tensor, nn

from sj_ann2snn import Converter, CumulativeMaxPool, MomentumMaxPool, OptionError, UnsupportedError, simulate

from ..helpers.networks import Written, convert, multi_step, relative_error, run_by_hand, spikes_of

SIZES = {1: (13,), 2: (9, 8), 3: (6, 5, 7)}


def spikes(spatial: int, steps: int = 12, dtype: torch.dtype = torch.float64) -> Tensor:
    """Spike trains of different rates, ``[T, N, C, ...]``."""
    rates = torch.rand(2, 3, *SIZES[spatial])
    return (torch.rand(steps, *rates.shape) < rates).to(dtype)


def pooled_net(pool: nn.Module | None = None) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.ReLU(),
        pool or nn.MaxPool2d(3, stride=2, padding=1),
        nn.Conv2d(4, 4, 2),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(3),
    )


def ready(ann: nn.Module, *shape: int) -> tuple[nn.Module, Tensor]:
    data = torch.randn(16, *shape)
    ann(data)
    return ann.double().eval(), data.double()


LAZY = pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")


@LAZY
@pytest.mark.parametrize(
    ("maxpool", "kind", "label", "exact"),
    [
        ("cumulative", CumulativeMaxPool, "cumulative max pool", True),
        ("momentum", MomentumMaxPool, "momentum max pool", False),
        ("pre-spike", nn.MaxPool2d, "itself", False),
        ("avg", nn.AvgPool2d, "AvgPool2d", False),
    ],
)
def test_the_four_ways_end_to_end(maxpool: str, kind: type[nn.Module], label: str, exact: bool) -> None:
    ann, data = ready(pooled_net(), 2, 9, 9)
    converter = Converter([data], maxpool=maxpool, progress=False)
    snn = converter(ann)
    assert sum(isinstance(module, kind) for module in snn.modules()) == 1
    entry = converter.report["2"]
    assert (entry.operation, entry.becomes, entry.exact) == ("MaxPool2d", label, exact)
    by_hand = run_by_hand(snn, data, 400)
    assert relative_error(multi_step(snn, data, 400), by_hand) < 1e-12
    # Another order of summation: a neuron that sits right at its threshold may fire a step later.
    assert relative_error(simulate(snn, data, T=400), by_hand.mean(0)) < 0.01
    wanted = ann
    if maxpool == "avg":
        wanted = nn.Sequential(*ann)
        wanted[2] = nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)
    error = relative_error(by_hand.mean(0), wanted(data).detach())
    assert error < (0.03 if exact or maxpool == "avg" else 0.5)


@LAZY
def test_cumulative_is_the_default() -> None:
    ann, data = ready(pooled_net(), 2, 9, 9)
    assert any(isinstance(module, CumulativeMaxPool) for module in convert(ann, data).modules())


@LAZY
def test_the_momentum_is_the_users_to_set() -> None:
    ann, data = ready(pooled_net(), 2, 9, 9)
    for momentum in (0.25, 0.99):
        snn = convert(ann, data, maxpool="momentum", maxpool_momentum=momentum)
        (gate,) = (module for module in snn.modules() if isinstance(module, MomentumMaxPool))
        assert gate.momentum == momentum


@LAZY
def test_what_is_not_known_lists_what_is() -> None:
    with pytest.raises(OptionError, match="maxpool='max' is not known") as caught:
        Converter(maxpool="max")
    for name in ("cumulative", "momentum", "pre-spike", "avg"):
        assert repr(name) in str(caught.value)


@LAZY
@pytest.mark.parametrize("maxpool", ["cumulative", "momentum"])
@pytest.mark.parametrize(
    ("pool", "shape"),
    [
        (nn.MaxPool2d(2), (2, 9, 9)),
        (nn.MaxPool2d(3, 1, dilation=2), (2, 9, 9)),
        (nn.MaxPool2d(3, 2, 1, ceil_mode=True), (2, 10, 10)),
        (nn.MaxPool2d((2, 3), (1, 2), (1, 0)), (2, 9, 9)),
    ],
)
def test_the_modules_geometry_arrives(pool: nn.MaxPool2d, shape: tuple[int, ...], maxpool: str) -> None:
    ann, data = ready(pooled_net(pool), *shape)
    snn = convert(ann, data, maxpool=maxpool)
    kind = CumulativeMaxPool if maxpool == "cumulative" else MomentumMaxPool
    (made,) = (module for module in snn.modules() if isinstance(module, kind))
    for name in ("kernel_size", "stride", "padding", "dilation", "ceil_mode"):
        assert getattr(made, name) == getattr(pool, name)
    if maxpool == "cumulative":
        assert relative_error(simulate(snn, data, T=500), ann(data).detach()) < 0.03


FUNCTIONAL = {
    "F.max_pool2d": lambda h: F.max_pool2d(h, 2),
    "F.max_pool2d, keywords": lambda h: F.max_pool2d(h, kernel_size=3, stride=1, padding=1, dilation=1, ceil_mode=True),
    "F.max_pool2d, positions": lambda h: F.max_pool2d(h, 3, 2, 1, 1, True),
    "torch.max_pool2d": lambda h: torch.max_pool2d(h, [2, 2]),
    "torch.max_pool2d, stride": lambda h: torch.max_pool2d(h, (3, 2), (2, 1), (1, 0)),
    "F.max_pool1d": lambda h: F.max_pool1d(h.flatten(2), 3, 2),
    "F.max_pool3d": lambda h: F.max_pool3d(h.unsqueeze(2), (1, 2, 2)).squeeze(2),
}


@pytest.mark.parametrize("maxpool", ["cumulative", "momentum", "avg"])
@pytest.mark.parametrize("name", FUNCTIONAL)
def test_functional_pools(name: str, maxpool: str) -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        return net.head(FUNCTIONAL[name](torch.relu(net.conv(x))).flatten(2).mean(2))

    ann = Written(forward, conv=nn.Conv2d(2, 4, 3), head=nn.Linear(4, 3)).double()
    data = torch.randn(12, 2, 8, 8, dtype=torch.float64)
    converter = Converter([data], maxpool=maxpool, progress=False)
    snn = converter(ann)
    if maxpool == "cumulative":
        with torch.no_grad():
            assert relative_error(converter.normalize(ann)(data), ann(data)) < 1e-12
        assert relative_error(simulate(snn, data, T=600), ann(data).detach()) < 0.03
    assert relative_error(multi_step(snn, data, 30), run_by_hand(snn, data, 30)) < 1e-12


def test_pre_spike_moves_the_neuron_behind_the_pool() -> None:
    ann = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 2), nn.ReLU(), nn.Conv2d(4, 2, 1)
    )
    data = torch.randn(12, 2, 8, 8)
    snn = convert(ann, data, maxpool="pre-spike")
    order = [str(node.target) for node in snn.graph.nodes if node.op == "call_module"]
    assert order.index("2") < order.index("1")
    spikes = spikes_of(snn, data, 3)
    assert spikes["1"].shape == (3, 12, 4, 3, 3)
    behind = convert(ann, data, maxpool="cumulative")
    assert spikes_of(behind, data, 3)["1"].shape == (3, 12, 4, 6, 6)
    # The first layer's currents do not vary, so pooling them is the ANN's own order reversed.
    assert relative_error(run_by_hand(snn, data, 400).mean(0), ann(data).detach()) < 0.05


def test_pre_spike_leaves_a_neuron_with_other_readers_where_it_is() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        h = torch.relu(net.conv(x))
        return net.head(F.max_pool2d(h, 2).mean((2, 3)) + h.mean((2, 3)))

    ann = Written(forward, conv=nn.Conv2d(2, 4, 3), head=nn.Linear(4, 3)).double()
    data = torch.randn(12, 2, 8, 8, dtype=torch.float64)
    snn = convert(ann, data, maxpool="pre-spike")
    assert any(isinstance(module, CumulativeMaxPool) for module in snn.modules())
    assert relative_error(simulate(snn, data, T=600), ann(data).detach()) < 0.03


@pytest.mark.parametrize("maxpool", ["cumulative", "momentum"])
def test_behind_average_pooling(maxpool: str) -> None:
    ann = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.MaxPool2d(2, 1), nn.Flatten(), nn.Linear(16, 3)
    ).double()
    data = torch.randn(12, 2, 8, 8, dtype=torch.float64)
    snn = convert(ann, data, maxpool=maxpool)
    error = relative_error(simulate(snn, data, T=800), ann(data).detach())
    assert error < (0.02 if maxpool == "cumulative" else 0.4)
    assert relative_error(multi_step(snn, data, 30), run_by_hand(snn, data, 30)) < 1e-12


def test_between_convolution_and_activation() -> None:
    # Currents may be negative; their cumulative maximum is exact all the same.
    ann = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
    ).double()
    data = torch.randn(12, 2, 8, 8, dtype=torch.float64)
    snn = convert(ann, data)
    assert relative_error(simulate(snn, data, T=1000), ann(data).detach()) < 0.03


@pytest.mark.parametrize(
    "maxpool",
    ["cumulative", "momentum", "pre-spike"],
)
def test_pooling_of_the_analog_input_stays_exact(maxpool: str) -> None:
    ann = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(2, 4, 3), nn.MaxPool2d(2, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)).double()
    data = torch.randn(12, 2, 10, 10, dtype=torch.float64)
    converter = Converter([data], maxpool=maxpool, progress=False)
    snn = converter(ann)
    assert not any(isinstance(module, (CumulativeMaxPool, MomentumMaxPool)) for module in snn.modules())
    assert converter.report["0"].exact
    assert converter.report["2"].exact
    assert relative_error(run_by_hand(snn, data, 500).mean(0), ann(data).detach()) < 0.02
    assert relative_error(multi_step(snn, data, 20), run_by_hand(snn, data, 20)) < 1e-12


def test_channel_wise_scales_pass_through() -> None:
    ann = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)).double()
    nn.init.uniform_(ann[0].weight, 0.0, 2.0)
    data = torch.randn(12, 2, 8, 8, dtype=torch.float64)
    for maxpool in ("cumulative", "pre-spike"):
        converter = Converter([data], maxpool=maxpool, channel_wise=True, progress=False)
        snn = converter(ann)
        assert converter.report.scalers == ()
        assert relative_error(simulate(snn, data, T=600), ann(data).detach()) < 0.05


class Unpooled(nn.Module):
    """Reads the indices of a pool's maxima."""

    def __init__(self, pool: Any) -> None:
        super().__init__()
        self.conv, self.pool, self.unpool, self.head = nn.Conv2d(2, 4, 3), pool, nn.MaxUnpool2d(2), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        pooled, indices = self.pool(torch.relu(self.conv(x)))
        return self.head(self.unpool(pooled, indices).mean((2, 3)))


def test_indices_are_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"pool \(MaxPool2d\).*indices of the maxima") as caught:
        convert(Unpooled(nn.MaxPool2d(2, return_indices=True)), torch.randn(12, 2, 8, 8))
    assert "without return_indices" in str(caught.value)
    assert "unpool (MaxUnpool2d)" in str(caught.value)


def test_indices_of_the_functional_pool_are_refused() -> None:
    def pool(h: Tensor) -> Any:
        return F.max_pool2d(h, 2, return_indices=True)

    ann = Unpooled(None)
    ann.pool = pool
    with pytest.raises(UnsupportedError, match="max_pool2d_with_indices"):
        convert(ann, torch.randn(12, 2, 8, 8))


UNREAD = {
    "module": lambda pool, h: pool(h)[0],
    "unpacked": lambda pool, h: (lambda values, _: values)(*pool(h)),
    "function": lambda pool, h: F.max_pool2d(h, 2, return_indices=True)[0],
    "all arguments": lambda pool, h: F.max_pool2d(h, 2, 2, 0, 1, False, True)[0],
    "with_indices": lambda pool, h: F.max_pool2d_with_indices(h, kernel_size=2)[0],
}


@pytest.mark.parametrize("name", UNREAD)
def test_indices_that_nobody_reads_do_not_matter(name: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool, self.head = nn.Conv2d(2, 4, 3), nn.MaxPool2d(2, return_indices=True), nn.Linear(36, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(UNREAD[name](self.pool, torch.relu(self.conv(x))).flatten(1))

    ann, data = Net().double(), torch.randn(12, 2, 8, 8, dtype=torch.float64)
    assert relative_error(simulate(convert(ann, data), data, T=400), ann(data).detach()) < 0.05
    assert ann.pool.return_indices


def test_average_cannot_stand_for_dilation() -> None:
    ann = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2, dilation=2), nn.Conv2d(4, 2, 1))
    with pytest.raises(UnsupportedError, match=r"2 \(MaxPool2d\).*dilation 2") as caught:
        convert(ann, torch.randn(12, 2, 8, 8), maxpool="avg")
    assert "cumulative" in str(caught.value)


def test_spikes_stay_binary_through_a_chain_of_pools() -> None:
    ann = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.MaxPool2d(3, 1), nn.Conv2d(4, 2, 1))
    data = torch.randn(6, 2, 12, 12)
    snn = convert(ann, data)
    pools = [module for module in snn.modules() if isinstance(module, CumulativeMaxPool)]
    assert len(pools) == 2
    seen: set[float] = set()
    handles = [p.register_forward_hook(lambda m, i, o: seen.update(o.unique().tolist())) for p in pools]
    run_by_hand(snn, data, 20)
    for handle in handles:
        handle.remove()
    assert seen == {0.0, 1.0}


def test_a_neuron_behind_average_pooling() -> None:
    ann = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 3)).double()
    data = torch.randn(12, 2, 8, 8, dtype=torch.float64)
    plain, fired = convert(ann, data), convert(ann, data, avgpool_neuron=True)
    assert sum(isinstance(module, neuron.IFNode) for module in plain.modules()) == 1
    assert sum(isinstance(module, neuron.IFNode) for module in fired.modules()) == 2
    assert set(torch.cat([one.flatten() for one in spikes_of(fired, data, 30).values()]).unique().tolist()) == {
        0.0,
        1.0,
    }
    for snn in (plain, fired):
        assert relative_error(simulate(snn, data, T=800), ann(data).detach()) < 0.02
        assert relative_error(multi_step(snn, data, 30), run_by_hand(snn, data, 30)) < 1e-12
