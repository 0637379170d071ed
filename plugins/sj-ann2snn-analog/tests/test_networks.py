"""Small networks of every family through the converter."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from sj_ann2snn_analog import TemporalDifference
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from sj_ann2snn import (
    Converter,
    InPlaceNeuron,
    NeuronMaker,
    NeuronSite,
    NoSpikesWarning,
    UnsupportedError,
    evaluate,
    simulate,
)

OWN = "sj-ann2snn-analog"
LABEL = "temporal difference"


class Rounding(InPlaceNeuron):
    """The rounded ReLU of the summed currents: never takes back more than it gave.

    Args:
        most: Spikes in a step on average, at the most.
    """

    def __init__(self, most: float = math.inf) -> None:
        super().__init__()
        self.most = most
        self.register_memory("steps", 0)
        self.register_memory("emitted", None)

    def start(self, x: Tensor) -> None:
        super().start(x)
        self.emitted = torch.zeros_like(x)

    def step(self, x: Tensor, out: Tensor) -> None:
        self.v += x
        self.steps += 1
        torch.round(self.v.clamp(min=0, max=self.most * self.steps), out=out)
        out -= self.emitted
        self.emitted += out


class RoundingMaker(NeuronMaker):
    """Twenty levels of spikes: what error is left tells a mistake from the rounding of rates."""

    name = "rounding"

    def unit(self, scale: Tensor) -> Tensor:
        return scale / 20

    def make(self, site: NeuronSite) -> nn.Module:
        if site.maximum is None:
            return Rounding()
        return Rounding(float((site.maximum / self.unit(site.scale)).min()))


class Squeeze(nn.Module):
    """Convolutions with an activation and a squeeze-excitation gate."""

    def __init__(self, activation: nn.Module, gate: nn.Module, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(2, 6, 3), nn.Conv2d(6, 6, 3, padding=1)
        self.norm, self.first, self.act = norm or nn.BatchNorm2d(6), nn.ReLU(), activation
        self.reduce, self.expand, self.gate = nn.Conv2d(6, 3, 1), nn.Conv2d(3, 6, 1), gate
        self.project, self.head = nn.Conv2d(6, 6, 1), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.stem(x))
        h = self.act(self.norm(self.conv(x)))
        gate = self.gate(self.expand(self.act(self.reduce(F.adaptive_avg_pool2d(h, 1)))))
        return self.head((self.project(gate * h) + x).mean((2, 3)))


class Next(nn.Module):
    """A ConvNeXt block: depthwise convolution, LayerNorm over permuted channels, GELU, scaled branch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 6, 2, stride=2), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, groups=6))
        self.norm, self.wide, self.narrow = nn.LayerNorm(6, eps=1e-6), nn.Linear(6, 12), nn.Linear(12, 6)
        self.scale, self.head = nn.Parameter(torch.full((6, 1, 1), 0.5)), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        h = self.norm(self.block(x).permute(0, 2, 3, 1))
        h = self.narrow(F.gelu(self.wide(h), approximate="tanh")).permute(0, 3, 1, 2)
        h = self.scale * h
        h += x
        h = F.layer_norm(h.mean((2, 3)), (6,), self.norm.weight, self.norm.bias)
        return self.head(h)


class Transformer(nn.Module):
    """Patches, a class token, attention and a perceptron, in pre-norm blocks."""

    def __init__(self, attention: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(2, 8, 2, stride=2), nn.Parameter(torch.randn(1, 1, 8))
        self.norm1, self.attention, self.norm2 = nn.LayerNorm(8), attention, nn.LayerNorm(8)
        self.mlp = nn.Sequential(nn.Linear(8, 16), activation, nn.Dropout(0.1), nn.Linear(16, 8))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.patches(x)).flatten(2).permute(0, 2, 1)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1)
        x = x + self.attention(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return self.head(x[:, 0])


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.inner(x, x, x, need_weights=False)
        return out


class ByHand(nn.Module):
    """Attention written out; `mix` takes queries, keys and values ``[N, heads, L, E]``."""

    def __init__(self, mix: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.qkv, self.project, self.mix = nn.Linear(8, 24), nn.Linear(8, 8), mix

    def forward(self, x: Tensor) -> Tensor:
        n, tokens = x.shape[0], x.shape[1]
        q, k, v = self.qkv(x).view(n, tokens, 3, 2, 4).permute(0, 2, 3, 1, 4).unbind(1)
        return self.project(self.mix(q, k, v).transpose(1, 2).reshape(n, tokens, 8))


def softmax_by_hand(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = (q * 0.5 @ k.transpose(-2, -1)).exp()
    return (weights / weights.sum(-1, keepdim=True)) @ v


def masked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = torch.einsum("nhid,nhjd->nhij", q, k)
    earlier = torch.ones(10, 10).triu() == 0
    return scores.masked_fill(earlier, -torch.inf).softmax(-1).matmul(v)


def cosine(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
    return F.softmax(scores * 3, dim=-1) @ v


class Window(nn.Module):
    """torchvision's shifted window attention and merging of patches."""

    def __init__(self) -> None:
        super().__init__()
        swin = pytest.importorskip("torchvision.models.swin_transformer", exc_type=(ImportError, RuntimeError))
        self.patches = nn.Conv2d(2, 8, 2, stride=2, padding=1)
        self.attention = swin.ShiftedWindowAttention(8, [2, 2], [1, 1], 2)
        self.merge, self.head = swin.PatchMerging(8), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.patches(x)).permute(0, 2, 3, 1)
        return self.head(self.merge(x + self.attention(x)).mean((1, 2)))


NETWORKS = [
    pytest.param(lambda: Squeeze(nn.ReLU(), nn.Sigmoid()), {"Sigmoid", "operator.mul"}, id="regnet-y"),
    pytest.param(
        lambda: Squeeze(nn.Hardswish(inplace=True), nn.Hardsigmoid()),
        {"Hardswish", "Hardsigmoid", "operator.mul"},
        id="mobilenet-v3",
    ),
    pytest.param(lambda: Squeeze(nn.SiLU(), nn.Hardtanh(-0.5, 1.5)), {"SiLU", "Hardtanh"}, id="efficientnet"),
    pytest.param(lambda: Squeeze(nn.Mish(), nn.Tanh()), {"Mish", "Tanh"}, id="mish"),
    pytest.param(
        lambda: Squeeze(nn.ReLU(), nn.Softplus(), nn.GroupNorm(2, 6)), {"GroupNorm", "Softplus"}, id="groupnorm"
    ),
    pytest.param(Next, {"LayerNorm", "torch.nn.functional.gelu", "torch.nn.functional.layer_norm"}, id="convnext"),
    pytest.param(lambda: Transformer(Whole(), nn.GELU()), {"LayerNorm", "MultiheadAttention", "GELU"}, id="vit"),
    pytest.param(
        lambda: Transformer(ByHand(F.scaled_dot_product_attention), nn.ReLU()),
        {"LayerNorm", "torch.nn.functional.scaled_dot_product_attention"},
        id="scaled-dot-product",
    ),
    pytest.param(
        lambda: Transformer(ByHand(softmax_by_hand), nn.ReLU()),
        {"LayerNorm", "operator.matmul", "Tensor.exp", "operator.truediv"},
        id="softmax-by-hand",
    ),
    pytest.param(lambda: Transformer(ByHand(masked), nn.ELU()), {"Tensor.softmax"}, id="masked"),
    pytest.param(
        lambda: Transformer(ByHand(cosine), nn.ReLU()), {"torch.nn.functional.normalize"}, id="cosine-attention"
    ),
    pytest.param(
        Window,
        {
            "torchvision.models.swin_transformer.shifted_window_attention",
            "torchvision.models.swin_transformer._patch_merging_pad",
        },
        id="swin",
    ),
]
FAMILIES = pytest.mark.parametrize("network", [pytest.param(one.values[0], id=one.id) for one in NETWORKS])


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


def made(network: Callable[[], nn.Module]) -> tuple[nn.Module, Tensor]:
    ann = network().eval()
    return ann, torch.randn(8, 2, 6, 6)


def relative_error(got: Tensor, wanted: Tensor) -> float:
    return float((got - wanted).norm() / wanted.norm())


@FAMILIES
def test_networks_follow_their_ann(network: Callable[[], nn.Module]) -> None:
    ann, x = made(network)
    converter = Converter([x], mode="max", neuron=RoundingMaker(), progress=False)
    snn = converter(ann)
    analog = [entry for entry in converter.report if entry.analog]
    assert analog
    assert {entry.becomes for entry in analog} == {LABEL}
    assert all(entry.exact and entry.owner.startswith(OWN) for entry in analog)
    assert converter.report.scales
    with torch.no_grad():
        wanted = ann(x)
    few, many = (relative_error(simulate(snn, x, T=steps), wanted) for steps in (10, 200))
    assert many < 0.01
    assert many < few / 4


@FAMILIES
@pytest.mark.parametrize("channel_wise", [False, True])
def test_neurons_may_stand_behind_smooth_activations(network: Callable[[], nn.Module], channel_wise: bool) -> None:
    ann, x = made(network)
    converter = Converter([x], neuron=RoundingMaker(), channel_wise=channel_wise, analog_neuron=True, progress=False)
    snn = converter(ann)
    with torch.no_grad():
        wanted = ann(x)
    few, many = (relative_error(simulate(snn, x, T=steps), wanted) for steps in (10, 200))
    assert many < 0.02
    assert many < few / 4


@FAMILIES
def test_layer_wise_run_equals_the_hand_written_loop(network: Callable[[], nn.Module]) -> None:
    ann, x = made(network)
    ann, x = ann.double(), x.double()
    # No current is exactly a threshold, where the last digit of a sum would decide about a spike.
    snn = Converter([1.37 * x], progress=False)(ann)
    steps = 15
    functional.reset_net(snn)
    with torch.no_grad():
        loop = sum(snn(x) for _ in range(steps)) / steps
        functional.reset_net(snn)
        functional.set_step_mode(snn, "m")
        multi = snn(x.expand(steps, *x.shape)).mean(0)
    functional.reset_net(snn)
    functional.set_step_mode(snn, "s")
    torch.testing.assert_close(simulate(snn, x, T=steps), loop)
    torch.testing.assert_close(multi, loop)
    assert not any(module.steps for module in snn.modules() if isinstance(module, TemporalDifference))


@pytest.mark.parametrize(("network", "refused"), [pytest.param(*one.values, id=one.id) for one in NETWORKS])
def test_without_the_plugin_they_are_refused_with_the_list(
    network: Callable[[], nn.Module], refused: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, x = made(network)
    monkeypatch.setenv("SJ_ANN2SNN_DISABLE_PLUGINS", OWN)
    with pytest.raises(UnsupportedError) as caught:
        Converter([x], progress=False)(ann)
    assert refused <= {problem.operation for problem in caught.value.problems}


def test_samples_may_leave_early() -> None:
    ann, x = made(lambda: Squeeze(nn.Hardswish(), nn.Sigmoid()))
    x = torch.randn(40, 2, 6, 6)
    with torch.no_grad():
        labels = ann(x).argmax(1)
    snn = Converter([x], neuron=RoundingMaker(), progress=False)(ann)
    full = evaluate(snn, [(x, labels)], T=60, progress=False)
    early = evaluate(snn, [(x, labels)], T=60, early_exit=0.5, progress=False)
    assert full.accuracy[-1] == 1.0
    assert early.steps_per_sample < 60
    # A sample that stays sees its own memory only, whoever has left.
    alone = [
        evaluate(snn, [(x[i : i + 1], labels[i : i + 1])], T=60, early_exit=0.5, progress=False) for i in range(40)
    ]
    assert early.steps_per_sample == pytest.approx(sum(one.steps_per_sample for one in alone) / 40)
    assert early.accuracy[-1] == pytest.approx(sum(one.accuracy[-1] for one in alone) / 40)


SMOOTH = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 3))


def test_a_network_in_which_nothing_spikes_says_so() -> None:
    x = torch.randn(6, 4)
    converter = Converter([x], progress=False)
    assert converter.check(SMOOTH).convertible
    with pytest.warns(NoSpikesWarning, match=rf"No layer of the converted network spikes.*{OWN}.*2 operation"):
        snn = converter(SMOOTH)
    assert str(converter.report).endswith("computed on analog values, without spikes: 1, 2; no layer spikes")
    with torch.no_grad():
        torch.testing.assert_close(simulate(snn, x, T=5), SMOOTH(x))
        # Its input may vary over time, and then its mean counts.
        frames = torch.randn(9, 6, 4)
        functional.reset_net(snn)
        torch.testing.assert_close(sum(snn(frame) for frame in frames) / 9, SMOOTH(frames.mean(0)))
    functional.reset_net(snn)
    assert evaluate(snn, [(x, SMOOTH(x).argmax(1))], T=3, progress=False).accuracy == (1.0, 1.0, 1.0)


def test_neurons_behind_activations_are_reported() -> None:
    x = torch.randn(60, 4)
    converter = Converter([x], analog_neuron=True, progress=False)
    snn = converter(SMOOTH)
    # In front of the first neuron nothing varies, so the operation itself is exact.
    assert converter.report["1"].becomes == "itself, then difference of two if neurons"
    assert not converter.report["1"].analog
    assert converter.report["2"].becomes == f"{LABEL}, then difference of two if neurons"
    assert converter.report["2"].analog
    assert str(converter.report).endswith("without spikes: 2")
    with torch.no_grad():
        assert relative_error(simulate(snn, x, T=600), SMOOTH(x)) < 0.02
    spikes = evaluate(snn, [(x, torch.zeros(60, dtype=torch.int64))], T=20, progress=False).spikes_per_sample
    assert spikes > 0


def test_products_and_clamps_of_the_core_stay_what_they_are() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.clamp(self.one(x), 0, 6)
            h = F.relu6(self.two(h * 2 / 3)) @ self.one.weight
            return h.clamp(min=0) * x / x.square().add(1)

    x = torch.randn(40, 4)
    converter = Converter([x], neuron=RoundingMaker(), progress=False)
    snn, ann = converter(Net()), Net()
    assert not any(entry.analog for entry in converter.report)
    assert "clamp" in str(converter.report)
    snn = converter(ann)
    with torch.no_grad():
        assert relative_error(simulate(snn, x, T=300), ann(x)) < 0.01


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        pytest.param(
            lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.2), "a dropout of 0.2 is fixed", id="dropout"
        ),
        pytest.param(lambda x: torch.div(x, 1 + x, rounding_mode="floor"), "it rounds", id="rounding"),
        pytest.param(lambda x: x / x.norm(), "samples|two samples", id="mixing"),
    ],
)
def test_what_cannot_be_exact_is_refused(operation: Callable[[Tensor], Tensor], reason: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return operation(torch.relu(self.layer(x)))

    with pytest.raises(UnsupportedError, match=reason):
        Converter([torch.randn(6, 5, 4)], progress=False)(Net())


def test_mobilenet_of_torchvision() -> None:
    models = pytest.importorskip("torchvision.models", exc_type=(ImportError, RuntimeError))
    ann = models.mobilenet_v3_small(weights=None, num_classes=10)
    x = torch.randn(16, 3, 32, 32)
    for module in ann.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        ann.train()(x)
        wanted = ann.eval()(x[:2])
    converter = Converter([x], mode="max", channel_wise=True, neuron=RoundingMaker(), progress=False)
    snn = converter(ann)
    assert sum(entry.analog for entry in converter.report) == 36
    few, many = (relative_error(simulate(snn, x[:2], T=steps), wanted) for steps in (16, 256))
    assert many < min(0.05, few / 4)
