"""What stands in front of the first weights or the first neuron: it stays as it is, and what looks converted is named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import Converter, NotConvertedWarning, UnsupportedError, simulate

from ..helpers.networks import Written, convert, relative_error


def with_front(front: Any) -> nn.Module:
    torch.manual_seed(0)
    return Written(
        lambda net, x: net.last(torch.relu(net.first(front(x)))), first=nn.Linear(3, 8), last=nn.Linear(8, 2)
    ).eval()


FRONTS = {
    "spectrum": lambda x: torch.fft.rfft(x).abs(),
    "logarithm": lambda x: torch.log1p(x[:, :3].abs()),
    "bounds": lambda x: x[:, :3].clamp(-1, 1) + x[:, 1:].clamp(min=0),
    "rectified": lambda x: torch.relu(x[:, :3]),
    "normalized": lambda x: (x[:, :3] - x.mean(1, keepdim=True)).abs() / x.std(1, keepdim=True),
    "maximum": lambda x: x[:, :3] - x.max(1, keepdim=True)[0],
}


@pytest.mark.parametrize("front", FRONTS.values(), ids=FRONTS)
def test_a_front_end_without_weights_stays_as_it_is(front: Any) -> None:
    ann, x = with_front(front), torch.randn(32, 4)
    converter = Converter([x], progress=False)
    snn = converter(ann)
    # One scale: that of the ReLU behind the first weights.
    assert len(converter.report.scales) == 1
    assert relative_error(simulate(snn, x, T=1024), ann(x).detach()) < 0.02


def test_an_activation_of_the_input_spikes_if_nothing_else_does() -> None:
    ann, x = nn.Sequential(nn.ReLU(), nn.Linear(4, 2)), torch.randn(32, 4)
    converter = Converter([x], progress=False)
    snn = converter(ann)
    assert list(converter.report.scales) == ["0"]
    assert relative_error(simulate(snn, x, T=1024), ann(x).detach()) < 0.02


def test_complex_values_never_spike() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        h = torch.relu(net.first(x))
        return net.last(torch.fft.fft(h).abs())  # type: ignore[no-any-return]

    ann = Written(forward, first=nn.Linear(4, 8), last=nn.Linear(8, 2)).eval()
    with pytest.raises(UnsupportedError, match=r"abs \(Tensor\.abs\).*spikes carry real values, not complex ones"):
        convert(ann, torch.randn(8, 4))


def test_layers_in_front_of_the_only_relu_are_named() -> None:
    torch.manual_seed(0)
    ann = nn.Sequential(
        nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)
    ).eval()
    x = torch.randn(32, 4)
    with pytest.warns(NotConvertedWarning, match=r"claims 1 \(SiLU\), 3 \(Tanh\)\. Nothing spikes in front of '5'"):
        snn = convert(ann, x)
    assert relative_error(simulate(snn, x, T=1024), ann(x).detach()) < 0.02


def test_a_transformer_layer_in_front_is_named() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    ann = nn.Sequential(nn.Linear(4, 8), layer, nn.ReLU(), nn.Flatten(), nn.Linear(24, 2)).eval()
    with pytest.warns(NotConvertedWarning, match=r"1 \(TransformerEncoderLayer\)"):
        convert(ann, torch.randn(8, 3, 4))
