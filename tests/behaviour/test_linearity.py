"""What is not linear in values that vary over time is refused, all of it in one error; what does not vary is free."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sj_ann2snn import Ann2SnnError, ConversionError, Converter, TracingError, UnsupportedError, simulate

from ..helpers.networks import Written, convert, multi_step, refusal, relative_error, run_by_hand


def layers() -> dict[str, nn.Module]:
    return {"one": nn.Linear(4, 6), "two": nn.Linear(6, 6), "head": nn.Linear(6, 3)}


def spiking(operation: Callable[[Any, Tensor, Tensor], Tensor]) -> Written:
    """A network with `operation` on the spikes of two neurons."""

    def forward(net: Any, x: Tensor) -> Tensor:
        h = torch.relu(net.one(x))
        return net.head(torch.relu(operation(net, h, torch.relu(net.two(h)))))

    return Written(forward, **layers())


def line_of(function: Any, offset: int = 0) -> str:
    return f"{__file__}:{function.__code__.co_firstlineno + offset}"


# One operation at a time ----------------------------------------------------------------------------

PRODUCT = "it multiplies two spike streams"
SMOOTH = "it is a smooth curve"
DIVIDES = "it divides by statistics of its current input"
SELECTS = "it selects by values that change with every spike"
WEIGHTS = "its weights would be spikes"
BATCH = "dimension 0"

NONLINEAR: dict[str, tuple[Callable[[Any, Tensor, Tensor], Tensor], str, str]] = {
    "product": (lambda net, h, g: h * g, "mul", PRODUCT),
    "torch.mul": (lambda net, h, g: torch.mul(h, g), "mul", PRODUCT),
    "method mul": (lambda net, h, g: h.mul(g), "mul", PRODUCT),
    "square": (lambda net, h, g: h * h, "mul", PRODUCT),
    "power": (lambda net, h, g: h**2, "pow", SMOOTH),
    "product with a shifted copy": (lambda net, h, g: h * h.roll(1, 1), "mul", PRODUCT),
    "quotient": (lambda net, h, g: h / (g + 1.0), "truediv", PRODUCT),
    "divided by spikes": (lambda net, h, g: 1.0 / (h + 1.0), "truediv", "divides by a spike stream"),
    "parameter over spikes": (lambda net, h, g: net.head.weight[0] / (h + 1.0), "truediv", "divides by a spike stream"),
    "matmul": (lambda net, h, g: (h.unsqueeze(2) @ g.unsqueeze(1)).sum(2), "matmul", PRODUCT),
    "torch.bmm": (lambda net, h, g: torch.bmm(h.unsqueeze(2), g.unsqueeze(1)).sum(2), "bmm", PRODUCT),
    "einsum": (lambda net, h, g: torch.einsum("ni,nj->ni", h, g), "einsum", PRODUCT),
    "spikes as weights": (lambda net, h, g: F.linear(h, g.view(-1, 6)).sum(1, True).expand(-1, 6), "linear", WEIGHTS),
    "sigmoid": (lambda net, h, g: torch.sigmoid(h), "sigmoid", SMOOTH),
    "method tanh": (lambda net, h, g: h.tanh(), "tanh", SMOOTH),
    "F.gelu": (lambda net, h, g: F.gelu(h), "gelu", SMOOTH),
    "exp": (lambda net, h, g: h.exp(), "exp", SMOOTH),
    "sqrt": (lambda net, h, g: torch.sqrt(h), "sqrt", SMOOTH),
    "softmax": (lambda net, h, g: h.softmax(1), "softmax", "not linear over time"),
    "F.log_softmax": (lambda net, h, g: F.log_softmax(h, 1), "log_softmax", "not linear over time"),
    "layer_norm": (lambda net, h, g: F.layer_norm(h, (6,)), "layer_norm", DIVIDES),
    "normalize": (lambda net, h, g: F.normalize(h), "normalize", DIVIDES),
    "maximum": (lambda net, h, g: torch.maximum(h, g), "maximum", SELECTS),
    "amax": (lambda net, h, g: h - h.amax(1, keepdim=True), "amax", SELECTS),
    "sort": (lambda net, h, g: h.sort(1)[0], "sort", SELECTS),
    "where": (lambda net, h, g: torch.where(h > 0.5, h, -h), "where", SELECTS),
    "rounding": (lambda net, h, g: torch.div(h, 2.0, rounding_mode="floor"), "div", "it rounds"),
    "clamp between": (lambda net, h, g: torch.clamp(h, 0.1, 0.5), "clamp", "it clamps to"),
    "unknown": (lambda net, h, g: torch.lgamma(h + 1), "lgamma", "no installed mapper knows it"),
    "mean over all": (lambda net, h, g: h - h.mean(), "mean", "it reduces over all samples of the batch"),
    "sum over the batch": (lambda net, h, g: h - h.sum(0), "sum", BATCH),
    "mean over the batch, kept": (lambda net, h, g: h - h.mean(0, keepdim=True), "mean", BATCH),
    "transposed batch": (lambda net, h, g: (net.two.weight @ h.t()).t(), "t", BATCH),
    "functional dropout": (lambda net, h, g: F.dropout(h, 0.5), "dropout", "it is random even at inference"),
    "random slope": (lambda net, h, g: F.rrelu(h - 0.2, training=True), "rrelu", "draws its slope at random"),
    "slope from spikes": (lambda net, h, g: F.prelu(h - 0.2, g.mean(1)[:1]), "prelu", "slope is computed from"),
    "index by spikes": (lambda net, h, g: net.head.bias[h.long() % 3], "long", "no installed mapper knows it"),
}


@pytest.mark.parametrize("name", NONLINEAR)
def test_what_is_not_linear_is_refused(name: str) -> None:
    operation, shown, why = NONLINEAR[name]
    with pytest.raises(UnsupportedError) as caught:
        convert(spiking(operation), torch.rand(20, 4))
    message = str(caught.value)
    assert "cannot be converted exactly" in message
    assert [f"  - {problem}" for problem in caught.value.problems] == message.splitlines()[1:]
    (line,) = [one for one in message.splitlines() if why in one][:1]
    assert line.startswith(f"  - {shown} (")
    assert line_of(operation) in line
    assert line.endswith(".")


MODULES: dict[str, tuple[nn.Module, str]] = {
    "GroupNorm": (nn.GroupNorm(2, 4), DIVIDES),
    "InstanceNorm2d": (nn.InstanceNorm2d(4), DIVIDES),
    "LocalResponseNorm": (nn.LocalResponseNorm(2), DIVIDES),
    "LayerNorm": (nn.LayerNorm([4, 6, 6]), DIVIDES),
    "Softmax": (nn.Softmax(1), "not linear over time"),
    "Sigmoid": (nn.Sigmoid(), SMOOTH),
    "SiLU": (nn.SiLU(), SMOOTH),
    "Tanh": (nn.Tanh(), SMOOTH),
    "Softplus": (nn.Softplus(), SMOOTH),
    "AdaptiveMaxPool2d": (nn.AdaptiveMaxPool2d(6), "pool"),
    "Threshold": (nn.Threshold(0.5, 0.1), "it jumps from 0.1 to 0.5"),
    "Hardtanh": (nn.Hardtanh(-1.0, 1.0), "it clamps to"),
}


@pytest.mark.parametrize("name", MODULES)
def test_modules_between_spikes(name: str) -> None:
    module, why = MODULES[name]
    ann = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), module, nn.Conv2d(4, 4, 3), nn.ReLU())
    with pytest.raises(UnsupportedError) as caught:
        convert(ann, torch.rand(9, 1, 8, 8))
    assert f"  - 2 ({name})" in str(caught.value)
    assert why in str(caught.value)


# All at once ----------------------------------------------------------------------------------------


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.gate = nn.GroupNorm(2, 4), nn.Sigmoid()

    def forward(self, h: Tensor) -> Tensor:
        return self.norm(h) * self.gate(h)


class Offending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3)
        self.branches = nn.ModuleList([Branch(), Branch()])
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.stem(x))
        for branch in self.branches:
            h = torch.relu(branch(h))
        h = h.mean((2, 3))
        h = h / h.sum(1, keepdim=True)
        return torch.softmax(self.head(h), 1)


def test_one_error_lists_all_of_them_with_names_and_lines() -> None:
    with pytest.raises(UnsupportedError) as caught:
        convert(Offending(), torch.rand(9, 1, 8, 8))
    message = str(caught.value)
    inside, outside = Branch.forward, Offending.forward
    expected = [
        ("branches.0.norm (GroupNorm)", line_of(inside, 1)),
        ("branches.0.gate (Sigmoid)", line_of(inside, 1)),
        ("branches.0.mul (operator.mul)", line_of(inside, 1)),
        ("branches.1.norm (GroupNorm)", line_of(inside, 1)),
        ("branches.1.gate (Sigmoid)", line_of(inside, 1)),
        ("branches.1.mul (operator.mul)", line_of(inside, 1)),
        ("truediv (operator.truediv)", line_of(outside, 5)),
        ("softmax (torch.softmax)", line_of(outside, 6)),
    ]
    first, *lines = message.splitlines()
    assert first == f"{len(expected)} operations of the network cannot be converted exactly:"
    assert len(lines) == len(expected)
    for line, (name, source) in zip(lines, expected, strict=True):
        assert line.startswith(f"  - {name} at {source}: ")
        assert line.count(". ") >= 1  # a reason and what helps
    check = Converter([torch.rand(9, 1, 8, 8)], progress=False).check(Offending())
    assert [(problem.name, problem.source) for problem in check.problems] == [
        (name.split(" ")[0], source) for name, source in expected
    ]


def test_the_same_function_twice_has_two_names() -> None:
    ann = spiking(lambda net, h, g: torch.sigmoid(h) + torch.sigmoid(g))
    with pytest.raises(UnsupportedError, match=r"  - sigmoid \(.*\n  - sigmoid#2 \("):
        convert(ann, torch.rand(9, 4))


def test_what_stands_in_the_way_is_named_even_if_nothing_would_spike() -> None:
    ann = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 3), nn.Softmax(1))
    with pytest.raises(UnsupportedError, match=r"1 \(GELU\)(.|\n)*3 \(Softmax\)"):
        convert(ann, torch.rand(9, 4))


def test_data_dependent_python_values_are_refused() -> None:
    ann = spiking(lambda net, h, g: h * g.select(1, 0).tolist()[0])
    with pytest.raises(ConversionError) as caught:
        convert(ann, torch.rand(20, 4))
    assert "turns spikes into a Python value" in str(caught.value)
    assert line_of(ann.written, 2).split(":")[0] in str(caught.value)


def test_branches_on_values_cannot_be_traced() -> None:
    def operation(net: Any, h: Tensor, g: Tensor) -> Tensor:
        if h.sum() > 0:
            return h
        return g

    with pytest.raises(TracingError, match="cannot trace the forward of Written") as caught:
        convert(spiking(operation), torch.rand(20, 4))
    assert line_of(operation, 1) in str(caught.value)
    assert "may not branch, loop or index on values" in str(caught.value)


# Everything in front of the first neuron is free ----------------------------------------------------

STATIC: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "softmax": lambda y: y.softmax(1),
    "square": lambda y: y * y,
    "square by power": lambda y: y**2,
    "quotient": lambda y: y / (1 + y.exp()),
    "layer_norm": lambda y: F.layer_norm(y, (6,)),
    "group_norm": lambda y: F.group_norm(y, 2),
    "normalize": lambda y: F.normalize(y),
    "amax": lambda y: y - y.amax(1, keepdim=True),
    "where": lambda y: torch.where(y > 0, y, y.sin()),
    "comparison": lambda y: torch.where(y > 0.1, 1.0, 0.0).type_as(y),
    "matmul": lambda y: (y.unsqueeze(2) @ y.unsqueeze(1)).sum(2),
    "sort": lambda y: y.sort(1)[0],
    "gelu": F.gelu,
    "clamp": lambda y: y.clamp(-0.5, 0.5),
    "rounding": lambda y: (y * 4).round() / 4,
    "hardtanh": lambda y: F.hardtanh(y),
}


@pytest.mark.filterwarnings("ignore::sj_ann2snn.NotConvertedWarning")  # that is what is tested
@pytest.mark.parametrize("channel_wise", [False, True])
@pytest.mark.parametrize("name", STATIC)
def test_before_the_first_neuron_everything_is_exact(name: str, channel_wise: bool) -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        return net.head(torch.relu(net.two(STATIC[name](net.one(x)))))

    ann = Written(forward, **layers()).double()
    data = torch.randn(40, 4, dtype=torch.float64)
    converter = Converter([data], channel_wise=channel_wise, progress=False)
    with torch.no_grad():
        assert relative_error(converter.normalize(ann)(data), ann(data)) < 1e-12
    snn = converter(ann)
    by_hand = run_by_hand(snn, data, 500)
    assert relative_error(by_hand.mean(0), ann(data).detach()) < 0.02
    assert relative_error(multi_step(snn, data, 20), by_hand[:20]) < 1e-12
    assert relative_error(simulate(snn, data, T=500), by_hand.mean(0)) < 1e-12


@pytest.mark.parametrize(
    "cast",
    [lambda x: x.float(), lambda x: x.to(torch.float32), lambda x: x.double().float(), lambda x: (x > 0.5).float()],
)
def test_the_input_may_be_cast(cast: Callable[[Tensor], Tensor]) -> None:
    ann = Written(lambda net, x: net.head(torch.relu(net.one(cast(x) / 2))), **layers())
    data = torch.randn(40, 4)
    assert refusal(ann, data, data[:9]) is None


def test_bytes_may_be_cast_to_images() -> None:
    ann = Written(lambda net, x: net.head(torch.relu(net.one(torch.true_divide(x, 255)))), **layers())
    data = torch.randint(0, 256, (40, 4), dtype=torch.uint8)
    assert refusal(ann, data, data[:9]) is None


def test_the_input_may_be_cast_by_type() -> None:
    ann = Written(lambda net, x: net.head(torch.relu(net.one(x.type(torch.float32)))), **layers())
    data = torch.randn(40, 4)
    assert refusal(ann, data, data[:9]) is None


@pytest.mark.parametrize("name", ["sigmoid", "softmax", "square", "layer_norm", "where"])
def test_a_static_gate_on_spikes_is_exact(name: str) -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        current = net.one(x)
        gate = STATIC[name](current)
        return net.head(torch.relu(net.two(torch.relu(current) * gate)) / (1.0 + gate.mean(1, keepdim=True) ** 2))

    ann = Written(forward, **layers()).double()
    data = torch.randn(40, 4, dtype=torch.float64)
    assert refusal(ann, data, data[:9]) is None


def test_the_input_itself_may_be_read_again_behind_neurons() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        h = torch.relu(net.one(x))
        return net.head(torch.relu(net.two(h) + x.repeat(1, 2)[:, :6].sigmoid()) * x.sum(1, keepdim=True))

    ann = Written(forward, **layers()).double()
    data = torch.randn(40, 4, dtype=torch.float64)
    assert refusal(ann, data, data[:9]) is None


# The samples of a batch stay apart ------------------------------------------------------------------

MIXING: dict[str, Callable[[Tensor], Tensor]] = {
    "cumsum": lambda h: h.cumsum(0),
    "flip": lambda h: h.flip(0),
    "roll": lambda h: h.roll(1, 0),
    "roll over all": lambda h: h.roll(8),
    "repeat": lambda h: h.repeat(2, 1),
    "cat": lambda h: torch.cat([h, -h], 0),
    "index": lambda h: h[torch.arange(h.size(0) - 1, -1, -1)],
    "reshape across samples": lambda h: h.t().reshape(-1, 6),
    "batch norm of the batch": lambda h: F.batch_norm(h, None, None, training=True),
    "softmax over the batch": lambda h: h.softmax(0),
    "centred": lambda h: h - h.mean(0),
}
MIXES = "it mixes the samples of a batch"


@pytest.mark.parametrize("name", MIXING)
def test_operations_that_mix_samples_are_refused(name: str) -> None:
    ann = Written(lambda net, x: net.head(MIXING[name](torch.relu(net.one(x)))), **layers()).double()
    data = torch.randn(40, 4, dtype=torch.float64)
    message = refusal(ann, data, data[:9])
    assert message is not None
    assert MIXES in message


@pytest.mark.parametrize("name", MIXING)
def test_static_operations_that_mix_samples_are_refused(name: str) -> None:
    ann = Written(lambda net, x: net.head(torch.relu(MIXING[name](net.one(x)))), **layers()).double()
    data = torch.randn(40, 4, dtype=torch.float64)
    message = refusal(ann, data, data[:9])
    assert message is not None
    assert MIXES in message


@pytest.mark.parametrize("name", ["flip", "roll", "index", "cumsum", "cat"])
def test_mixing_is_found_with_a_single_sample_in_the_first_batch(name: str) -> None:
    ann = Written(lambda net, x: net.head(MIXING[name](torch.relu(net.one(x)))), **layers())
    with pytest.raises(UnsupportedError, match=MIXES):
        convert(ann, list(torch.randn(40, 4).split(1)))


# leaf_modules ---------------------------------------------------------------------------------------


class Opaque(nn.Module):
    """Linear over time, but torch.fx cannot follow it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 6))

    def forward(self, h: Tensor) -> Tensor:
        out = h @ self.weight
        if not torch.isfinite(out).all():
            raise FloatingPointError("not finite")
        return out


class WithOpaque(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.inner, self.head = nn.Linear(4, 6), nn.Sequential(Opaque()), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.inner(torch.relu(self.one(x)))))


@pytest.mark.parametrize("leaf", ["inner.0", "inner"])
@pytest.mark.parametrize("channel_wise", [False, True])
def test_leaf_modules_are_linear_by_the_users_word(leaf: str, channel_wise: bool) -> None:
    ann, data = WithOpaque().double(), torch.randn(40, 4, dtype=torch.float64)
    converter = Converter([data], leaf_modules=[leaf], channel_wise=channel_wise, progress=False)
    with torch.no_grad():
        assert relative_error(converter.normalize(ann)(data), ann(data)) < 1e-12
    snn = converter(ann)
    assert converter.report[leaf].owner == "you"
    by_hand = run_by_hand(snn, data, 500)
    assert relative_error(by_hand.mean(0), ann(data).detach()) < 0.03
    assert relative_error(multi_step(snn, data, 20), by_hand[:20]) < 1e-12


def test_without_the_users_word_it_cannot_be_traced() -> None:
    with pytest.raises(TracingError, match=r"cannot trace 'inner\.0' \(Opaque\)") as caught:
        convert(WithOpaque(), torch.rand(9, 4))
    assert "leaf_modules" in str(caught.value)
    assert line_of(Opaque.forward, 2) in str(caught.value)


def test_a_leaf_that_is_a_layer_of_torch_is_not_taken_apart() -> None:
    ann = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Sigmoid(), nn.Linear(6, 3))
    snn = convert(ann, torch.rand(20, 4), leaf_modules=["2"])
    assert any(isinstance(module, nn.Sigmoid) for module in snn.modules())


def test_an_unknown_leaf_is_an_error_with_close_names() -> None:
    with pytest.raises(Ann2SnnError, match=r"leaf_modules names 'iner\.0', which the network does not have") as caught:
        convert(WithOpaque(), torch.rand(9, 4), leaf_modules=["iner.0"])
    assert "'inner.0'" in str(caught.value)
    with pytest.raises(Ann2SnnError, match=r"See network\.named_modules\(\)"):
        convert(WithOpaque(), torch.rand(9, 4), leaf_modules=["zzzzzz"])
