"""Kinds of labels by entry points: what is a class label gives the right accuracy, everything else a refusal by name."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import InputError, evaluate
from sj_ann2snn.cli import main
from sj_ann2snn.evaluation.evaluate import accuracy_of

from ..helpers.networks import convert

CLASSES, SAMPLES = 3, 12
INDICES = torch.arange(SAMPLES) % CLASSES


def one_hot() -> Tensor:
    return nn.functional.one_hot(INDICES, CLASSES)


def changed(value: float, dtype: torch.dtype = torch.int64) -> Tensor:
    labels = INDICES.clone().to(dtype)
    labels[4] = value
    return labels


ALLOWED: dict[str, Callable[[], Any]] = {
    "int64": lambda: INDICES,
    "int32": INDICES.int,
    "int16": INDICES.short,
    "int8": lambda: INDICES.to(torch.int8),
    "uint8": lambda: INDICES.to(torch.uint8),
    "uint16": lambda: INDICES.to(torch.uint16),
    "uint64": lambda: INDICES.to(torch.uint64),
    "one column": lambda: INDICES[:, None],
    "list": INDICES.tolist,
    "tuple": lambda: tuple(INDICES.tolist()),
    "list of tensors": lambda: list(INDICES),
    "numpy": INDICES.numpy,
    "numpy, backwards": lambda: INDICES.flip(0).numpy()[::-1],
    "numpy, one column of int8": lambda: INDICES.to(torch.int8).numpy()[:, None],
    "one-hot": one_hot,
    "one-hot, bool": lambda: one_hot().bool(),
    "one-hot, float": lambda: one_hot().float(),
    "one-hot, half": lambda: one_hot().half(),
    "one-hot, uint8": lambda: one_hot().to(torch.uint8),
    "one-hot, numpy": lambda: one_hot().double().numpy(),
    "with a gradient": lambda: one_hot().float().requires_grad_(),
    "sparse one-hot": lambda: one_hot().float().to_sparse(),
}
"""Kinds of labels that are class labels."""

REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "from one": (lambda: INDICES + 1, "label 3 of sample 2 is out of range.*3 classes.*from 0 to 2.*start at 1"),
    "one is out of range": (lambda: changed(7), "label 7 of sample 4 is out of range"),
    "far out of range": (lambda: changed(2**62), f"label {2**62} of sample 4 is out of range"),
    "ignore_index": (lambda: changed(-100), "label -100 of sample 4.*ignore_index.*leave"),
    "negative": (lambda: changed(-1), "label -1 of sample 4 is out of range"),
    "float": (INDICES.float, r"real numbers.*labels\.long\(\).*class indices"),
    "float, one column": (lambda: INDICES.double()[:, None], "real numbers"),
    "float, one and a half": (lambda: changed(1.5, torch.float32), "such as 1.5 for sample 4"),
    "NaN": (lambda: changed(float("nan"), torch.float32), "such as nan for sample 4"),
    "infinite": (lambda: changed(float("inf"), torch.float32), "such as inf for sample 4"),
    "bool": (lambda: INDICES.bool(), r"true or false.*labels\.long\(\)"),
    "bool, one column": (lambda: INDICES.bool()[:, None], "true or false"),
    "complex": (lambda: INDICES.to(torch.complex64), "no integers"),
    "regression": (lambda: torch.rand(SAMPLES, CLASSES) + 0.1, "not one-hot: the row of sample 0"),
    "probabilities": (lambda: torch.full((SAMPLES, CLASSES), 1 / CLASSES), "not one-hot"),
    "smoothed one-hot": (lambda: one_hot() * 0.9 + 0.1 / 3, "not one-hot"),
    "multi-hot": (lambda: torch.ones(SAMPLES, CLASSES), "not one-hot.*single 1 among zeros"),
    "no class": (lambda: torch.zeros(SAMPLES, CLASSES), "not one-hot"),
    "one-hot of -1 and 1": (lambda: one_hot() * 2 - 1, "not one-hot"),
    "one-hot, too few columns": (lambda: nn.functional.one_hot(INDICES % 2, 2), "2 columns.*3 classes"),
    "one-hot, too many columns": (lambda: nn.functional.one_hot(INDICES, 5), "5 columns.*3 classes"),
    "no columns": (lambda: torch.zeros(SAMPLES, 0), "not one-hot"),
    "maps": (lambda: INDICES[:, None, None].expand(-1, 4, 4), "more than one label per sample"),
    "several tasks": (lambda: torch.stack([INDICES, INDICES + 2], 1), "not one-hot"),
    "text": (lambda: ["cat", "dog", "owl"] * 4, "no class labels: they are a list of 12 str"),
    "numpy text": (lambda: np.array(["cat", "dog", "owl"] * 4), "no class labels"),
    "one text": (lambda: "cat", "no class labels"),
    "objects": (lambda: [{"boxes": torch.zeros(2, 4)}] * SAMPLES, "no class labels: they are a list of 12 dict"),
    "a dict": (lambda: {"boxes": INDICES}, "no class labels"),
    "ragged": (lambda: [[0, 1], [2]] * 6, "no class labels"),
    "too large a number": (lambda: [2**70] * SAMPLES, "no class labels"),
    "too many": (lambda: torch.zeros(SAMPLES + 1, dtype=torch.int64), "holds 12 samples but 13 labels"),
    "too few": (lambda: INDICES[:-1], "holds 12 samples but 11 labels"),
    "none at all": (lambda: INDICES[:0], "holds 12 samples but 0 labels"),
    "a single number": (lambda: 2, "a single number, not one label per sample"),
    "nothing": (lambda: None, "but no labels"),
}
"""Kinds of labels that are no class labels, and what the refusal says."""

OUTPUTS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "one column": (lambda y: y[:, :1], "1 column, .*threshold"),
    "no columns": (lambda y: y[:, :0], "0 columns"),
    "no class dimension": (lambda y: y[:, 0], r"one output \[N, classes\]; this network's output is shape"),
    "maps": (lambda y: y[:, :, None, None].expand(-1, -1, 4, 4), r"output is shape \(12, 3, 4, 4\)"),
    "a tuple": (lambda y: (y, y), r"output is a tuple of a tensor.*metric=\('top1', 'top1'\)"),
    "a dict": (lambda y: {"one": y, "two": y}, "output is a dict with 'one', 'two'.*metric={'one': 'top1', 'two'"),
    "text": (lambda y: "cat", "output is a str"),
    "more rows": (lambda y: torch.cat([y, y]), "24 rows for 12 samples"),
}
"""Outputs of an ANN that are no scores of classes, and what the refusal says."""

ENTRY_POINTS = ("evaluate", "accuracy_of", "compare")
"""What compares answers with labels; `bench` and the conversion read no labels."""

CODE = """
import torch
from torch import nn

class Argmax(nn.Module):
    '''The class is the largest of three inputs.'''
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        for layer in (self.a, self.b):
            nn.init.eye_(layer.weight)

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))

def network():
    return Argmax()

batch = None

def loaders():
    return [batch], [batch]
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The user's module with the network and the batch."""
    (tmp_path / "labelled.py").write_text(CODE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("SJ_ANN2SNN_LOAD_PLUGINS", "")
    import labelled  # type: ignore[import-not-found]

    yield labelled
    sys.modules.pop("labelled")


def inputs() -> Tensor:
    """The three scores, of which the label's is the largest."""
    return one_hot().float() * 0.5 + torch.rand(SAMPLES, CLASSES) / 4


def accuracy(entry_point: str, code: Any, labels: Any, capsys: pytest.CaptureFixture[str]) -> list[float]:
    """The accuracies that an entry point finds; an error of the command line is raised again."""
    x = inputs()
    if entry_point == "evaluate":
        snn = convert(code.network(), x)
        return [evaluate(snn, [(x, labels)], T=16, progress=False).accuracy[-1]]
    if entry_point == "accuracy_of":
        return [accuracy_of(code.network(), [(x, labels)])]
    code.batch = (x, labels)
    arguments = ["compare", "labelled:network", "--data", "labelled:loaders", "--modes", "max", "--T", "16", "--json"]
    status = main(arguments)
    out, err = capsys.readouterr()
    if status:
        assert status == 2
        assert not out
        assert "Traceback" not in err
        raise InputError(err)
    found = json.loads(out)
    return [found["ann_accuracy"], found["modes"][0]["accuracy"][-1]]


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
@pytest.mark.parametrize("kind", ALLOWED)
def test_class_labels(kind: str, entry_point: str, code: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert set(accuracy(entry_point, code, ALLOWED[kind](), capsys)) == {1.0}


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_class_label(kind: str, entry_point: str, code: Any, capsys: pytest.CaptureFixture[str]) -> None:
    make, message = REFUSED[kind]
    with pytest.raises(InputError, match=f"(?s)Batch 0 .*{message}"):
        accuracy(entry_point, code, make(), capsys)


@pytest.mark.parametrize("kind", OUTPUTS)
def test_outputs_of_the_ann_that_are_no_scores(kind: str, code: Any) -> None:
    change, message = OUTPUTS[kind]
    network = code.network()
    network.register_forward_hook(lambda module, args, output: change(output))
    with pytest.raises(InputError, match=f"Batch 0 cannot be evaluated. .*{message}"):
        accuracy_of(network, [(inputs(), INDICES)])


@pytest.mark.parametrize("kind", [kind for kind in OUTPUTS if kind not in ("no columns", "text", "more rows")])
def test_outputs_of_the_spiking_network_that_are_no_scores(kind: str, code: Any) -> None:
    change, message = OUTPUTS[kind]

    class Changed(code.Argmax):  # type: ignore[misc, name-defined]
        def forward(self, x: Tensor) -> Any:
            return change(super().forward(x))

    snn = convert(Changed(), inputs())
    with pytest.raises(InputError, match=f"Batch 0 cannot be evaluated. .*{message.replace('12, ', '1?2?,? ?')}"):
        evaluate(snn, [(inputs(), INDICES)], T=4, progress=False)


def test_the_batch_with_the_wrong_label_is_named(code: Any) -> None:
    x = inputs()
    snn = convert(code.network(), x)
    with pytest.raises(InputError, match=r"^Batch 1 cannot be evaluated. The label 5 of sample 3"):
        evaluate(snn, [(x, INDICES), (x[:4], torch.tensor([0, 1, 2, 5]))], T=4, progress=False)
