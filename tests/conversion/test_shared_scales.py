"""Converter(shared_scales=True): neurons whose spikes are added up have one λ, and no shortcut scales spikes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import (
    CalibrationSite,
    Converter,
    Correction,
    Normalization,
    Observer,
    OptionError,
    Scaler,
    Trial,
    diagnose,
    evaluate,
    simulate,
)

from ..builtin.test_c import assert_c_agrees, needs_compiler
from ..helpers.integers import assert_agrees
from ..helpers.networks import Written, convert, randomized, relative_error


def conv(before: int, after: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, size, stride, size // 2)


class Residual(nn.Module):
    """A block like ResNet's; the shortcut is what `down` makes of the input."""

    def __init__(self, before: int, after: int, stride: int = 1, down: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(before, after, stride=stride), nn.BatchNorm2d(after)
        self.conv2, self.bn2 = conv(after, after), nn.BatchNorm2d(after)
        self.down = nn.Identity() if down is None else down

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.down(x))


class Padded(nn.Module):
    """The shortcut without weights of He et al. 2016: every other position, and channels of zeros."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))


def stem(channels: int = 8) -> list[nn.Module]:
    return [conv(3, channels), nn.ReLU()]


def three(net: Any, x: Tensor) -> Tensor:
    x = torch.relu(net.stem(x))
    y = torch.relu(net.first(x))
    return net.head(torch.relu(net.second(y) + x + y).flatten(1))


def behind(net: Any, x: Tensor) -> Tensor:
    """A sum of spikes becomes part of another sum, and a layer reads it as well."""
    x = torch.relu(net.stem(x))
    y = torch.relu(net.first(x))
    both = x + y
    return net.head(torch.relu(net.second(both) + both).flatten(1))


def joined(net: Any, x: Tensor) -> Tensor:
    """Half of the channels of a shortcut come from one layer, half from another."""
    x = torch.relu(net.stem(x))
    both = torch.cat([torch.relu(net.left(x)), torch.relu(net.right(x))], 1)
    return net.head(torch.relu(net.second(both) + both).flatten(1))


NETWORKS: dict[str, Any] = {
    "identity": lambda: nn.Sequential(*stem(), Residual(8, 8), Residual(8, 8), nn.Flatten(), nn.Linear(288, 4)),
    "projection": lambda: nn.Sequential(
        *stem(), Residual(8, 16, 2, conv(8, 16, 1, 2)), Residual(16, 16), nn.Flatten(), nn.Linear(144, 4)
    ),
    "padded": lambda: nn.Sequential(*stem(), Residual(8, 16, 2, Padded()), nn.Flatten(), nn.Linear(144, 4)),
    "three": lambda: Written(three, stem=conv(3, 8), first=conv(8, 8), second=conv(8, 8), head=nn.Linear(288, 4)),
    "joined": lambda: Written(
        joined, stem=conv(3, 8), left=conv(8, 4), right=conv(8, 4), second=conv(8, 8), head=nn.Linear(288, 4)
    ),
    "fully connected": lambda: Written(
        lambda net, x: net.head(torch.relu(net.second(hidden := torch.relu(net.first(x.flatten(1)))) + hidden)),
        first=nn.Linear(108, 16),
        second=nn.Linear(16, 16),
        head=nn.Linear(16, 4),
    ),
}
"""Networks without a count of spikes, which shared scales make pure."""

COUNTED = {
    "behind": lambda: Written(behind, stem=conv(3, 8), first=conv(8, 8), second=conv(8, 8), head=nn.Linear(288, 4))
}


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(0)
    return torch.rand(24, 3, 6, 6)


def scalers_inside(snn: nn.Module) -> list[str]:
    """Scalers that do not only scale an answer."""
    graph: Any = snn
    return [
        node.target
        for node in graph.graph.nodes
        if node.op == "call_module"
        and isinstance(snn.get_submodule(node.target), Scaler)
        and any(user.op != "output" for user in node.users)
    ]


class Largest(Observer):
    """Twice the largest activation: nothing saturates, even below the mean of several scales."""

    def __init__(self, site: CalibrationSite) -> None:
        super().__init__(site)
        self.largest = torch.zeros(())

    def observe(self, x: Tensor) -> None:
        """Keep the largest value."""
        self.largest = torch.maximum(self.largest, x.max())

    def merge(self, other: Observer) -> None:
        """Keep the larger one."""
        self.observe(other.scale() / 2)

    def scale(self) -> Tensor:
        """Twice that."""
        return 2 * self.largest


class Roomy(Normalization):
    """A mode with room above."""

    name = "roomy"

    def observer(self, site: CalibrationSite) -> Observer:
        """One for the site."""
        return Largest(site)


@pytest.mark.parametrize("name", {**NETWORKS, **COUNTED})
def test_the_answer_is_that_of_the_ann(name: str, x: Tensor) -> None:
    ann = randomized({**NETWORKS, **COUNTED}[name]())
    snn = convert(ann, x, mode=Roomy(), shared_scales=True)
    assert relative_error(simulate(snn, x, T=600), ann(x)) < 0.06


@pytest.mark.parametrize("channel_wise", [True, False])
@pytest.mark.parametrize("name", {**NETWORKS, **COUNTED})
def test_no_scaler_is_left(name: str, channel_wise: bool, x: Tensor) -> None:
    ann = randomized({**NETWORKS, **COUNTED}[name]())
    apart = convert(ann, x, channel_wise=channel_wise)
    shared = convert(ann, x, channel_wise=channel_wise, shared_scales=True)
    assert scalers_inside(apart)
    assert not scalers_inside(shared)


@pytest.mark.parametrize(
    ("weights", "channel_wise"), [("int4", True), ("int8", True), ("int8", False), ("int16", True)]
)
@pytest.mark.parametrize("name", NETWORKS)
def test_residual_networks_of_integers_become_pure(name: str, channel_wise: bool, weights: str, x: Tensor) -> None:
    ann = randomized(NETWORKS[name]())
    options = {"channel_wise": channel_wise, "weights": weights, "initial_potential": 0.5}
    apart = convert(ann, x, **options)
    if weights != "int16":  # shortcuts have 16 bits, which may be as few as the weights have then
        assert any("shared_scales=True" in str(one) for one in apart.obstacles)
    snn = convert(ann, x, shared_scales=True, **options)
    assert snn.obstacles == ()
    assert snn.is_pure
    run = assert_agrees(snn, x[:2], steps=6)
    assert all(spikes.any() for spikes in run.spikes.values())


@needs_compiler
@pytest.mark.parametrize("name", {**NETWORKS, **COUNTED})
def test_c_adds_the_spikes_of_shortcuts(name: str, x: Tensor, tmp_path: Path) -> None:
    ann = randomized({**NETWORKS, **COUNTED}[name]())
    snn = convert(ann, x, channel_wise=True, shared_scales=True, weights="int8")
    assert_c_agrees(snn, (x[:2],), 7, tmp_path)


def test_a_layer_that_reads_a_sum_of_spikes_is_named(x: Tensor) -> None:
    snn = convert(COUNTED["behind"]().eval(), x, shared_scales=True, weights="int8")
    (obstacle,) = snn.obstacles
    assert "a sum passes counts of up to 2 spikes on" in str(obstacle)
    assert "to each of its branches" in obstacle.remedy
    assert_agrees(snn, x[:2], steps=9)


@pytest.mark.parametrize("mode", ["max", "99%", 0.5])
def test_the_shared_scale_is_the_mean_of_each_channel(mode: Any, x: Tensor) -> None:
    ann = NETWORKS["identity"]().eval()
    units = []
    for shared in (False, True):
        snn = convert(ann, x, mode=mode, channel_wise=True, shared_scales=shared)
        sites = snn.meta["ann2snn_conversion"]["sites"].values()
        units.append({one["name"]: one["unit"].flatten() for one in sites})
    apart, shared = units
    stream = [name for name in apart if name == "1" or name.endswith("#2")]
    assert len(stream) == 3
    wanted = torch.stack([apart[name] for name in stream]).mean(0)
    for name in stream:
        torch.testing.assert_close(shared[name], wanted)
    for name in set(apart) - set(stream):
        assert torch.equal(shared[name], apart[name])


def test_a_shared_scale_stays_below_every_upper_bound(x: Tensor) -> None:
    torch.manual_seed(1)
    ann = Written(
        lambda net, x: net.head(torch.relu(net.second(hidden := net.bounded(net.first(x))) + 2 * net.other(hidden))),
        first=conv(3, 8),
        bounded=nn.ReLU6(),
        second=conv(8, 8),
        other=nn.Identity(),
        head=nn.Flatten(),
    ).eval()
    converter = Converter([x * 30], shared_scales=True, progress=False)
    converter(ann)
    assert all(high <= 6 for _, high in converter.report.scales.values())


def test_two_activations_of_one_sum_share_its_scale(x: Tensor) -> None:
    ann = Written(
        lambda net, x: net.a(torch.relu(y := net.stem(x)).flatten(1)) + net.b(net.bounded(y).flatten(1)),
        stem=conv(3, 4),
        bounded=nn.ReLU(),
        a=nn.Linear(144, 3),
        b=nn.Linear(144, 3),
    ).eval()
    with torch.no_grad():
        wanted = ann(x)
    snn = convert(ann, x, shared_scales=True, channel_wise=True, weights="int8")
    assert snn.is_pure
    assert relative_error(simulate(snn, x, T=300), wanted) < 0.05


class Raised(Correction):
    """Gives every neuron another λ."""

    name = "raised"

    def correct(self, trial: Trial) -> None:
        """Raise the scale of each layer by another factor."""
        for number, site in enumerate(trial.sites):
            trial.adjust(site.name, scale=site.scale * (1 + number / 10))


@pytest.mark.parametrize("channel_wise", [True, False])
def test_scales_that_a_correction_changes_stay_shared(channel_wise: bool, x: Tensor) -> None:
    ann, options = NETWORKS["identity"]().eval(), {"channel_wise": channel_wise, "shared_scales": True}
    before, after = (convert(ann, x, corrections=one, **options) for one in ((), Raised()))
    assert not scalers_inside(after)
    units = [list(snn.meta["ann2snn_conversion"]["sites"].values()) for snn in (before, after)]
    for one, other in zip(*units, strict=True):
        if one["name"] in ("1", "2.relu#2", "3.relu#2"):  # their own factors are 1, 1.2 and 1.4
            torch.testing.assert_close(other["unit"], one["unit"] * 1.2)


def test_networks_without_sums_are_as_before(x: Tensor) -> None:
    ann = nn.Sequential(*stem(), conv(8, 8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)).eval()
    one, other = (convert(ann, x, channel_wise=True, shared_scales=shared) for shared in (False, True))
    assert torch.equal(simulate(one, x, T=9), simulate(other, x, T=9))


@pytest.mark.parametrize("value", [None, 1, "yes"])
def test_anything_but_a_flag_is_refused(value: Any) -> None:
    with pytest.raises(OptionError, match=r"shared_scales=.* is not allowed"):
        Converter([torch.rand(2, 3)], shared_scales=value)


def test_the_report_and_the_advice_know_of_it(x: Tensor) -> None:
    ann = NETWORKS["identity"]().eval()
    converter = Converter([x], shared_scales=True, channel_wise=True, progress=False)
    snn = converter(ann)
    assert converter.report.settings["shared_scales"] is True
    assert snn.meta["ann2snn_conversion"]["call"]["shared_scales"] is True
    labels = ann(x).argmax(1)
    assert evaluate(snn, [(x, labels)], T=64, progress=False).accuracy[-1] > 0.8
    found = diagnose(ann, snn, [(x, labels)], T=8)
    assert all("shared_scales=True" in one.call for one in found.advice if "Converter(" in (one.call or ""))


def test_the_normalized_network_computes_what_the_ann_computes(x: Tensor) -> None:
    ann = randomized(NETWORKS["projection"]())
    normalized = Converter([x], shared_scales=True, channel_wise=True, progress=False).normalize(ann)
    assert relative_error(normalized(x), ann(x)) < 1e-4
