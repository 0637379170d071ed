"""The identity the method rests on: with scales folded in and ReLUs kept, a network computes what its ANN computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import Converter, Scaler
from sj_ann2snn.layers import NormalizedReLU

from ..helpers.networks import Written, convert, largest_activations, relative_error, run_by_hand, scalers

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}


def chains() -> dict[str, tuple[Callable[[], nn.Sequential], tuple[int, ...]]]:
    """Plain chains that end in a weighted layer, with the shape of one sample."""
    return {
        "linear": (
            lambda: nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 7, bias=False), nn.ReLU(), nn.Linear(7, 4)),
            (6,),
        ),
        "linear over tokens": (
            lambda: nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 7), nn.ReLU(), nn.Linear(7, 4)),
            (5, 6),
        ),
        "conv1d": (
            lambda: nn.Sequential(
                nn.Conv1d(2, 6, 3, padding=1), nn.ReLU(), nn.Conv1d(6, 8, 3, stride=2), nn.ReLU(), nn.Conv1d(8, 3, 2)
            ),
            (2, 11),
        ),
        "conv2d": (
            lambda: nn.Sequential(
                nn.Conv2d(3, 6, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(6, 8, (3, 2), stride=(2, 1), dilation=(1, 2)),
                nn.ReLU(),
                nn.Conv2d(8, 3, 2, padding=1, padding_mode="reflect"),
            ),
            (3, 8, 8),
        ),
        "conv3d": (
            lambda: nn.Sequential(
                nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 6, 2), nn.ReLU(), nn.Conv3d(6, 2, 2)
            ),
            (1, 5, 5, 5),
        ),
        "conv transpose 1d": (
            lambda: nn.Sequential(
                nn.ConvTranspose1d(2, 5, 3, stride=2),
                nn.ReLU(),
                nn.ConvTranspose1d(5, 3, 2),
                nn.ReLU(),
                nn.Conv1d(3, 2, 1),
            ),
            (2, 5),
        ),
        "conv transpose 2d": (
            lambda: nn.Sequential(
                nn.ConvTranspose2d(2, 5, 3, stride=2, output_padding=1),
                nn.ReLU(),
                nn.ConvTranspose2d(5, 3, 2, padding=1),
                nn.ReLU(),
                nn.ConvTranspose2d(3, 2, 1),
            ),
            (2, 4, 4),
        ),
        "conv transpose 3d": (
            lambda: nn.Sequential(
                nn.ConvTranspose3d(2, 3, 2, stride=2),
                nn.ReLU(),
                nn.ConvTranspose3d(3, 2, 2),
                nn.ReLU(),
                nn.Conv3d(2, 2, 1),
            ),
            (2, 2, 3, 3),
        ),
        "grouped": (
            lambda: nn.Sequential(
                nn.Conv2d(4, 8, 3, groups=2),
                nn.ReLU(),
                nn.Conv2d(8, 12, 3, groups=4, padding=1),
                nn.ReLU(),
                nn.ConvTranspose2d(12, 6, 3, groups=3, stride=2),
                nn.ReLU(),
                nn.Conv2d(6, 4, 3, groups=2),
            ),
            (4, 7, 7),
        ),
        "depthwise": (
            lambda: nn.Sequential(
                nn.Conv2d(3, 6, 3, groups=3),
                nn.ReLU(),
                nn.Conv2d(6, 6, 3, groups=6, padding=1),
                nn.ReLU(),
                nn.Conv2d(6, 4, 1),
                nn.ReLU(),
                nn.ConvTranspose2d(4, 4, 2, groups=4),
            ),
            (3, 7, 7),
        ),
    }


def data_for(shape: tuple[int, ...], dtype: torch.dtype, count: int = 24) -> list[Tensor]:
    return list((torch.randn(count, *shape, dtype=dtype) * 3).split(7))


def normalized(ann: nn.Module, batches: list[Tensor], **arguments: Any) -> Any:
    return Converter(batches, progress=False, **arguments).normalize(ann)


@pytest.mark.parametrize("channel_wise", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", chains())
def test_a_chain_computes_what_the_ann_computes(name: str, dtype: torch.dtype, channel_wise: bool) -> None:
    make, shape = chains()[name]
    ann = make().to(dtype)
    batches = data_for(shape, dtype)
    network = normalized(ann, batches, channel_wise=channel_wise)
    unseen = torch.randn(5, *shape, dtype=dtype)
    with torch.no_grad():
        for batch in (*batches, unseen):
            assert relative_error(network(batch), ann(batch)) < TOLERANCE[dtype]
    largest = largest_activations(network, NormalizedReLU, batches)
    assert len(largest) == sum(isinstance(module, nn.ReLU) for module in ann)
    for value in largest.values():
        assert value.item() == pytest.approx(1.0, rel=1e-5)
    if name != "linear over tokens" or not channel_wise:
        # Over tokens, channels are the tokens, which the weights of Linear do not tell apart.
        assert scalers(network) == []


@pytest.mark.parametrize("channel_wise", [False, True])
@pytest.mark.parametrize("name", chains())
def test_behind_a_last_activation_one_scaler_keeps_the_units(name: str, channel_wise: bool) -> None:
    make, shape = chains()[name]
    ann = nn.Sequential(*make(), nn.ReLU()).double()
    batches = data_for(shape, torch.float64)
    network = normalized(ann, batches, channel_wise=channel_wise)
    with torch.no_grad():
        assert relative_error(network(batches[0]), ann(batches[0])) < 1e-12
    assert max(largest_activations(network, NormalizedReLU, batches).values()).item() == pytest.approx(1.0, rel=1e-12)
    if name != "linear over tokens" or not channel_wise:
        (scaler,) = scalers(network)
        last = next(node for node in network.graph.nodes if node.op == "output").args[0]
        assert last.target == scaler


def test_weights_are_those_of_the_formula() -> None:
    ann = chains()["linear"][0]().double()
    batches = data_for((6,), torch.float64)
    converter = Converter(batches, progress=False)
    network = converter.normalize(ann)
    first, second = (converter.report[name].scale[0] for name in ("1", "3"))
    factors = {"0": (1.0, first), "2": (first, second), "4": (second, 1.0)}
    for name, (before, after) in factors.items():
        layer, old = network.get_submodule(name), ann.get_submodule(name)
        assert torch.allclose(layer.weight, old.weight * before / after, rtol=1e-14, atol=0)
        if old.bias is None:
            assert layer.bias is None
        else:
            assert torch.allclose(layer.bias, old.bias / after, rtol=1e-14, atol=0)


def test_channel_wise_weights_are_those_of_the_formula() -> None:
    ann = nn.Sequential(nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Conv2d(3, 4, 2), nn.ReLU(), nn.Conv2d(4, 2, 2)).double()
    data = torch.randn(30, 2, 6, 6, dtype=torch.float64)
    network = normalized(ann, [data], channel_wise=True)
    with torch.no_grad():
        first = ann[:2](data).amax((0, 2, 3))
        second = ann[:4](data).amax((0, 2, 3))
    one = torch.ones((), dtype=torch.float64)
    for name, before, after in (("0", one.expand(2), first), ("2", first, second), ("4", second, one.expand(2))):
        old = ann.get_submodule(name)
        wanted = old.weight * before.reshape(1, -1, 1, 1) / after.reshape(-1, 1, 1, 1)
        assert torch.allclose(network.get_submodule(name).weight, wanted, rtol=1e-12, atol=0)
        assert torch.allclose(network.get_submodule(name).bias, old.bias / after, rtol=1e-12, atol=0)


def test_a_percentile_keeps_the_function_and_lets_activations_pass_one() -> None:
    ann = chains()["conv2d"][0]().double()
    batches = data_for((3, 8, 8), torch.float64)
    network = normalized(ann, batches, mode="90%")
    with torch.no_grad():
        assert relative_error(network(batches[0]), ann(batches[0])) < 1e-12
    assert all(value > 1.1 for value in largest_activations(network, NormalizedReLU, batches).values())


def block() -> dict[str, nn.Module]:
    return {
        "stem": nn.Conv2d(3, 4, 3, padding=1),
        "one": nn.Conv2d(4, 4, 3, padding=1),
        "two": nn.Conv2d(4, 4, 3, padding=1),
        "short": nn.Conv2d(4, 4, 1),
        "wide": nn.Conv2d(8, 4, 3, padding=1),
        "narrow": nn.Conv2d(2, 4, 1),
        "head": nn.Linear(4, 2),
        "flat": nn.Linear(4 * 6 * 6, 3),
        "pooled": nn.Linear(4 * 2 * 2, 3),
        "act": nn.ReLU(),
    }


def stem(net: Any, x: Tensor) -> Tensor:
    return net.act(net.stem(x))


def residual(net: Any, x: Tensor) -> Tensor:
    h = stem(net, x)
    h = torch.relu(net.two(torch.relu(net.one(h))) + h)
    return net.head(h.mean((2, 3)))


def projected(net: Any, x: Tensor) -> Tensor:
    h = stem(net, x)
    h = torch.relu(net.two(torch.relu(net.one(h))) + net.short(h))
    return net.head(h.mean((2, 3)))


def concatenated(net: Any, x: Tensor) -> Tensor:
    h = stem(net, x)
    h = torch.cat([h, torch.relu(net.one(h))], 1)
    return net.head(torch.relu(net.wide(h)).mean((2, 3)))


def flattened(net: Any, x: Tensor) -> Tensor:
    return net.flat(torch.flatten(stem(net, x), 1))


def average_pooled(net: Any, x: Tensor) -> Tensor:
    h = nn.functional.avg_pool2d(stem(net, x), 3)
    return net.pooled(h.view(h.size(0), -1))


def chunked(net: Any, x: Tensor) -> Tensor:
    left, right = torch.relu(net.one(stem(net, x))).chunk(2, 1)
    return net.head((torch.relu(net.narrow(left)) + torch.relu(net.narrow(right))).mean((2, 3)))


def swapped(net: Any, x: Tensor) -> Tensor:
    left, right = torch.split(stem(net, x), [1, 3], dim=1)
    return net.head(torch.relu(net.one(torch.cat([right, left], 1))).mean((2, 3)))


def sliced(net: Any, x: Tensor) -> Tensor:
    return net.head(torch.relu(net.narrow(stem(net, x)[:, 1:3])).mean((2, 3)))


def shuffled(net: Any, x: Tensor) -> Tensor:
    h = stem(net, x)
    h = h.view(h.size(0), 2, 2, 6, 6).transpose(1, 2).flatten(1, 2)
    return net.head(torch.relu(net.one(h)).mean((2, 3)))


def scaled(net: Any, x: Tensor) -> Tensor:
    h = stem(net, x) * 0.5
    return net.head((h / 3.0 - torch.relu(net.one(h))).mean((2, 3)))


def shifted(net: Any, x: Tensor) -> Tensor:
    h = stem(net, x) + 1.0
    return net.head(torch.relu(net.one(2.0 - h)).mean((2, 3)))


def gated(net: Any, x: Tensor) -> Tensor:
    current = net.stem(x)
    return net.head(torch.relu(net.one(torch.relu(current) * torch.sigmoid(current))).mean((2, 3)))


def upsampled(net: Any, x: Tensor) -> Tensor:
    h = nn.functional.interpolate(stem(net, x), scale_factor=2, mode="bilinear")
    return net.head(torch.relu(net.one(h)).mean((2, 3)))


def padded(net: Any, x: Tensor) -> Tensor:
    h = nn.functional.pad(stem(net, x), (1, 1, 2, 0))
    h = nn.functional.pad(h, (1, 0, 0, 1), value=0.7)
    return net.head(torch.relu(net.one(h)).mean((2, 3)))


def broadcast(net: Any, x: Tensor) -> Tensor:
    h = stem(net, x)
    return net.head(torch.relu(net.one(h)[:, :1] + net.two(h)).mean((2, 3)))


def recalibrated(net: Any, x: Tensor) -> Tensor:
    h = stem(net, x)
    return net.head(torch.relu(net.one(h) + h.mean((2, 3), keepdim=True)).mean((2, 3)))


def through_tokens(net: Any, x: Tensor) -> Tensor:
    tokens = stem(net, x).flatten(2).transpose(1, 2)
    return net.head(tokens).mean(1)


GRAPHS = (
    residual,
    projected,
    concatenated,
    flattened,
    average_pooled,
    chunked,
    swapped,
    sliced,
    shuffled,
    scaled,
    shifted,
    gated,
    upsampled,
    padded,
    through_tokens,
    broadcast,
    recalibrated,
)


@pytest.mark.parametrize("mode", ["max", "95%"])
@pytest.mark.parametrize("channel_wise", [False, True])
@pytest.mark.parametrize("forward", GRAPHS, ids=lambda forward: forward.__name__)
def test_a_graph_computes_what_the_ann_computes(forward: Any, channel_wise: bool, mode: str) -> None:
    ann = Written(forward, **block()).double()
    batches = data_for((3, 6, 6), torch.float64, count=12)
    network = normalized(ann, batches, channel_wise=channel_wise, mode=mode)
    unseen = torch.randn(3, 3, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        for batch in (*batches, unseen):
            assert relative_error(network(batch), ann(batch)) < 1e-12
    if mode == "max":
        largest = largest_activations(network, NormalizedReLU, batches)
        assert largest
        assert max(largest.values()).item() <= 1 + 1e-12


@pytest.mark.parametrize(
    ("forward", "channel_wise", "names"),
    [
        (residual, False, ["act_scaler"]),  # the identity branch: no weights between two scales
        (residual, True, ["act_scaler"]),
        (projected, False, []),
        (projected, True, []),
        (concatenated, False, []),
        (concatenated, True, []),
        (flattened, False, []),
        (flattened, True, []),
        (average_pooled, False, []),
        (average_pooled, True, []),
        (swapped, True, []),
        (sliced, True, []),
        (shuffled, False, []),
        (upsampled, True, []),
        (through_tokens, True, []),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_scalers_stand_only_where_no_weights_are(forward: Any, channel_wise: bool, names: list[str]) -> None:
    converter = Converter(data_for((3, 6, 6), torch.float32), channel_wise=channel_wise, progress=False)
    network = converter(Written(forward, **block()))
    assert scalers(network) == names == list(converter.report.scalers)


def test_the_scaler_of_a_residual_block_stands_on_the_identity_branch() -> None:
    ann = Written(residual, **block()).double()
    batches = data_for((3, 6, 6), torch.float64)
    converter = Converter(batches, progress=False)
    network = converter.normalize(ann)
    (name,) = scalers(network)
    (node,) = (node for node in network.graph.nodes if node.target == name)
    (reader,) = node.users
    assert "add" in str(reader.target)
    assert node.args[0].target == "act"
    scales = converter.report.scales
    scale = network.get_submodule(name).scale.item()
    identity, *_, outgoing = (low for low, _ in scales.values())
    assert scale == pytest.approx(identity / outgoing, rel=1e-12)


def test_concatenated_branches_keep_their_scales_in_the_next_convolution() -> None:
    ann = Written(concatenated, **block()).double()
    batches = data_for((3, 6, 6), torch.float64)
    converter = Converter(batches, progress=False)
    network = converter.normalize(ann)
    one, two, three = (low for low, _ in converter.report.scales.values())
    assert one != two
    before = torch.tensor([one] * 4 + [two] * 4, dtype=torch.float64).reshape(1, 8, 1, 1)
    assert torch.allclose(network.wide.weight, ann.wide.weight * before / three, rtol=1e-12, atol=0)


def test_channel_wise_scales_pass_a_flatten_into_the_linear_layer() -> None:
    ann = Written(flattened, **block()).double()
    data = torch.randn(20, 3, 6, 6, dtype=torch.float64)
    network = normalized(ann, [data], channel_wise=True)
    with torch.no_grad():
        scale = torch.relu(ann.stem(data)).amax((0, 2, 3))
    wanted = ann.flat.weight * scale.repeat_interleave(36)
    assert torch.allclose(network.flat.weight, wanted, rtol=1e-12, atol=0)


def test_several_outputs_are_in_the_anns_units() -> None:
    def forward(net: Any, x: Tensor) -> dict[str, Any]:
        h = stem(net, x)
        return {"features": h, "pair": (net.one(h), -h), "input": x}

    ann = Written(forward, **block()).double()
    data = torch.randn(9, 3, 6, 6, dtype=torch.float64)
    for channel_wise in (False, True):
        with torch.no_grad():
            got, wanted = normalized(ann, [data], channel_wise=channel_wise)(data), ann(data)
        assert relative_error(got["features"], wanted["features"]) < 1e-12
        assert relative_error(got["pair"][0], wanted["pair"][0]) < 1e-12
        assert relative_error(got["pair"][1], wanted["pair"][1]) < 1e-12
        assert torch.equal(got["input"], data)


@pytest.mark.parametrize(
    "activation",
    [
        nn.ReLU6(),
        nn.Hardtanh(0.0, 0.8),
        nn.LeakyReLU(0.25),
        nn.LeakyReLU(0.2),
        nn.PReLU(4),
        nn.PReLU(),
        nn.RReLU(0.25, 0.75),
    ],
)
@pytest.mark.parametrize("channel_wise", [False, True])
def test_other_activations(activation: nn.Module, channel_wise: bool) -> None:
    ann = nn.Sequential(nn.Conv2d(3, 4, 3), activation, nn.Conv2d(4, 2, 3)).double().eval()
    data = torch.randn(8, 3, 6, 6, dtype=torch.float64) * 4
    network = normalized(ann, [data], channel_wise=channel_wise)
    with torch.no_grad():
        assert relative_error(network(data), ann(data)) < 1e-12
    snn = convert(ann, data, channel_wise=channel_wise)
    assert relative_error(run_by_hand(snn, data, 400).mean(0), ann(data).detach()) < 0.03


def test_the_intermediate_network_has_no_memory_and_the_spiking_one_the_same_weights() -> None:
    ann = Written(residual, **block())
    batches = data_for((3, 6, 6), torch.float32)
    network, snn = normalized(ann, batches), convert(ann, batches)
    for name in ("stem", "one", "two", "head"):
        # Behind spikes they are rounded, so that the order of summation does not matter.
        torch.testing.assert_close(
            network.get_submodule(name).weight, snn.get_submodule(name).weight, rtol=0, atol=1e-6
        )
        torch.testing.assert_close(network.get_submodule(name).bias, snn.get_submodule(name).bias, rtol=0, atol=1e-6)
    with torch.no_grad():
        assert torch.equal(network(batches[0]), network(batches[0]))
    assert [module.scale for module in network.modules() if isinstance(module, Scaler)] == [
        module.scale for module in snn.modules() if isinstance(module, Scaler)
    ]


def test_rates_of_the_spiking_network_are_the_normalized_activations() -> None:
    ann = chains()["linear"][0]()
    batches = data_for((6,), torch.float32)
    network, snn = normalized(ann, batches), convert(ann, batches)
    with torch.no_grad():
        wanted = network(batches[0])
    assert relative_error(run_by_hand(snn, batches[0], 1000).mean(0), wanted) < 0.01
