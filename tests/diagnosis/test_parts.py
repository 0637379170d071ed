"""Networks of which only parts were converted: each part on the inputs that the network gives it."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import Converter, Delayed, InputError, OptionError, diagnose, evaluate, simulate
from sj_ann2snn.evaluation.evaluate import ann_values
from tests.helpers.networks import Written

T = 12


def block(first: int, second: int) -> nn.Module:
    return nn.Sequential(nn.Linear(first, 12), nn.ReLU(), nn.Linear(12, second), nn.ReLU())


def between() -> nn.Module:
    """Two parts, and between them what no spiking network computes."""

    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.first(x)
        x = x.sort(1).values / (1e-3 + x.norm(dim=1, keepdim=True))
        return net.head(net.second(x).softmax(1))

    return Written(forward, first=block(4, 6), second=block(6, 6), head=nn.Linear(6, 3)).eval()


def shared() -> nn.Module:
    """A part that is called for inputs of several sizes, with several rows per sample."""

    def forward(net: Any, x: Tensor) -> Any:
        parts = [x, x[:, :, ::2, ::2]]
        answers = [net.head(net.tower(one)).flatten(1) for one in parts]
        rows = net.rows(x.flatten(2).repeat(1, 3, 1).flatten(0, 1)[:, :4]).view(len(x), -1)
        return {"scores": torch.cat(answers, 1).sort(1).values, "rows": rows.cumsum(1)}

    return Written(
        forward,
        tower=nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 1), nn.ReLU()),
        head=nn.Conv2d(4, 2, 1),
        rows=block(4, 2),
    ).eval()


def classes(x: Tensor) -> Tensor:
    return (10 * x.flatten(1).sum(1)).long() % 3


def test_every_part_gets_what_the_network_gives_it() -> None:
    ann, x = between(), torch.rand(40, 4)
    snn = Converter([x], mode=0.5, convert_only=["first", "second"], progress=False)(ann)
    data = [(part, classes(part)) for part in x.split(25)]
    found = diagnose(ann, snn, data, T, progress=False)
    assert [layer.name for layer in found] == ["first.1", "first.3", "second.1", "second.3"]
    assert found.samples == 40
    with torch.no_grad():
        answer, wanted = simulate(snn, x, T), ann(x)
        inner = simulate(snn.get_submodule("first"), x, T)
        given = inner.sort(1).values / (1e-3 + inner.norm(dim=1, keepdim=True))
    assert found.divergence == pytest.approx(float((answer - wanted).norm() / wanted.norm()), rel=1e-4)
    result = evaluate(snn, data, T, progress=False)
    assert found.accuracy == result.accuracy[-1]
    assert found.ann_accuracy == ann_values(ann, data)["top1"]
    # evaluate runs the second part anew after every step, each time on what the first answers by then.
    assert found.spikes == pytest.approx(result.spikes_per_sample, rel=0.1)
    rates = {layer.name: layer.spikes_per_sample for layer in result.layers}
    assert [found[name].spikes for name in ("first.1", "first.3")] == [rates["first.1"], rates["first.3"]]
    alone = [
        diagnose(ann.first, snn.first, [x], T, progress=False),
        diagnose(ann.second, snn.second, [given], T, progress=False),
    ]
    assert found.synops == pytest.approx(sum(part.synops for part in alone))
    for one, other in zip(found, [layer for part in alone for layer in part], strict=True):
        assert one.name.endswith(other.name)
        assert one.error == pytest.approx(other.error, rel=1e-5)
        assert one.effect == pytest.approx(other.effect, rel=1e-4, abs=1e-7)
        assert one.spikes == pytest.approx(other.spikes)
    assert any("only parts of the network were converted" in note for note in found.notes)
    assert found.layers[0].alone_points is None


def test_advice_names_the_part_and_the_call() -> None:
    ann, x = between(), torch.rand(40, 4)
    snn = Converter([x], mode=0.2, convert_only="second", progress=False)(ann)
    found = diagnose(ann, snn, [x], T, progress=False)
    first = found.advice[0]
    assert first.layer.startswith("second.")
    assert first.layer in first.text
    assert 'convert_only="second"' in first.call
    mended = Converter([x], **{**first.arguments, "convert_only": "second"}, progress=False)(ann)
    assert diagnose(ann, mended, [x], T, progress=False).divergence < found.divergence
    both = Converter([x], mode=0.2, convert_only=["first", "second"], progress=False)(ann)
    assert "convert_only=['first', 'second']" in diagnose(ann, both, [x], T, progress=False).advice[0].call


def test_parts_that_are_called_several_times() -> None:
    ann, x = shared(), torch.rand(20, 1, 8, 8)
    names = ["tower", "rows"]
    snn = Converter([x], convert_only=names, progress=False)(ann)
    found = diagnose(ann, snn, [x[:12], x[12:]], T, metric={"scores": "agreement", "rows": "mse"}, progress=False)
    wanted = evaluate(snn, [x[:12], x[12:]], T, metric={"scores": "agreement", "rows": "mse"}, ann=ann, progress=False)
    for name, one in found.metrics.items():
        assert one.value == pytest.approx(wanted.values[name][-1], rel=1e-4)
    assert [layer.name for layer in found] == ["tower.1", "tower.4", "rows.1", "rows.3"]
    rates = {layer.name: layer.spikes_per_sample for layer in wanted.layers}
    for layer in found:
        # The rows of the third part are more than there are samples, and some of them are looked at.
        assert layer.spikes == pytest.approx(rates[layer.name], rel=0.2 if layer.name.startswith("rows") else 1e-5)


class Detector(nn.Module):
    """Answers with other numbers of rows than samples, and takes a list of images."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU()
        )
        self.head = nn.Conv2d(6, 1, 1)

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        maps = [self.head(self.backbone(image[None]))[0, 0] for image in images]
        return [{"boxes": one.topk(1).indices.unique().double(), "scores": one[one > one.mean()]} for one in maps]


def test_a_detector() -> None:
    ann = Detector().eval()
    images = [torch.rand(3, 8 + index % 2, 8) for index in range(6)]
    snn = Converter([[images]], mode=0.3, convert_only="backbone", progress=False)(ann)
    found = diagnose(ann, snn, [[images[:4]], [images[4:]]], T, progress=False)
    assert [layer.name for layer in found] == ["backbone.1", "backbone.3"]
    assert found.samples == 6
    assert 0 < found.divergence < 1
    assert any("other shapes than the ANN's" in note for note in found.notes)

    def found_of(output: Any, target: Any) -> float:
        return sum(len(one["scores"]) for one in output) / len(output)

    one = diagnose(ann, snn, [[images[:4]], [images[4:]]], T, metric=found_of, against_ann=True, progress=False)
    wanted = evaluate(snn, [[images[:4]], [images[4:]]], T, metric=found_of, ann=ann, progress=False)
    assert one.accuracy == pytest.approx(wanted.values["found_of"][-1])
    assert diagnose(ann, snn, [[images]], T, samples=3, progress=False).samples == 3


def test_statistics_of_the_ann_that_do_not_fit_the_data() -> None:
    ann = Detector().eval()
    ann.backbone.insert(1, nn.BatchNorm2d(6))
    ann.backbone[1].running_mean -= 3
    ann.backbone[1].running_var *= 0.01
    ann.eval()
    images = [torch.rand(3, 8 + index % 2, 8) for index in range(40)]
    snn = Converter([[images]], convert_only="backbone", progress=False)(ann)
    assert diagnose(ann, snn, [[images]], 4, progress=False).advice[-1].layer == "backbone.1"


def test_pickles_of_such_networks() -> None:
    ann, x = between(), torch.rand(30, 4)
    snn = Converter([x], mode=0.5, convert_only=["first", "second"], progress=False)(ann)
    content = io.BytesIO()
    torch.save(snn.second, content)
    content.seek(0)
    again = copy.deepcopy(snn)
    again.second = torch.load(content, weights_only=False)
    assert diagnose(ann, again, [x], T, progress=False) == diagnose(ann, snn, [x], T, progress=False)


def test_what_is_refused() -> None:
    ann, x = between(), torch.rand(20, 4)
    snn = Converter([x], convert_only="second", progress=False)(ann)

    def refused(told: str, one: Any, data: Any, **arguments: Any) -> None:
        with pytest.raises(InputError, match=told):
            diagnose(one, snn, data, 4, progress=False, **arguments)

    refused("has no submodule of this name", nn.Sequential(block(4, 3)), [x])
    other = between()
    other.second = block(6, 6)
    refused(r"In the submodule 'second' \(convert_only\): The network is not made of this ANN", other, [x])
    other.second = block(5, 6)
    refused("In the submodule 'second'|cannot take", other, [x])
    refused("cannot take", ann, [torch.rand(4, 9)])
    refused("labels=True needs a classifier", ann, [(x, torch.full((20,), 7))], labels=True)
    refused("no labels or other targets", ann, [x], metric="mse")
    with pytest.raises(OptionError):
        diagnose(ann, snn, [x], 4, readout="nothing", progress=False)
    with pytest.raises(OptionError):
        diagnose(ann, snn, [x], 4, readout=Delayed(delay=9), progress=False)


def test_the_network_is_left_as_it_is() -> None:
    ann, x = between().train(), torch.rand(20, 4)
    snn = Converter([x], convert_only=["first", "second"], progress=False)(ann)
    before = {name: value.clone() for name, value in snn.state_dict().items()}
    wanted = simulate(snn, x, 4)
    diagnose(ann, snn, [x], 4, progress=False)
    assert ann.training
    assert all(torch.equal(value, before[name]) for name, value in snn.state_dict().items())
    assert torch.equal(simulate(snn, x, 4), wanted)
