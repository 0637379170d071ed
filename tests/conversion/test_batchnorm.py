"""BatchNorm is absorbed into the layer before it, or becomes an affine map where there is none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sj_ann2snn import ChannelAffine, ConversionError, Converter, UnsupportedError, simulate

from ..helpers.networks import Written, convert, multi_step, randomized, relative_error, run_by_hand, scalers


def before() -> dict[str, tuple[nn.Module, nn.Module, tuple[int, ...]]]:
    """Layers, the BatchNorm behind each, and the shape of one sample."""
    return {
        "Linear": (nn.Linear(6, 8), nn.BatchNorm1d(8), (6,)),
        "Linear without bias": (nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), (6,)),
        "Conv1d": (nn.Conv1d(4, 8, 3), nn.BatchNorm1d(8), (4, 9)),
        "Conv1d grouped": (nn.Conv1d(4, 8, 3, groups=2), nn.BatchNorm1d(8), (4, 9)),
        "Conv2d": (nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), (4, 6, 6)),
        "Conv2d without bias": (nn.Conv2d(4, 8, 3, bias=False), nn.BatchNorm2d(8), (4, 6, 6)),
        "Conv2d depthwise": (nn.Conv2d(4, 8, 3, groups=4), nn.BatchNorm2d(8), (4, 6, 6)),
        "Conv3d": (nn.Conv3d(4, 8, 2, groups=2), nn.BatchNorm3d(8), (4, 4, 4, 4)),
        "ConvTranspose1d": (nn.ConvTranspose1d(4, 8, 3, groups=2), nn.BatchNorm1d(8), (4, 5)),
        "ConvTranspose2d": (nn.ConvTranspose2d(4, 8, 3, stride=2), nn.BatchNorm2d(8), (4, 4, 4)),
        "ConvTranspose2d grouped": (nn.ConvTranspose2d(4, 8, 3, groups=4, bias=False), nn.BatchNorm2d(8), (4, 4, 4)),
        "ConvTranspose3d grouped": (nn.ConvTranspose3d(4, 8, 2, groups=2), nn.BatchNorm3d(8), (4, 3, 3, 3)),
        "no affine": (nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8, affine=False), (4, 6, 6)),
        "cumulative average, large eps": (nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8, momentum=None, eps=0.3), (4, 6, 6)),
    }


def network(layer: nn.Module, norm: nn.Module) -> nn.Sequential:
    return randomized(nn.Sequential(layer, norm, nn.ReLU(), nn.Flatten(), nn.LazyLinear(5)))  # type: ignore[return-value]


def built(name: str) -> tuple[nn.Sequential, Tensor]:
    layer, norm, shape = before()[name]
    ann, data = network(layer, norm), torch.randn(16, *shape)
    ann(data)  # the lazy layer learns its size
    return ann.double(), data.double()


def batchnorms(module: nn.Module) -> list[str]:
    return [name for name, one in module.named_modules() if isinstance(one, _BatchNorm)]


def affines(module: nn.Module) -> list[str]:
    return [name for name, one in module.named_modules() if isinstance(one, ChannelAffine)]


@pytest.mark.parametrize("channel_wise", [False, True])
@pytest.mark.parametrize("name", before())
@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
def test_absorbed_into_the_layer_before(name: str, channel_wise: bool) -> None:
    ann, data = built(name)
    converter = Converter([data], channel_wise=channel_wise, progress=False)
    normalized = converter.normalize(ann)
    with torch.no_grad():
        assert relative_error(normalized(data), ann(data)) < 1e-12
    snn = converter(ann)
    for made in (normalized, snn):
        assert batchnorms(made) == affines(made) == scalers(made) == []
    assert len(batchnorms(ann)) == 1
    assert relative_error(run_by_hand(snn, data, 500).mean(0), ann(data).detach()) < 0.03
    assert converter.report["0"].operation == f"{type(ann[0]).__name__} + {type(ann[1]).__name__}"


@pytest.mark.parametrize("name", before())
@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
def test_left_apart_it_gives_the_same_function(name: str) -> None:
    ann, data = built(name)
    converter = Converter([data], fuse_flag=False, progress=False)
    normalized = converter.normalize(ann)
    assert affines(normalized) == ["1"]
    with torch.no_grad():
        assert relative_error(normalized(data), ann(data)) < 1e-12
    snn, fused = converter(ann), convert(ann, data)
    assert affines(snn) == ["1"]
    assert affines(fused) == []
    assert relative_error(run_by_hand(snn, data, 200).mean(0), run_by_hand(fused, data, 200).mean(0)) < 0.02
    assert relative_error(multi_step(snn, data, 20), run_by_hand(snn, data, 20)) < 1e-12


def test_the_folded_weights_are_those_of_the_formula() -> None:
    ann = randomized(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))).double()
    with_relu = nn.Sequential(*ann, nn.ReLU()).eval()
    data = torch.randn(10, 3, 6, 6, dtype=torch.float64)
    converter = Converter([data], progress=False)
    folded = converter.normalize(with_relu)
    scale = converter.report["2"].scale[0]
    norm = ann[1]
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    assert torch.allclose(folded.get_submodule("0").weight * scale, ann[0].weight * factor.reshape(-1, 1, 1, 1))
    assert torch.allclose(
        folded.get_submodule("0").bias * scale, factor * (ann[0].bias - norm.running_mean) + norm.bias
    )


def test_a_convolution_with_two_readers_keeps_its_weights() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        h = net.conv(x)
        return net.head((torch.relu(net.norm(h)) + torch.relu(h)).mean((2, 3)))

    ann = Written(forward, conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), head=nn.Linear(4, 2)).double()
    randomized(ann)
    data = torch.randn(12, 3, 6, 6, dtype=torch.float64)
    converter = Converter([data], progress=False)
    with torch.no_grad():
        assert relative_error(converter.normalize(ann)(data), ann(data)) < 1e-12
    snn = converter(ann)
    assert affines(snn) == ["norm"]
    assert relative_error(simulate(snn, data, T=800), ann(data).detach()) < 0.03


def test_a_convolution_called_twice_with_a_batchnorm_behind_one_call() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        return net.head(torch.relu(net.norm(net.conv(torch.relu(net.conv(x))))).mean((2, 3)))

    ann = Written(forward, conv=nn.Conv2d(3, 3, 3), norm=nn.BatchNorm2d(3), head=nn.Linear(3, 2)).double()
    randomized(ann)
    data = torch.randn(12, 3, 7, 7, dtype=torch.float64)
    converter = Converter([data], progress=False)
    with torch.no_grad():
        assert relative_error(converter.normalize(ann)(data), ann(data)) < 1e-12
    assert affines(converter(ann)) == []


@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (nn.BatchNorm1d(4), (4,)),
        (nn.BatchNorm1d(4), (4, 7)),
        (nn.BatchNorm2d(4), (4, 5, 5)),
        (nn.BatchNorm3d(4), (4, 3, 3, 3)),
        (nn.BatchNorm2d(4, affine=False), (4, 5, 5)),
    ],
)
@pytest.mark.parametrize("channel_wise", [False, True])
def test_with_nothing_before_it_becomes_an_affine_map(
    norm: nn.Module, shape: tuple[int, ...], channel_wise: bool
) -> None:
    ann = randomized(nn.Sequential(norm, nn.ReLU(), nn.Flatten(), nn.Linear(4 * _volume(shape[1:]), 3))).double()
    data = torch.randn(20, *shape, dtype=torch.float64)
    converter = Converter([data], channel_wise=channel_wise, progress=False)
    with torch.no_grad():
        assert relative_error(converter.normalize(ann)(data), ann(data)) < 1e-12
    snn = converter(ann)
    assert affines(snn) == ["0"]
    assert converter.report["0"].becomes == "affine map"
    assert scalers(snn) == []
    assert relative_error(multi_step(snn, data, 30), run_by_hand(snn, data, 30)) < 1e-12
    assert relative_error(run_by_hand(snn, data, 500).mean(0), ann(data).detach()) < 0.03


def test_behind_the_last_neuron_it_becomes_an_affine_map() -> None:
    ann = randomized(
        nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)
        )
    ).double()
    data = torch.randn(20, 2, 7, 7, dtype=torch.float64)
    converter = Converter([data], progress=False)
    with torch.no_grad():
        assert relative_error(converter.normalize(ann)(data), ann(data)) < 1e-12
    snn = converter(ann)
    assert affines(snn) == ["5"]
    assert scalers(snn) == []
    assert relative_error(simulate(snn, data, T=500), ann(data).detach()) < 0.03


def test_two_in_a_row_are_both_absorbed() -> None:
    ann = randomized(
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3))
    ).double()
    data = torch.randn(20, 2, 7, 7, dtype=torch.float64)
    converter = Converter([data], progress=False)
    with torch.no_grad():
        assert relative_error(converter.normalize(ann)(data), ann(data)) < 1e-12
    assert affines(converter(ann)) == []


def test_over_a_sequence_behind_linear_it_works_on_dimension_one() -> None:
    # BatchNorm1d over [N, C, L] normalizes C, which is not what Linear puts out: L.
    ann = randomized(nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(6, 3))).double()
    data = torch.randn(20, 4, 5, dtype=torch.float64)
    for channel_wise in (False, True):
        converter = Converter([data], channel_wise=channel_wise, progress=False)
        with torch.no_grad():
            assert relative_error(converter.normalize(ann)(data), ann(data)) < 1e-12
        assert affines(converter(ann)) == ["1"]


def test_over_a_sequence_of_as_many_channels_behind_linear() -> None:
    ann = randomized(nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3))).double()
    data = torch.randn(20, 4, 5, dtype=torch.float64)
    with torch.no_grad():
        assert relative_error(Converter([data], progress=False).normalize(ann)(data), ann(data)) < 1e-12


def test_max_pooling_between_convolution_and_batchnorm() -> None:
    ann = randomized(
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.MaxPool2d(2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    ).double()
    data = torch.randn(20, 2, 6, 6, dtype=torch.float64)
    converter = Converter([data], progress=False)
    with torch.no_grad():
        assert relative_error(converter.normalize(ann)(data), ann(data)) < 1e-12
    snn = converter(ann)
    assert affines(snn) == ["2"]
    assert relative_error(simulate(snn, data, T=400), ann(data).detach()) < 0.03


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4, track_running_stats=False), nn.BatchNorm2d(4, affine=False)])
def test_without_running_statistics_it_is_refused(norm: nn.BatchNorm2d) -> None:
    norm.track_running_stats, norm.running_mean, norm.running_var = False, None, None
    ann = nn.Sequential(nn.Conv2d(2, 4, 3), norm, nn.ReLU(), nn.Conv2d(4, 2, 3))
    with pytest.raises(ConversionError, match=r"^1 \(BatchNorm2d\) has no running statistics") as caught:
        convert(ann, torch.randn(8, 2, 7, 7))
    assert "track_running_stats=True" in str(caught.value)


def test_functional_batchnorm_with_fixed_statistics() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        h = torch.relu(net.conv(x))
        h = nn.functional.batch_norm(h, net.norm.running_mean, net.norm.running_var, net.norm.weight, net.norm.bias)
        return net.head(torch.relu(h).mean((2, 3)))

    ann = Written(forward, conv=nn.Conv2d(2, 4, 3), norm=nn.BatchNorm2d(4), head=nn.Linear(4, 2)).double()
    randomized(ann)
    data = torch.randn(20, 2, 6, 6, dtype=torch.float64)
    snn = convert(ann, data)
    assert relative_error(simulate(snn, data, T=600), ann(data).detach()) < 0.03
    assert relative_error(multi_step(snn, data, 20), run_by_hand(snn, data, 20)) < 1e-12


def functional(net: Any, x: Tensor) -> Tensor:
    norm = net.batch_norm
    return nn.functional.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.1, 0.3)


def of_torch(net: Any, x: Tensor) -> Tensor:
    norm = net.batch_norm
    statistics = (norm.running_mean, norm.running_var)
    return torch.batch_norm(x, norm.weight, norm.bias, *statistics, False, 0.1, 1e-4, False)


def without_factors(net: Any, x: Tensor) -> Tensor:
    return nn.functional.batch_norm(x, running_var=net.batch_norm.running_var, running_mean=net.batch_norm.running_mean)


@pytest.mark.parametrize("batch_norm", [functional, of_torch, without_factors])
@pytest.mark.parametrize("behind", [False, True])
def test_functional_batchnorm_is_folded_like_a_layer(batch_norm: Any, behind: bool) -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        h = net.conv(x)
        h = batch_norm(net, torch.relu(h)) if behind else torch.relu(batch_norm(net, h))
        return net.head(torch.relu(net.next(nn.functional.avg_pool2d(h, 2))).mean((2, 3)))

    layers = {"conv": nn.Conv2d(2, 4, 3), "next": nn.Conv2d(4, 4, 2, padding=1), "head": nn.Linear(4, 2)}
    ann = randomized(Written(forward, batch_norm=nn.BatchNorm2d(4), **layers)).double()
    data = torch.randn(20, 2, 6, 6, dtype=torch.float64)
    converter = Converter([data], mode=0.93, progress=False)
    with torch.no_grad():
        assert relative_error(converter.normalize(ann)(data), ann(data)) < 1e-12
    snn = converter(ann)
    assert affines(snn) == []
    operations = {entry.name: entry.operation for entry in converter.report}
    expected = {"next": "batch_norm + Conv2d"} if behind else {"conv": "Conv2d + batch_norm"}
    assert operations.items() >= expected.items()
    assert relative_error(multi_step(snn, data, 20), run_by_hand(snn, data, 20)) < 1e-12
    assert len(affines(convert(ann, data, fuse_flag=False))) == 1


def test_functional_batchnorm_that_no_layer_can_take_up_becomes_an_affine_map() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        return torch.relu(functional(net, torch.relu(net.conv(x))))

    ann = randomized(Written(forward, conv=nn.Conv2d(2, 4, 1), batch_norm=nn.BatchNorm2d(4))).double()
    data = torch.randn(20, 2, 6, 6, dtype=torch.float64)
    converter = Converter([data], mode=0.93, progress=False)
    with torch.no_grad():
        assert relative_error(converter.normalize(ann)(data), ann(data)) < 1e-12
    assert affines(converter(ann)) == ["batch_norm_2"]
    assert converter.report["batch_norm_2"].operation == "batch_norm"


def test_functional_batchnorm_with_computed_factors_stays_as_it_is() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        norm, h = net.batch_norm, torch.relu(net.conv(x))
        h = nn.functional.batch_norm(h, norm.running_mean, norm.running_var, norm.weight.abs() + 1, norm.bias)
        return net.next(h)

    layers = {"conv": nn.Conv2d(2, 4, 3), "next": nn.Conv2d(4, 4, 2)}
    ann = randomized(Written(forward, batch_norm=nn.BatchNorm2d(4), **layers)).double()
    data = torch.randn(20, 2, 6, 6, dtype=torch.float64)
    snn = convert(ann, data)
    assert affines(snn) == []
    assert relative_error(simulate(snn, data, T=600), ann(data).detach()) < 0.03


def test_functional_batchnorm_on_the_batch_at_hand_is_refused() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        return net.head(nn.functional.batch_norm(torch.relu(net.conv(x)), None, None, training=True).mean((2, 3)))

    ann = Written(forward, conv=nn.Conv2d(2, 4, 3), head=nn.Linear(4, 2))
    with pytest.raises(UnsupportedError, match="by the statistics of the current batch"):
        convert(ann, torch.randn(8, 2, 6, 6))


def test_an_ann_in_training_mode_is_converted_as_at_inference() -> None:
    ann = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.9), nn.Conv2d(4, 2, 3))
    randomized(ann)
    data = torch.randn(12, 2, 7, 7)
    wanted = ann(data).detach()
    ann.train()
    assert relative_error(simulate(convert(ann, data), data, T=500), wanted) < 0.03


def _volume(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()
