"""`Analog`: modules with memory that read several arguments in the ANN's units and do not spike."""

from __future__ import annotations

import operator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import base
from torch import Tensor, fx, nn

from sj_ann2snn import (
    Analog,
    Converter,
    Correction,
    LayerMapper,
    NoSpikesWarning,
    PluginError,
    Product,
    Replacement,
    Site,
    Spike,
    Stateful,
    Trial,
    UnsupportedError,
    Varies,
    VerificationError,
    evaluate,
    simulate,
)

from ..helpers.networks import GradedMaker, Written, multi_step, relative_error, run_by_hand, scalers, using_threads
from ..helpers.plugins import plugin

LABEL = "accumulation"


class Accumulating(base.MemoryModule):
    """Emits the growth of t times the operation on the mean inputs; tensors are positional arguments."""

    def __init__(self, operation: Any, sequences: tuple[int, ...]) -> None:
        super().__init__()
        self.operation, self.sequences = operation, sequences
        self.register_memory("steps", 0)
        self.register_memory("sums", None)
        self.register_memory("total", 0.0)

    def single_step_forward(self, *args: Any, **kwargs: Any) -> Tensor:
        positions, mixed = self._positions(args), list(args)
        self.steps += 1
        self.sums = [args[at] + (self.sums[i] if self.sums else 0.0) for i, at in enumerate(positions)]
        for at, total in zip(positions, self.sums, strict=True):
            mixed[at] = total / self.steps
        run = self.operation
        value = getattr(mixed[0], run)(*mixed[1:], **kwargs) if isinstance(run, str) else run(*mixed, **kwargs)
        out, self.total = value * self.steps - self.total, value * self.steps
        return out

    def multi_step_forward(self, *args: Any, **kwargs: Any) -> Tensor:
        positions = self._positions(args)
        steps = range(len(args[positions[0]]))
        return torch.stack(
            [
                self.single_step_forward(*(a[t] if at in positions else a for at, a in enumerate(args)), **kwargs)
                for t in steps
            ]
        )

    def _positions(self, args: tuple[Any, ...]) -> list[int]:
        found = [at for at, argument in enumerate(args) if isinstance(argument, Tensor)]
        return [found[position] for position in self.sequences]


class Own(LayerMapper):
    """Everything that these tests use of what no neuron can do; products and sigmoids of the core included."""

    name = "own-analog"
    claims = (nn.Sigmoid, nn.GELU, nn.LayerNorm, operator.mul, F.layer_norm, torch.exp, "exp")
    replaces = ("product",)
    answer: Replacement = Analog(Accumulating, LABEL)

    def map(self, site: Site) -> Replacement:
        varying = sum(value.varies is Varies.VARYING for value in site.values)
        return Product() if site.operation is operator.mul and varying < 2 else self.answer


def answering(replacement: Replacement) -> Any:
    return plugin("ann2snn_layer_mappers", type("Answering", (Own,), {"answer": replacement}))


def converter(x: Tensor, contributed: Any = None, **options: Any) -> Converter:
    return Converter([x], plugins=[contributed or plugin("ann2snn_layer_mappers", Own)], progress=False, **options)


class Gated(nn.Module):
    """Two streams of spikes, each with a scale of its own, are multiplied; the product feeds a neuron and a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = nn.Conv2d(2, 5, 3), nn.Conv2d(5, 5, 1), nn.Conv2d(5, 5, 1)
        self.squeeze, self.gate = nn.AdaptiveAvgPool2d(1), nn.Sigmoid()
        self.after, self.head = nn.Conv2d(5, 5, 1), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.stem(x))
        branch = torch.relu(self.one(h)) * self.gate(4 * self.two(self.squeeze(h)))
        return self.head((torch.relu(self.after(branch)) + branch).exp().mean((2, 3)))


def images(count: int = 12) -> Tensor:
    return 3 * torch.randn(count, 2, 6, 6, dtype=torch.float64)


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("channel_wise", [False, True])
def test_reads_and_answers_in_the_units_of_the_ann(channel_wise: bool) -> None:
    ann, x = Gated().double(), images()
    with torch.no_grad():
        wanted = ann(x)
        normalized = converter(x, channel_wise=channel_wise).normalize(ann)
        assert relative_error(normalized(x), wanted) < 1e-12
        snn = converter(x, channel_wise=channel_wise, neuron=GradedMaker(levels=100))(ann)
        few, many = (relative_error(simulate(snn, x, T=steps), wanted) for steps in (5, 100))
    assert many < few / 5
    assert many < 1e-3
    # A scale on either side of every product, since none goes through it.
    assert scalers(snn)


@pytest.mark.parametrize("threads", [1, 3])
def test_every_way_of_running_agrees(threads: int) -> None:
    ann, x = Gated().double(), images(30)
    snn = converter(1.3 * x)(ann)
    loop = run_by_hand(snn, x, 20)
    torch.testing.assert_close(multi_step(snn, x, 20), loop)
    with using_threads(threads):
        torch.testing.assert_close(simulate(snn, x, T=20), loop.mean(0))


MARGIN = 12.0


def test_rows_leave_its_memory_with_their_samples() -> None:
    ann, x = Gated().double(), images(30)
    snn = converter(1.3 * x)(ann)
    labels = torch.randint(3, (30,))
    together = evaluate(snn, [(x, labels)], T=30, early_exit=MARGIN, progress=False)
    alone = [
        evaluate(snn, [(x[i : i + 1], labels[i : i + 1])], T=30, early_exit=MARGIN, progress=False) for i in range(30)
    ]
    steps = [one.steps_per_sample for one in alone]
    assert len(set(steps)) > 1
    assert together.steps_per_sample == pytest.approx(sum(steps) / 30)
    assert together.accuracy[-1] == pytest.approx(sum(one.accuracy[-1] for one in alone) / 30)


def test_parameters_and_static_values_may_stand_among_its_arguments() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.weight = nn.Linear(4, 4), nn.Parameter(torch.rand(4))

        def forward(self, x: Tensor) -> Tensor:
            h = F.layer_norm(torch.relu(self.layer(x)), (4,), self.weight, eps=1e-3)
            return h * x * self.weight

    class Always(Own):
        def map(self, site: Site) -> Replacement:
            return self.answer

    ann, x = Net().double(), torch.randn(20, 4, dtype=torch.float64)
    snn = converter(x, plugin("ann2snn_layer_mappers", Always))(ann)
    made = [module for module in snn.modules() if isinstance(module, Accumulating)]
    assert [one.sequences for one in made] == [(0,), (0, 1), (0,)]
    torch.testing.assert_close(multi_step(snn, x, 9), run_by_hand(snn, x, 9))
    with torch.no_grad():
        assert relative_error(simulate(snn, x, T=600), ann(x)) < 0.02


def test_where_nothing_varies_the_operation_stays() -> None:
    ann = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.GELU())
    made = converter(x := torch.randn(40, 4))
    snn = made(ann)
    assert [made.report[name].becomes for name in ("1", "5")] == ["itself", LABEL]
    assert [made.report[name].analog for name in ("1", "5")] == [False, True]
    assert sum(isinstance(module, Accumulating) for module in snn.modules()) == 1
    with torch.no_grad():
        assert relative_error(simulate(snn, x, T=400), ann(x)) < 0.02


def test_the_report_says_that_it_does_not_spike() -> None:
    made = converter(images())
    check = made.check(Gated().double())
    made(Gated().double())
    line = "computed on analog values, without spikes: gate, mul#2, exp"
    assert str(made.report).splitlines()[-1] == line
    assert line in str(check)
    assert check.convertible
    assert [entry["name"] for entry in made.report.as_dict()["entries"] if entry["analog"]] == ["gate", "mul#2", "exp"]


# A neuron behind it -------------------------------------------------------------------------------------


class Behind(nn.Module):
    def __init__(self, operation: nn.Module) -> None:
        super().__init__()
        self.one, self.operation, self.two = nn.Linear(4, 5), operation, nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.operation(torch.relu(self.one(x))))


BOTH_SIGNS = answering(Spike(negative_slope=1.0, analog=Analog(Accumulating, LABEL)))
ONE_SIGN = answering(Spike(analog=Analog(Accumulating, LABEL)))


@pytest.mark.parametrize("channel_wise", [False, True])
@pytest.mark.parametrize(
    ("operation", "answer", "neurons"),
    [
        pytest.param(nn.LayerNorm(5), BOTH_SIGNS, "difference of two graded neurons", id="both-signs"),
        pytest.param(nn.Sigmoid(), ONE_SIGN, "graded neuron", id="one-sign"),
    ],
)
def test_a_neuron_may_stand_behind_it(operation: nn.Module, answer: Any, neurons: str, channel_wise: bool) -> None:
    ann, x = Behind(operation).double(), torch.randn(30, 4, dtype=torch.float64)
    made = converter(x, answer, channel_wise=channel_wise, neuron=GradedMaker(levels=100))
    snn = made(ann)
    entry = made.report["operation"]
    assert entry.becomes == f"{LABEL}, then {neurons}"
    assert entry.analog
    with torch.no_grad():
        largest = operation(torch.relu(ann.one(x))).abs()
        largest = largest.amax(0) if channel_wise else largest.amax()
        assert entry.scale == pytest.approx((float(largest.min()), float(largest.max())))
        few, many = (relative_error(simulate(snn, x, T=steps), ann(x)) for steps in (4, 60))
    assert many < few / 4
    assert many < 1e-3
    torch.testing.assert_close(multi_step(snn, x, 9), run_by_hand(snn, x, 9))


def test_in_front_of_the_first_neuron_the_operation_itself_drives_the_neuron() -> None:
    ann, x = nn.Sequential(nn.Linear(4, 5), nn.GELU(), nn.Linear(5, 3)), torch.randn(50, 4)
    made = converter(x, BOTH_SIGNS)
    snn = made(ann)
    assert made.report["1"].becomes == "itself, then difference of two if neurons"
    assert not made.report["1"].analog
    assert not any(isinstance(module, Accumulating) for module in snn.modules())
    with torch.no_grad():
        assert relative_error(simulate(snn, x, T=500), ann(x)) < 0.02


def test_neurons_that_cannot_carry_what_it_yields_are_noticed() -> None:
    with pytest.raises(VerificationError, match="relative error"):
        converter(torch.randn(30, 4), ONE_SIGN)(Behind(nn.LayerNorm(5)))


class Shaking(Correction):
    """Gives every neuron another scale, bias and initial potential, and keeps what the network answered on trial."""

    name = "shaking"

    def __init__(self) -> None:
        self.tried = torch.empty(0)

    def correct(self, trial: Trial) -> None:
        for site in trial.sites:
            drawn = torch.rand(3, site.channels, dtype=torch.float64)
            trial.adjust(site.name, scale=0.8 + drawn[0], bias=0.3 * drawn[1], initial_potential=drawn[2])
        self.tried = trial.run(trial.inputs(), 13)


@pytest.mark.parametrize("operation", [nn.Sequential(nn.Linear(5, 5), nn.Sigmoid()), nn.Sigmoid()])
def test_corrections_adjust_the_neurons_behind_it(operation: nn.Module) -> None:
    ann, x, shaking = Behind(operation).double(), torch.randn(30, 4, dtype=torch.float64), Shaking()
    snn = converter(x, ONE_SIGN, mode=0.93, corrections=shaking)(ann)
    torch.testing.assert_close(run_by_hand(snn, x, 13), shaking.tried)
    torch.testing.assert_close(simulate(snn, x, T=13), shaking.tried.mean(0))


def test_an_average_pool_may_have_two_neurons_behind_it() -> None:
    class Pool(Own):
        claims = (nn.AvgPool2d,)
        replaces = ("average-pool",)
        answer = Spike(keep=True, negative_slope=1.0)

    ann = nn.Sequential(nn.Conv2d(2, 3, 3), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 2))
    x = torch.randn(40, 2, 6, 6)
    snn = converter(x, plugin("ann2snn_layer_mappers", Pool))(ann)
    with torch.no_grad():
        assert relative_error(simulate(snn, x, T=500), ann(x)) < 0.02


# Nothing spikes, and what is refused --------------------------------------------------------------------


def test_a_network_in_which_nothing_spikes_converts_with_a_warning() -> None:
    ann, x = nn.Sequential(nn.Linear(4, 5), nn.GELU(), nn.Linear(5, 3)), torch.randn(9, 4)
    made = converter(x)
    assert made.check(ann).convertible
    with pytest.warns(NoSpikesWarning, match=r"your own argument computes 1 operation\(s\) on analog values"):
        snn = made(ann)
    assert str(made.report).endswith("without spikes: 1; no layer spikes")
    with torch.no_grad():
        torch.testing.assert_close(simulate(snn, x, T=7), ann(x))
        # Frames that differ are what its memory is for.
        frames = torch.randn(6, 9, 4)
        torch.testing.assert_close(sum(snn(frame) for frame in frames) / 6, ann(frames.mean(0)))


@pytest.mark.parametrize(
    "answer",
    [Analog(lambda operation, sequences: nn.Identity(), LABEL), Stateful(nn.Identity, LABEL)],
    ids=["analog", "stateful"],
)
def test_a_mapper_that_makes_no_module_with_memory_is_told_so(answer: Replacement) -> None:
    with pytest.raises(
        PluginError,
        match=r"Mapper 'own-analog' \(your own argument\) made Identity\(\) for operation \(GELU\); .* MemoryModule",
    ):
        converter(torch.randn(9, 4), answering(answer), verify=False)(Behind(nn.GELU()))


def test_samples_must_not_be_mixed() -> None:
    ann = Written(lambda net, x: (h := torch.relu(net.layer(x))) * h.mean(0, keepdim=True), layer=nn.Linear(4, 4))
    with pytest.raises(UnsupportedError, match="samples of the batch"):
        converter(torch.randn(9, 4))(ann)


# Functions of somebody's own ----------------------------------------------------------------------------


def first_two(x: Tensor) -> Tensor:
    return x.view(x.size(0), -1)[:, :2]


fx.wrap("first_two")


def test_a_function_that_relies_on_the_memory_layout_gets_its_images_as_the_ann_has_them() -> None:
    ann = Written(
        lambda net, x: net.head(torch.relu(net.conv(x)).mean((2, 3)) + first_two(net.conv(x))),
        conv=nn.Conv2d(3, 2, 3),
        head=nn.Linear(2, 2),
    )
    x = torch.randn(8, 3, 7, 7)
    snn = converter(1.3 * x)(ann)
    torch.testing.assert_close(simulate(snn, x, T=9), run_by_hand(snn, x, 9).mean(0))
