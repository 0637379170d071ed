"""`convert_only`: one submodule is converted, the rest stays as it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from sj_ann2snn import CalibrationError, ConversionError, Converter, OptionError, simulate

from ..helpers.cnn import answer, cnn, images
from ..helpers.networks import relative_error, run_by_hand


def test_one_submodule_can_be_converted() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.body, self.after = nn.Sigmoid(), cnn(6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            if float(x.sum()) < -1e9:  # torch.fx could not trace this
                return x
            return self.after(self.body(self.before(x)))

    ann, x = Net(), images()
    converter = Converter([x], convert_only="body", progress=False)
    snn = converter(ann)
    assert type(snn) is Net
    assert isinstance(snn.body, fx.GraphModule)
    assert snn.body is not ann.body
    assert list(converter.report.scales) == ["body.2", "body.6"]
    by_hand = run_by_hand(snn, x, 500).mean(0)
    assert relative_error(by_hand, answer(ann, x)) < 0.05
    assert relative_error(simulate(snn, x, T=500), by_hand) < 1e-5


class Two(nn.Module):
    """Two parts that convert, in a network that does not; the rest reads a number from the second one."""

    def __init__(self) -> None:
        super().__init__()
        self.body = cnn(6)
        self.head = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
        self.head.stride = 4

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.sigmoid(self.body(x))).softmax(1) * self.head.stride


def test_several_submodules_have_one_report_and_one_check() -> None:
    x = images()
    converter = Converter([x], convert_only=["body", "head"], progress=False)
    snn: Any = converter(Two().eval())
    assert isinstance(snn.body, fx.GraphModule)
    assert isinstance(snn.head, fx.GraphModule)
    assert snn.head.stride == 4
    assert list(converter.report.scales) == ["body.2", "body.6", "head.1"]
    assert [entry.name for entry in converter.report][-1] == "head.2"
    assert converter.check(Two().eval()).convertible


def test_the_names_in_other_arguments_are_those_of_the_network() -> None:
    x = images()
    converter = Converter(
        [x], convert_only=["body", "head"], leaf_modules=["head.1"], mappers={"body.2": "relu"}, progress=False
    )
    with pytest.raises(ConversionError, match=r"^In the submodule 'head' \(convert_only\)"):
        converter(Two().eval())  # without its ReLU, nothing in the head spikes
    with pytest.raises(OptionError, match=r"leaf_modules names '1', which lies in no submodule .* \(body, head\)"):
        Converter([x], convert_only=["body", "head"], leaf_modules="1", progress=False)(Two().eval())
    with pytest.raises(OptionError, match=r"mappers names the layer '2', .* The sites are body\.0, "):
        Converter([x], convert_only=["body", "head"], mappers={"2": "relu"}, progress=False)(Two().eval())


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "convert_only names no submodule"),
        (["body", "body.0"], "convert_only names 'body' and 'body.0', which is a part of it"),
        (["body", "heads"], "convert_only names 'heads', which is not a submodule of the network. Did you mean 'head'"),
        (["body", 3], "convert_only takes qualified names of submodules"),
        ([""], "convert_only names '', which is not a submodule"),
    ],
)
def test_names_that_mean_no_submodules(names: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Converter([images()], convert_only=names, progress=False)(Two().eval())


def test_every_submodule_needs_the_calibration_data() -> None:
    with pytest.raises(CalibrationError, match="every submodule that convert_only names needs it"):
        Converter(iter([images()]), convert_only=["body", "head"], progress=False)(Two().eval())


def test_a_submodule_that_is_not_called_is_named() -> None:
    ann = Two().eval()
    ann.spare = cnn(6)
    with pytest.raises(CalibrationError, match="convert_only names 'spare', which the network did not call"):
        Converter([images()], convert_only=["body", "spare"], progress=False)(ann)


def test_a_list_of_inputs_converts_whole_and_calibrates_in_every_batch() -> None:
    class Merging(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.out = nn.Linear(4, 8), nn.Linear(3, 8), nn.Linear(8, 2)

        def forward(self, xs: list[Tensor], bias: dict[str, Tensor]) -> dict[str, list[Tensor]]:
            hidden = [torch.relu(self.left(xs[0])), torch.relu(self.right(xs[-1]))]
            return {"sums": [self.out(sum(hidden)) + bias["out"], self.out(hidden[0])]}

    ann = Merging().eval()
    batches = [([torch.rand(10, 4), torch.rand(10, 3)], {"out": torch.rand(10, 2)}) for _ in range(3)]
    snn = Converter(batches, progress=False)(ann)
    with torch.no_grad():
        wanted = ann(*batches[1])
    got = simulate(snn, batches[1], T=400)
    for one, other in zip(got["sums"], wanted["sums"], strict=True):
        assert relative_error(one, other) < 0.05
