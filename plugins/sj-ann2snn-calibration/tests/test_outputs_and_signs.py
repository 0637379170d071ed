"""Activations of both signs, several outputs, regressions, several inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from sj_ann2snn_calibration import Joint, LayerByLayer
from sj_ann2snn_calibration.objective import Objective
from sj_ann2snn_calibration.samples import Samples
from torch import Tensor, nn

from sj_ann2snn import Converter, Correction, OptionError, Trial, TrialOutput, simulate

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "LeakyReLU": lambda: nn.LeakyReLU(0.1),
    "PReLU": lambda: nn.PReLU(12),
    "negative slope": lambda: nn.PReLU(12, init=-0.5),
    "ReLU": nn.ReLU,
}


def network(activation: str, outputs: int = 4) -> nn.Module:
    torch.manual_seed(0)
    make = ACTIVATIONS[activation]
    return nn.Sequential(
        nn.Linear(6, 12), make(), nn.Linear(12, 12), make(), nn.Linear(12, 12), make(), nn.Linear(12, outputs)
    ).apply(lively)


def lively(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.kaiming_normal_(module.weight)


def data(seed: int = 1, samples: int = 400) -> Tensor:
    return torch.randn(samples, 6, generator=torch.Generator().manual_seed(seed))


def error(answer: Tensor, wanted: Tensor) -> float:
    return float((answer - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("steps", [4, 8])
def test_low_latency_beats_the_maximum_per_channel(activation: str, steps: int) -> None:
    ann, x = network(activation), data(2)
    wanted = ann(x).detach()
    plain = Converter([data()], mode="max", channel_wise=True, initial_potential=0.5, progress=False)(ann)
    fast = Converter([data()], mode="low-latency", T=steps, progress=False)(ann)
    assert error(simulate(fast, x, steps), wanted) < 0.8 * error(simulate(plain, x, steps), wanted)


@pytest.mark.parametrize("mode", ["99.9%", "99%", 0.7])
@pytest.mark.parametrize("correction", [Joint(T=4), LayerByLayer(T=4)])
def test_corrections_reach_neurons_of_both_signs_whatever_the_mode(mode: Any, correction: Correction) -> None:
    ann, x = network("PReLU"), data(2)
    wanted = ann(x).detach()
    options: dict[str, Any] = {"mode": mode, "channel_wise": True, "initial_potential": 0.5, "progress": False}
    converters = Converter([data()], **options), Converter([data()], corrections=correction, **options)
    before, after = (error(simulate(converter(ann), x, 4), wanted) for converter in converters)
    assert after < 0.98 * before
    assert converters[1].report["1"].scale is not None


class Heads(nn.Module):
    """Returns what `form` makes of two tensors, the first with the scores, the second dense."""

    def __init__(self, form: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.form = form
        self.body, self.act = nn.Conv2d(2, 6, 3, padding=1), nn.LeakyReLU(0.2)
        self.scores, self.dense = nn.Linear(6 * 16, 3), nn.Conv2d(6, 5, 1)

    def forward(self, x: Tensor) -> Any:
        h = self.act(self.body(x))
        return self.form(self.scores(h.flatten(1)), self.dense(h))


FORMS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "tuple": lambda scores, dense: (scores, dense),
    "list": lambda scores, dense: [scores, dense],
    "dict": lambda scores, dense: {"scores": scores, "dense": dense},
    "nested": lambda scores, dense: {"all": [(scores,), {"dense": dense}]},
}


def flat(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    return [one for item in (tree.values() if isinstance(tree, dict) else tree) for one in flat(item)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("make", [Joint, LayerByLayer])
def test_all_outputs_come_nearer_to_the_ann(form: str, make: type[Any]) -> None:
    torch.manual_seed(0)
    ann, x = Heads(FORMS[form]), torch.randn(200, 2, 4, 4)
    wanted = flat(ann(x))
    errors = []
    for corrections in ((), make(T=4)):
        snn = Converter([x], mode="staircase", T=4, corrections=corrections, progress=False)(ann)
        found = simulate(snn, x, 4)
        assert type(found) is type(ann(x))
        pairs = list(zip(flat(found), wanted, strict=True))
        if make is LayerByLayer:
            # It corrects means.
            pairs = [(one.mean(0), other.mean(0)) for one, other in pairs]
        errors.append([error(one, other.detach()) for one, other in pairs])
    assert all(after < before for before, after in zip(*errors, strict=True))


@pytest.mark.parametrize("outputs", [1, 3])
def test_regressions_count_by_the_squared_error(outputs: int) -> None:
    ann, x = network("ReLU", outputs), data(2)
    wanted = ann(x).detach()
    plain, fast = (
        Converter([data()], mode="low-latency", T=4, progress=False, **options)(ann)
        for options in ({"corrections": ()}, {})
    )
    assert error(simulate(fast, x, 4), wanted) < 0.9 * error(simulate(plain, x, 4), wanted)


def is_divergence(targets: Tensor, loss: str = "auto") -> bool:
    """True if the loss does not change with what all answers have in common."""
    (output,) = _outputs(targets)
    answer = (targets + 0.3).requires_grad_()
    found = Objective([output], [targets], loss)({output.name: answer}, targets)
    assert found is not None
    return float(found.detach()) < 1e-6


def _outputs(targets: Tensor) -> tuple[TrialOutput, ...]:
    found: list[TrialOutput] = []

    class Look(Correction):
        name = "look"

        def correct(self, trial: Trial) -> None:
            found.extend(trial.outputs)

    ann = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, targets.shape[1]))
    Converter([data()], corrections=Look(), progress=False)(ann)
    return tuple(found)


def test_class_scores_are_told_from_other_numbers() -> None:
    torch.manual_seed(0)
    independent = torch.randn(300, 5)
    scores = independent - independent.mean(1, keepdim=True) + 3
    assert is_divergence(scores)
    assert is_divergence(scores.log_softmax(1))
    assert not is_divergence(independent)
    assert not is_divergence(scores.softmax(1))
    assert not is_divergence(scores, "squares")
    assert is_divergence(independent, "divergence")
    assert not is_divergence(scores[:, :1], "divergence")


def test_an_unknown_loss_is_refused_by_name() -> None:
    with pytest.raises(OptionError, match="loss='cross' is not allowed; it is one of 'auto', 'divergence', 'squares'"):
        Joint(loss="cross")


@pytest.mark.parametrize("head", [nn.Softmax, nn.LogSoftmax])
def test_a_head_of_probabilities(head: type[nn.Module]) -> None:
    pytest.importorskip("sj_ann2snn_analog", reason="the analog plugin computes softmax")
    ann, x = nn.Sequential(*network("LeakyReLU"), head(1)), data(2)
    wanted = ann(x).detach()
    plain, fast = (
        Converter([data()], mode="low-latency", T=4, progress=False, **options)(ann)
        for options in ({"corrections": ()}, {})
    )
    assert error(simulate(fast, x, 4), wanted) < error(simulate(plain, x, 4), wanted)


@pytest.mark.parametrize("state", [torch.no_grad, torch.enable_grad])
def test_learning_takes_gradients_whatever_the_callers_state(state: Callable[[], Any]) -> None:
    ann, x = network("PReLU"), data()
    wanted = Converter([x], corrections=Joint(T=4, epochs=1), progress=False)(ann).state_dict()
    with state():
        found = Converter([x], corrections=Joint(T=4, epochs=1), progress=False)(ann).state_dict()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Conv2d(1, 4, 3), nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 1)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        found: Tensor = self.head(nn.functional.leaky_relu(self.left(left) - self.right(right), 0.2))
        return found


def test_several_inputs_in_dicts_are_mirrored_and_shifted_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x = torch.randn(33, 1, 6, 6)
    batches = [{"right": part, "left": part} for part in x.split(32)]
    seen: list[bool] = []
    draw = Samples.draw

    def watched(*arguments: Any) -> Any:
        given, target = draw(*arguments)
        seen.append(torch.equal(*given))
        return given, target

    monkeypatch.setattr(Samples, "draw", watched)
    snn = Converter(batches, corrections=Joint(T=4, epochs=1, shift=2), progress=False)(Pair())
    assert seen
    assert all(seen)
    assert simulate(snn, (x, x), 4).shape == (33, 2, 4, 4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype: torch.dtype) -> None:
    ann, x = network("LeakyReLU").to(dtype), data().to(dtype)
    snn = Converter([x], corrections=Joint(T=4, epochs=1), progress=False)(ann)
    assert bool(simulate(snn, x, 4).isfinite().all())


@pytest.mark.parametrize("samples", [1, 33])
def test_few_samples_and_a_last_batch_of_one(samples: int) -> None:
    ann, x = network("PReLU", 1), data(samples=samples)
    snn = Converter(list(x.split(32)), corrections=Joint(T=300, epochs=1), progress=False)(ann)
    assert bool(simulate(snn, x, 8).isfinite().all())


def test_where_no_gradient_arrives_the_report_says_so() -> None:
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.layer(x)).detach()

    converter = Converter([data()], mode="low-latency", T=4, progress=False)
    snn = converter(Detached())
    assert simulate(snn, data(), 4).shape == (400, 3)
    assert "adjusted nothing, because no output of real numbers passes on a gradient" in str(converter.report)
