"""Networks of which only parts are converted: the parts run over time, and the rest sees their mean outputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from sj_ann2snn import Converter, InputError, NonFiniteError, evaluate, simulate

from ..helpers.cnn import cnn, images
from ..helpers.networks import relative_error, run_by_hand

STEPS = 12


class Nonlinear(nn.Module):
    """Two parts, with a curve between them and a softmax behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = cnn(6)
        self.second = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        if float(x.sum()) < -1e9:  # torch.fx could not trace this
            return x
        return self.second(torch.sigmoid(self.first(x))).softmax(1)


class Pyramid(nn.Module):
    """A detector in small: a list of images in, boxes out that are chosen by their values, a head for every scale."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Scales()
        self.head = Head()

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        maps = self.backbone(torch.stack([(image - 0.5) * 2 for image in images]))
        found = [self.head(maps[name], scale=scale) for scale, name in enumerate(maps)]
        kept = []
        for sample in range(len(images)):
            scores = torch.cat([one["score"][sample].flatten() for one in found])
            boxes = torch.cat([one["box"][sample].flatten(1).T for one in found])
            best = scores.topk(3).indices
            kept.append({"scores": scores[best].sigmoid(), "boxes": boxes[best] * self.head.stride})
        return kept


class Scales(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.coarse = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        fine = self.fine(x)
        return {"fine": fine, "coarse": 10 * self.coarse(fine)}


class Head(nn.Module):
    """Takes an option by name; the rest of the network reads its stride."""

    def __init__(self) -> None:
        super().__init__()
        self.stride = 4
        self.shared = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU())
        self.score, self.box = nn.Conv2d(8, 1, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor, mask: Tensor | None = None, scale: int = 0) -> dict[str, Tensor]:
        y = self.shared(x)
        return {"score": self.score(y), "box": self.box(y)}


def mean_of(part: nn.Module, x: Tensor, steps: int = STEPS) -> Tensor:
    return run_by_hand(part, x, steps).mean(0)


@pytest.fixture(scope="module")
def two_parts() -> tuple[Nonlinear, Any, Tensor]:
    torch.manual_seed(0)
    ann, x = Nonlinear().eval(), images()
    return ann, Converter([x], convert_only=["first", "second"], progress=False)(ann), x


def by_hand(snn: Any, x: Tensor, steps: int) -> Tensor:
    return mean_of(snn.second, torch.sigmoid(mean_of(snn.first, x, steps)), steps).softmax(1)


def test_the_rest_sees_the_mean_of_every_part(two_parts: tuple[Nonlinear, Any, Tensor]) -> None:
    ann, snn, x = two_parts
    assert isinstance(snn.first, fx.GraphModule)
    assert isinstance(snn.second, fx.GraphModule)
    assert relative_error(simulate(snn, x, T=STEPS), by_hand(snn, x, STEPS)) < 1e-5
    with torch.no_grad():
        assert relative_error(simulate(snn, x, T=400), ann(x)) < 0.05


def test_the_answer_after_every_step_is_that_of_a_simulation_of_so_many_steps(
    two_parts: tuple[Nonlinear, Any, Tensor],
) -> None:
    _, snn, x = two_parts
    labels = by_hand(snn, x, STEPS).argmax(1)
    result = evaluate(snn, [(x, labels)], T=STEPS, progress=False)
    for steps in (1, 2, 5, STEPS):
        right = (by_hand(snn, x, steps).argmax(1) == labels).double().mean()
        assert result.accuracy[steps - 1] == pytest.approx(right.item())


def test_the_spikes_of_every_step_count_once(two_parts: tuple[Nonlinear, Any, Tensor]) -> None:
    _, snn, x = two_parts
    result = evaluate(snn, [(x, torch.zeros(len(x), dtype=torch.int64))], T=STEPS, progress=False)
    alone = evaluate(snn.first, [(x, torch.zeros(len(x), dtype=torch.int64))], T=STEPS, progress=False)
    spikes = {layer.name: layer.spikes_per_sample for layer in result.layers}
    for layer in alone.layers:
        assert spikes[f"first.{layer.name}"] == pytest.approx(layer.spikes_per_sample, rel=1e-3)
    assert any(name.startswith("second.") for name in spikes)
    for layer in result.layers:
        assert 0 < layer.firing_rate <= 1


def test_samples_may_leave_early(two_parts: tuple[Nonlinear, Any, Tensor]) -> None:
    _, snn, x = two_parts
    labels = by_hand(snn, x, STEPS).argmax(1)
    result = evaluate(snn, [(x, labels)], T=STEPS, early_exit=1e-6, progress=False)
    assert result.steps_per_sample < STEPS


@pytest.mark.parametrize("readout", ["last", "delayed", "exponential"])
def test_the_readout_is_that_of_the_parts(two_parts: tuple[Nonlinear, Any, Tensor], readout: str) -> None:
    _, snn, x = two_parts
    middle = torch.sigmoid(simulate(snn.first, x, T=STEPS, readout=readout))
    wanted = simulate(snn.second, middle, T=STEPS, readout=readout).softmax(1)
    assert relative_error(simulate(snn, x, T=STEPS, readout=readout), wanted) < 1e-5
    labels = wanted.argmax(1)
    result = evaluate(snn, [(x, labels)], T=STEPS, readout=readout, progress=False)
    assert result.accuracy[-1] == 1


def test_a_simulation_leaves_the_network_as_it_is(two_parts: tuple[Nonlinear, Any, Tensor]) -> None:
    _, snn, x = two_parts
    wanted = run_by_hand(snn, x, 3)[2]
    with torch.no_grad():
        snn(x), snn(x)
        simulate(snn, x, T=3)  # in the middle of a loop by hand
        assert torch.equal(snn(x), wanted)
    run_by_hand(snn, x, 1)  # resets the network


def test_a_detector_takes_lists_and_calls_a_head_for_every_scale() -> None:
    ann, x = Pyramid().eval(), torch.rand(8, 3, 16, 16)
    converter = Converter([(list(x), None)], convert_only=["backbone", "head"], progress=False)
    snn = converter(ann)
    with torch.no_grad():
        maps = ann.backbone((x - 0.5) * 2)
        largest = max(ann.head.shared(one).max().item() for one in maps.values())
    # λ covers the activations of both calls.
    assert converter.report.scales["head.shared.1"][1] == pytest.approx(largest, rel=1e-4)
    got = simulate(snn, list(x[:3]), T=1500)
    with torch.no_grad():
        wanted = ann(list(x[:3]))
    for one, other in zip(got, wanted, strict=True):
        assert one.keys() == other.keys()
        assert relative_error(one["scores"], other["scores"]) < 0.02


@pytest.mark.parametrize("batch", ["images", "tuple of images", "images and targets", "a tensor"])
def test_batches_of_a_detector(batch: str) -> None:
    x = torch.rand(4, 3, 16, 16)
    given: Any = {
        "images": list(x),
        "tuple of images": tuple(x),
        "images and targets": (tuple(x), ({"boxes": torch.zeros(0, 4)},) * 4),
        "a tensor": x,
    }[batch]
    converter = Converter([given], convert_only="backbone", progress=False)
    reference = Converter([(list(x), None)], convert_only="backbone", progress=False)
    ann = Pyramid().eval()
    converter(ann), reference(ann)
    assert converter.report.scales == reference.report.scales


@pytest.mark.parametrize("where", ["first input", "first weight", "second weight"])
@pytest.mark.parametrize("how", ["simulate", "evaluate"])
def test_nan_is_not_hidden(where: str, how: str) -> None:
    ann, x = Nonlinear().eval(), images()
    snn: Any = Converter([x], convert_only=["first", "second"], progress=False)(ann)
    if where == "first input":
        x[3, 0, 0, 0] = torch.nan
    else:
        layer = next(module for module in snn.get_submodule(where.split()[0]).modules() if hasattr(module, "weight"))
        layer.weight.data.view(-1)[0] = torch.nan
    labelled = [(x, torch.zeros(len(x), dtype=torch.int64))]
    run = {
        "simulate": lambda: simulate(snn, x, T=4),
        "evaluate": lambda: evaluate(snn, labelled, T=4, progress=False),
    }
    with pytest.raises(NonFiniteError, match=f"In the submodule '{where.split()[0]}': "):
        run[how]()
    assert "forward" not in vars(snn.first)


def test_a_list_of_images_may_be_evaluated() -> None:
    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(392, 4))

        def forward(self, images: list[Tensor]) -> Tensor:
            return self.body(torch.stack([image - image.mean() for image in images]))

    ann, x = Classifier().eval(), list(torch.rand(8, 3, 16, 16))
    with torch.no_grad():
        labels = ann(x).argmax(1)
    snn = Converter([(x, labels)], convert_only="body", progress=False)(ann)
    assert evaluate(snn, [(x, labels), (x[:3], labels[:3])], T=200, progress=False).accuracy[-1] > 0.9


def test_a_part_may_find_nothing_to_do() -> None:
    class Choosing(nn.Module):
        """The second stage of a detector: it gets only what the first stage proposes."""

        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
            self.second = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

        def forward(self, x: Tensor) -> Tensor:
            return self.second(x[self.first(x)[:, 0] < self.limit])

    ann, x = Choosing(), torch.rand(20, 4)
    ann.limit = 1e6
    snn = Converter([x], convert_only=["first", "second"], progress=False)(ann)
    assert simulate(snn, x, T=4).shape == (20, 2)
    snn.limit = -1e6
    assert simulate(snn, x, T=4).shape == (0, 2)


def test_what_the_network_cannot_take_is_named() -> None:
    snn = Converter([(list(torch.rand(2, 3, 16, 16)), None)], convert_only=["backbone"], progress=False)(Pyramid())
    with pytest.raises(
        InputError, match=r"The input must be a tensor \[N, \.\.\.\] or hold tensors, not a list of nothing"
    ):
        simulate(snn, [], T=2)
    with pytest.raises(InputError, match="cannot take"):
        simulate(snn, [torch.rand(4, 16, 16)], T=2)
