"""A BatchNorm behind a neuron is folded into the layers that read it, so that these receive spikes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from sj_ann2snn import (
    ChannelAffine,
    Converter,
    Correction,
    LayerMapper,
    Trial,
    Weighted,
    export,
    load_network,
    simulate,
)
from sj_ann2snn.layers import Stepwise

from ..helpers.networks import (
    Written,
    convert,
    multi_step,
    randomized,
    relative_error,
    run_by_hand,
    watched,
)

C = 4


def affines(network: nn.Module) -> list[str]:
    return [name for name, one in network.named_modules() if isinstance(one, ChannelAffine)]


def between(*layers: nn.Module, norm: nn.Module | None = None, head: bool = True) -> nn.Sequential:
    """Convolution, ReLU, BatchNorm, the given layers, and ReLU and another convolution behind them."""
    front = (nn.Conv2d(2, C, 3), nn.ReLU(), norm or nn.BatchNorm2d(C))
    return nn.Sequential(*front, *layers, *((nn.ReLU(), nn.Conv2d(C, 3, 1)) if head else ()))


def set_factors(ann: nn.Module, factors: Tensor | None, name: str = "2") -> nn.Module:
    """`ann` in double precision with random BatchNorm; the one called `name` gets `factors`."""
    randomized(ann).double()
    if factors is not None:
        with torch.no_grad():
            ann.get_submodule(name).weight.copy_(factors)
    return ann


POSITIVE = torch.tensor([0.5, 1.5, 0.2, 1.0])
MIXED = torch.tensor([-0.5, 1.5, -0.2, 0.0])
FACTORS = {"positive": POSITIVE, "mixed": MIXED}


def networks_2d() -> dict[str, nn.Sequential]:
    """What may stand between the BatchNorm and the next neuron."""
    conv = nn.Conv2d
    return {
        "conv": between(conv(C, C, 3)),
        "conv without bias": between(conv(C, C, 3, bias=False)),
        "conv padded": between(conv(C, C, 3, padding=1)),
        "conv padded without bias": between(conv(C, C, 3, padding=(2, 0), bias=False)),
        "conv same": between(conv(C, C, (1, 3), padding="same")),
        "conv 1x1 same": between(conv(C, C, 1, padding="same")),
        "conv valid": between(conv(C, C, 3, padding="valid")),
        "conv strided, dilated": between(conv(C, C, 3, stride=2, dilation=2, padding=2)),
        "conv grouped": between(conv(C, 6, 3, padding=1, groups=2), nn.ReLU(), conv(6, C, 1)),
        "conv depthwise": between(conv(C, 2 * C, 3, padding=1, groups=C), nn.ReLU(), conv(2 * C, C, 1)),
        **{mode: between(conv(C, C, 3, padding=1, padding_mode=mode)) for mode in ("reflect", "replicate", "circular")},
        "reflect behind zeros": between(nn.ZeroPad2d((1, 2, 0, 1)), conv(C, C, 3, padding=2, padding_mode="reflect")),
        "transposed": between(nn.ConvTranspose2d(C, C, 3)),
        "transposed strided": between(nn.ConvTranspose2d(C, C, 3, stride=2, padding=1, output_padding=1)),
        "transposed grouped": between(nn.ConvTranspose2d(C, 6, 2, groups=2), nn.ReLU(), conv(6, C, 1)),
        "dropout, max pool, conv": between(nn.Dropout(), nn.MaxPool2d(2), conv(C, C, 2, padding=1)),
        "max pool, dropout2d, conv": between(nn.MaxPool2d(2), nn.Dropout2d(), nn.Identity(), conv(C, C, 2)),
        "max pool padded": between(nn.MaxPool2d(3, 2, padding=1, ceil_mode=True), conv(C, C, 3, padding=1)),
        "max pool dilated": between(nn.MaxPool2d(2, 1, dilation=2), conv(C, C, 3, padding=1)),
        "two max pools": between(nn.MaxPool2d(2, 1), nn.MaxPool2d(2), conv(C, C, 2, padding=1)),
        "average pool": between(nn.AvgPool2d(2), conv(C, C, 2, padding=1)),
        "average pool padded": between(nn.AvgPool2d(3, 2, padding=1), conv(C, C, 3, padding=1)),
        "average pool padded, not counted": between(
            nn.AvgPool2d(3, 2, padding=1, count_include_pad=False), conv(C, C, 3)
        ),
        "average pool, ceil": between(nn.AvgPool2d(2, 2, ceil_mode=True), conv(C, C, 2)),
        "average pool, divisor": between(nn.AvgPool2d(2, divisor_override=3), conv(C, C, 2)),
        "adaptive": between(nn.AdaptiveAvgPool2d(3), conv(C, C, 3, padding=1)),
        "upsampled": between(nn.Upsample(scale_factor=2, mode="bilinear"), conv(C, C, 3, padding=1)),
        "nearest": between(nn.UpsamplingNearest2d(scale_factor=2), conv(C, C, 3)),
        "zero padded": between(nn.ZeroPad2d((0, 1, 2, 3)), conv(C, C, 3)),
        "zero padded twice": between(nn.ZeroPad2d(1), nn.Dropout(), nn.AvgPool2d(2), conv(C, C, 3, padding=1)),
        "reflection": between(nn.ReflectionPad2d(1), conv(C, C, 3)),
        "replication": between(nn.ReplicationPad2d(1), conv(C, C, 3, padding=1)),
        "shuffled": between(nn.ChannelShuffle(2), conv(C, C, 3, padding=1)),
        "unshuffled": between(nn.AdaptiveAvgPool2d(4), nn.PixelUnshuffle(2), conv(4 * C, C, 3, padding=1)),
        "pooled and flat": between(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(C, 5), nn.ReLU(), nn.Linear(5, 3), head=False
        ),
        "flat": between(
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * C, 5), nn.ReLU(), nn.Linear(5, 3), head=False
        ),
        "max pool, flat": between(
            nn.AdaptiveAvgPool2d(4), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * C, 3, bias=False), head=False
        ),
        "BatchNorm twice": between(nn.BatchNorm2d(C), conv(C, C, 3, padding=1)),
        "BatchNorm, pool, BatchNorm": between(nn.MaxPool2d(2), nn.BatchNorm2d(C), conv(C, C, 2, padding=1)),
    }


@pytest.mark.parametrize("factors", FACTORS)
@pytest.mark.parametrize("name", networks_2d())
def test_folded_it_computes_what_the_ann_computes(name: str, factors: str) -> None:
    ann = set_factors(networks_2d()[name], FACTORS[factors])
    data = torch.randn(10, 2, 9, 9, dtype=torch.float64)
    # Below the maximum no neuron fires exactly at every step, where rounding would decide about single spikes.
    converter = Converter([data], mode=0.93, channel_wise=factors == "mixed", progress=False)
    normalized = converter.normalize(ann)
    assert affines(normalized) == []
    for x in (data, torch.randn(3, 2, 9, 9).double(), torch.randn(2, 2, 12, 15).double()):
        with torch.no_grad():
            assert relative_error(normalized(x), ann(x)) < 1e-12
    snn = converter(ann)
    assert affines(snn) == []
    steps = run_by_hand(snn, data, 12)
    assert relative_error(multi_step(snn, data, 12), steps) < 1e-12
    assert relative_error(simulate(snn, data, T=12), steps.mean(0)) < 1e-12


@pytest.mark.parametrize("name", ["conv padded", "max pool padded", "average pool padded", "transposed strided"])
def test_the_spiking_network_converges_at_every_size(name: str) -> None:
    ann = set_factors(networks_2d()[name], MIXED)
    data = torch.randn(10, 2, 9, 9, dtype=torch.float64)
    snn = convert(ann, data)
    for x in (data, 0.5 * torch.randn(2, 2, 14, 10).double()):
        with torch.no_grad():
            assert relative_error(simulate(snn, x, T=800), ann(x)) < 0.03


@pytest.mark.parametrize("name", ["conv padded", "dropout, max pool, conv", "two max pools", "zero padded", "shuffled"])
@pytest.mark.parametrize("factors", FACTORS)
def test_the_next_layer_receives_spikes(name: str, factors: str) -> None:
    ann = set_factors(networks_2d()[name], FACTORS[factors])
    snn = convert(ann, torch.randn(10, 2, 9, 9, dtype=torch.float64))
    inputs: list[Tensor] = []
    for module in list(snn.modules()):
        if isinstance(module, _ConvNd) and module.in_channels == C:
            module.register_forward_pre_hook(lambda _, args: inputs.append(args[0].clone()))
    run_by_hand(snn, torch.randn(4, 2, 9, 9).double(), 8)
    assert len(inputs) == 16
    assert all(bool(((one == 0) | (one == 1)).all()) for one in inputs)
    assert any(bool((one == 1).any()) for one in inputs)


def test_weights_bias_and_border_are_those_of_the_formula() -> None:
    ann = set_factors(between(nn.Conv2d(C, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 2, 1), head=False), MIXED)
    data = torch.randn(10, 2, 6, 6, dtype=torch.float64)
    converter = Converter([data], progress=False)
    normalized = converter.normalize(ann)
    norm, conv = ann[2], ann[3]
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * factor
    before, behind = converter.report["1"].scale[0], converter.report["4"].scale[0]
    weight = conv.weight * factor.reshape(1, -1, 1, 1) * before / behind
    torch.testing.assert_close(normalized.get_submodule("3").weight, weight)
    torch.testing.assert_close(normalized.get_submodule("3").bias, conv.bias / behind)
    # What the shift contributes: inside, all nine weights; in a corner, four.
    with torch.no_grad(), watched(normalized, (nn.Conv2d, Stepwise)) as seen:
        normalized(data)
    got = (seen["2_shift.add"][0] - seen["3"][0])[0] * behind
    torch.testing.assert_close(got[:, 1, 2], torch.einsum("oihw,i->o", conv.weight, shift))
    torch.testing.assert_close(got[:, 0, 0], torch.einsum("oihw,i->o", conv.weight[:, :, 1:, 1:], shift))
    torch.testing.assert_close(got[:, 3, 2], torch.einsum("oihw,i->o", conv.weight[:, :, :2], shift))


def test_without_a_border_the_shift_becomes_the_bias() -> None:
    ann = set_factors(between(nn.Conv2d(C, 3, 2), nn.ReLU(), nn.Conv2d(3, 2, 1), head=False), POSITIVE)
    data = torch.randn(10, 2, 6, 6, dtype=torch.float64)
    converter = Converter([data], progress=False)
    normalized = converter.normalize(ann)
    norm, conv = ann[2], ann[3]
    shift = norm.bias - norm.running_mean * norm.weight / torch.sqrt(norm.running_var + norm.eps)
    wanted = conv.bias + torch.einsum("oihw,i->o", conv.weight, shift)
    torch.testing.assert_close(normalized.get_submodule("3").bias, wanted / converter.report["4"].scale[0])
    assert [name for name, _ in normalized.named_modules() if "shift" in name] == []


@pytest.mark.parametrize(
    ("norm", "layers", "shape"),
    [
        (nn.BatchNorm1d(6), (nn.Linear(5, 6), nn.ReLU(), None, nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)), (5,)),
        (nn.BatchNorm1d(6), (nn.Linear(5, 6), nn.ReLU(), None, nn.Dropout(), nn.Linear(6, 4)), (5,)),
        (nn.BatchNorm1d(4), (nn.Conv1d(3, 4, 3), nn.ReLU(), None, nn.Conv1d(4, 2, 3, padding=1)), (3, 9)),
        (nn.BatchNorm1d(4), (nn.Conv1d(3, 4, 3), nn.ReLU(), None, nn.MaxPool1d(2), nn.Conv1d(4, 2, 2)), (3, 9)),
        (nn.BatchNorm1d(4), (nn.Conv1d(3, 4, 3), nn.ReLU(), None, nn.ConvTranspose1d(4, 2, 3, 2, groups=2)), (3, 9)),
        (nn.BatchNorm3d(4), (nn.Conv3d(3, 4, 2), nn.ReLU(), None, nn.MaxPool3d(2), nn.Conv3d(4, 2, 1)), (3, 5, 5, 5)),
        (nn.BatchNorm3d(4), (nn.Conv3d(3, 4, 2), nn.ReLU(), None, nn.Conv3d(4, 2, 3, padding=1)), (3, 5, 5, 5)),
        (nn.BatchNorm3d(4), (nn.Conv3d(3, 4, 2), nn.ReLU(), None, nn.ConvTranspose3d(4, 2, 2)), (3, 4, 4, 4)),
        (nn.BatchNorm1d(4, affine=False), (nn.Conv1d(3, 4, 3), nn.ReLU6(), None, nn.Conv1d(4, 2, 3)), (3, 9)),
        (nn.BatchNorm1d(4), (nn.Conv1d(3, 4, 3), nn.LeakyReLU(0.3), None, nn.Conv1d(4, 2, 3, padding=2)), (3, 9)),
        (nn.BatchNorm1d(4), (nn.Conv1d(3, 4, 3), nn.PReLU(4), None, nn.MaxPool1d(2), nn.Conv1d(4, 2, 2)), (3, 9)),
    ],
)
def test_other_ranks_and_activations(norm: nn.Module, layers: tuple[Any, ...], shape: tuple[int, ...]) -> None:
    ann = set_factors(nn.Sequential(*(norm if one is None else one for one in layers)), None)
    data = torch.randn(16, *shape, dtype=torch.float64)
    snn = convert(ann, data)
    assert affines(snn) == []
    assert relative_error(simulate(snn, data, T=600), ann(data).detach()) < 0.03
    assert relative_error(multi_step(snn, data, 20), run_by_hand(snn, data, 20)) < 1e-12


def written(forward: Any, **layers: Any) -> nn.Module:
    """A network whose `norm` is read in some way behind a ReLU."""

    def whole(net: Any, x: Tensor) -> Tensor:
        return net.head(forward(net, net.norm(torch.relu(net.conv(x)))).mean((2, 3)))

    return Written(whole, conv=nn.Conv2d(2, C, 3), norm=nn.BatchNorm2d(C), head=nn.Linear(C, 3), **layers)


def pad_and_convolve(net: Any, x: Tensor) -> Tensor:
    return torch.relu(net.next(F.pad(x, (1, 2, 0, 1))))


def two_readers(net: Any, x: Tensor) -> Tensor:
    return torch.relu(net.next(x)) + torch.relu(net.other(F.max_pool2d(x, 3, 1, 1)))


def parts(net: Any, x: Tensor) -> Tensor:
    one, two = x.chunk(2, 1)
    return torch.relu(net.next(torch.cat([two, one], 1)))


def several_into_one(net: Any, x: Tensor) -> Tensor:
    return torch.relu(net.next(torch.cat([x, torch.relu(net.other(x))], 1)))


def twice_the_same(net: Any, x: Tensor) -> Tensor:
    return torch.relu(net.next(torch.cat([x, x.flip(2)], 1)))


def one_convolution_twice(net: Any, x: Tensor) -> Tensor:
    return torch.relu(net.next(x)) + torch.relu(net.next(F.avg_pool2d(x, 3, 1, 1)))


def features_last(net: Any, x: Tensor) -> Tensor:
    return torch.relu(net.next(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


def sum_of_space(net: Any, x: Tensor) -> Tensor:
    return torch.relu(net.next(x.sum((2, 3))))[:, :, None, None]


def padded_to_even(net: Any, x: Tensor) -> Tensor:
    return torch.relu(net.next(F.pad(x, (0, x.size(-1) % 2, x.size(-2) % 2, 0))))


def divided_by_four(net: Any, x: Tensor) -> Tensor:
    return torch.relu(net.next(F.avg_pool2d(x, 2, ceil_mode=True, divisor_override=4)))


def resized_to(net: Any, x: Tensor) -> Tensor:
    return torch.relu(net.next(F.interpolate(x, size=(x.shape[-1] + 2, x.size(2)))))


WRITTEN: dict[str, tuple[Any, dict[str, nn.Module]]] = {
    "F.pad": (pad_and_convolve, {"next": nn.Conv2d(C, C, 3)}),
    "two readers": (two_readers, {"next": nn.Conv2d(C, C, 3, padding=1), "other": nn.Conv2d(C, C, 3, padding=1)}),
    "parts": (parts, {"next": nn.Conv2d(C, C, 3, padding=1)}),
    "several into one": (several_into_one, {"next": nn.Conv2d(2 * C, C, 3), "other": nn.Conv2d(C, C, 3, padding=1)}),
    "twice the same": (twice_the_same, {"next": nn.Conv2d(2 * C, C, 3, padding=1)}),
    "one convolution twice": (one_convolution_twice, {"next": nn.Conv2d(C, C, 3, padding=1)}),
    "features last": (features_last, {"next": nn.Linear(C, C)}),
    "sum of space": (sum_of_space, {"next": nn.Linear(C, C)}),
    "padded to even": (padded_to_even, {"next": nn.Conv2d(C, C, 3)}),
    "divided by four": (divided_by_four, {"next": nn.Conv2d(C, C, 2)}),
    "resized": (resized_to, {"next": nn.Conv2d(C, C, 3, padding=1)}),
}


@pytest.mark.parametrize("factors", FACTORS)
@pytest.mark.parametrize("name", WRITTEN)
def test_through_functions_and_several_readers(name: str, factors: str) -> None:
    forward, layers = WRITTEN[name]
    ann = set_factors(written(forward, **layers), FACTORS[factors], "norm")
    data = torch.randn(10, 2, 8, 8, dtype=torch.float64)
    converter = Converter([data], mode=0.93, progress=False)
    normalized, snn = converter.normalize(ann), converter(ann)
    assert affines(snn) == []
    for x in (data, torch.randn(3, 2, 11, 7).double()):
        with torch.no_grad():
            assert relative_error(normalized(x), ann(x)) < 1e-12
        assert relative_error(multi_step(snn, x, 12), run_by_hand(snn, x, 12)) < 1e-12
        assert relative_error(simulate(snn, x, T=12), run_by_hand(snn, x, 12).mean(0)) < 1e-12


def test_what_cannot_do_without_it_keeps_it() -> None:
    def residual(net: Any, x: Tensor) -> Tensor:
        return torch.relu(net.next(x) + x)

    ann = set_factors(written(residual, next=nn.Conv2d(C, C, 3, padding=1)), MIXED, "norm")
    data = torch.randn(10, 2, 8, 8, dtype=torch.float64)
    converter = Converter([data], progress=False)
    with torch.no_grad():
        assert relative_error(converter.normalize(ann)(data), ann(data)) < 1e-12
    snn = converter(ann)
    assert affines(snn) == ["norm"]
    assert converter.report["norm"].becomes == "affine map"
    # The convolution reads spikes nevertheless.
    assert converter.report["next"].operation == "BatchNorm2d + Conv2d"
    (convolution,) = (node for node in snn.graph.nodes if node.target == "next")
    assert type(snn.get_submodule(convolution.args[0].target)).__name__ == "IFNode"
    assert relative_error(simulate(snn, data, T=800), ann(data).detach()) < 0.03


LEFT = {
    "activation": between(nn.ReLU(), nn.Conv2d(C, C, 3)),
    "output": nn.Sequential(nn.Conv2d(2, C, 3), nn.ReLU(), nn.BatchNorm2d(C)),
    "constant padding": between(nn.ConstantPad2d(1, 0.5), nn.Conv2d(C, C, 3)),
    "max pool behind zeros": between(nn.ZeroPad2d(1), nn.MaxPool2d(2), nn.Conv2d(C, C, 3)),
    "other axis": between(nn.Linear(7, 5)),
    "leaf": between(nn.Sequential(nn.Conv2d(C, C, 3))),
}


@pytest.mark.parametrize("name", LEFT)
def test_left_where_no_layer_can_take_it_up(name: str) -> None:
    ann = set_factors(LEFT[name], POSITIVE)
    data = torch.randn(10, 2, 9, 9, dtype=torch.float64)
    converter = Converter([data], leaf_modules=["3"] if name == "leaf" else [], progress=False)
    with torch.no_grad():
        assert relative_error(converter.normalize(ann)(data), ann(data)) < 1e-12
    snn = converter(ann)
    assert affines(snn) == ["2"]
    assert relative_error(simulate(snn, data, T=800), ann(data).detach()) < 0.03


def test_in_front_of_the_first_layer_it_stays() -> None:
    ann = randomized(nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 2, 1)))
    assert affines(convert(ann, torch.randn(8, 2, 5, 5))) == ["0"]


def test_fuse_flag_false_keeps_it() -> None:
    ann = set_factors(between(nn.MaxPool2d(2), nn.Conv2d(C, C, 3, padding=1)), MIXED)
    data = torch.randn(10, 2, 9, 9, dtype=torch.float64)
    apart, folded = convert(ann, data, fuse_flag=False), convert(ann, data)
    assert affines(apart) == ["2"]
    assert affines(folded) == []
    assert relative_error(simulate(apart, data, T=400), simulate(folded, data, T=400)) < 0.03


class Chosen(LayerMapper):
    name = "chosen"
    claims = (ChannelAffine,)

    def map(self, site: Any) -> Weighted:
        return Weighted()


def test_a_site_that_the_caller_names_stays() -> None:
    ann = set_factors(between(nn.Conv2d(C, C, 3)), POSITIVE)
    data = torch.randn(10, 2, 9, 9, dtype=torch.float64)
    converter = Converter([data], mappers={"2": Chosen()}, progress=False)
    assert affines(converter(ann)) == ["2"]
    assert converter.report["2"].mapper == "chosen"


OPTIONS: dict[str, tuple[dict[str, Any], float]] = {
    "momentum": ({"maxpool": "momentum"}, 0.6),
    "pre-spike": ({"maxpool": "pre-spike"}, 0.6),
    "avg": ({"maxpool": "avg"}, 0.05),
    "neuron behind pools": ({"avgpool_neuron": True}, 0.05),
    "per channel from half": ({"channel_wise": True, "initial_potential": 0.5}, 0.05),
}
"""Options of the converter, and the allowed error."""


@pytest.mark.parametrize("factors", FACTORS)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("pool", [nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(3, 2, 1)])
def test_with_every_way_of_pooling(pool: nn.Module, options: str, factors: str) -> None:
    ann = set_factors(between(pool, nn.Conv2d(C, C, 3, padding=1)), FACTORS[factors])
    data = torch.randn(10, 2, 9, 9, dtype=torch.float64)
    given, tolerance = OPTIONS[options]
    converter = Converter([data], progress=False, **given)
    normalized, snn = converter.normalize(ann), converter(ann)
    assert affines(snn) == []
    with torch.no_grad():
        if options != "avg":
            assert relative_error(normalized(data), ann(data)) < 1e-12
        assert relative_error(simulate(snn, data, T=600), normalized(data)) < tolerance
    snn = convert(ann, data, mode=0.93, **given)
    assert relative_error(multi_step(snn, data, 20), run_by_hand(snn, data, 20)) < 1e-12
    assert relative_error(simulate(snn, data, T=20), run_by_hand(snn, data, 20).mean(0)) < 1e-12


def test_pools_in_front_of_neurons_are_reached_through_it() -> None:
    ann = set_factors(between(nn.MaxPool2d(2), nn.Conv2d(C, C, 3, padding=1)), POSITIVE)
    converter = Converter([torch.randn(10, 2, 9, 9).double()], maxpool="pre-spike", progress=False)
    snn = converter(ann)
    # The pool acts on the currents of the first neuron.
    assert converter.report["3"].exact is False
    (pool,) = (node for node in snn.graph.nodes if node.target == "3")
    assert pool.args[0].target == "0"


@pytest.mark.parametrize("form", [".zip", ".pt"])
@pytest.mark.parametrize(
    "name", ["max pool padded", "average pool padded", "reflect behind zeros", "transposed strided"]
)
def test_files_hold_it(name: str, form: str, tmp_path: Path) -> None:
    ann = set_factors(networks_2d()[name], MIXED)
    data = torch.randn(10, 2, 9, 9, dtype=torch.float64)
    snn = convert(ann, data)
    export(snn, tmp_path / f"network{form}")
    loaded = load_network(tmp_path / f"network{form}")
    for x in (data, torch.randn(2, 2, 14, 11).double()):
        assert torch.equal(simulate(loaded, x, T=10), simulate(snn, x, T=10))


def test_the_report_says_where_it_went() -> None:
    ann = set_factors(
        nn.Sequential(
            nn.Conv2d(2, C, 3),
            nn.ReLU(),
            nn.BatchNorm2d(C),
            nn.MaxPool2d(2),
            nn.Conv2d(C, C, 3, padding=1),
            nn.BatchNorm2d(C),
            nn.ReLU(),
            nn.Conv2d(C, 2, 1),
        ),
        MIXED,
    )
    converter = Converter([torch.randn(10, 2, 9, 9).double()], progress=False)
    converter(ann)
    entries = {entry.name: entry.operation for entry in converter.report}
    assert "2" not in entries
    assert entries["4"] == "BatchNorm2d + Conv2d + BatchNorm2d"
    assert entries["2_shift.add"] == "shift of BatchNorm2d"
    assert entries["2_sign.mul"] == entries["2_sign.mul#2"] == "sign of BatchNorm2d"


def test_neither_the_ann_nor_the_random_generator_changes() -> None:
    ann = set_factors(between(nn.MaxPool2d(2), nn.Conv2d(C, C, 3, padding=1)), MIXED)
    data = torch.randn(10, 2, 9, 9, dtype=torch.float64)
    before, state = {name: value.clone() for name, value in ann.state_dict().items()}, torch.get_rng_state()
    convert(ann, data)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in ann.state_dict().items())


class Raise(Correction):
    """Adds a tenth of the threshold to every neuron's current."""

    name = "raise"

    def correct(self, trial: Trial) -> None:
        for site in trial.sites:
            trial.adjust(site.name, bias=torch.full((site.channels,), 0.1))


def test_corrections_adjust_the_bias_of_the_layer_that_took_it_up() -> None:
    ann = set_factors(between(nn.MaxPool2d(2), nn.Conv2d(C, C, 3, padding=1)), MIXED)
    data = torch.randn(10, 2, 9, 9, dtype=torch.float64)
    corrected, plain = convert(ann, data, corrections=Raise()), Converter([data], progress=False)
    before = plain(ann).get_submodule("4").bias
    torch.testing.assert_close(corrected.get_submodule("4").bias, before + 0.1)
    assert affines(corrected) == []
