"""Networks that return objects of classes, and networks that read fields of torch's named results."""

from __future__ import annotations

import collections
import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from sj_ann2snn import Converter, export, load_network, simulate
from sj_ann2snn.support.structures import open_values
from sj_ann2snn.support.trees import tensors

from ..helpers.networks import convert


class Detection(NamedTuple):
    score: Any
    box: Any


Pair = collections.namedtuple("Pair", ["score", "box"])


@dataclasses.dataclass
class Answer:
    score: Any
    box: Any
    extra: Any = None


@dataclasses.dataclass(frozen=True)
class Derived:
    score: Any
    box: Any
    both: Any = dataclasses.field(init=False, default=None)

    def __post_init__(self) -> None:
        object.__setattr__(self, "both", self.score * 2)


class Named(collections.OrderedDict):  # type: ignore[type-arg]
    pass


@dataclasses.dataclass
class ModelOutput(collections.OrderedDict):  # type: ignore[type-arg]
    """As in Hugging Face's transformers: a dict without the fields that are None, and its values as attributes."""

    score: Any = None
    box: Any = None
    hidden: Any = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) is not None:
                self[field.name] = getattr(self, field.name)

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        super().__setattr__(key, value)


class Particular(dict):  # type: ignore[type-arg]
    def __init__(self, score: Any, box: Any) -> None:
        super().__init__(score=score, box=box)


Kind = Callable[[Any, Any], Any]

KINDS: dict[str, Kind] = {
    "NamedTuple": Detection,
    "namedtuple": Pair,
    "dataclass": Answer,
    "derived field": Derived,
    "OrderedDict": lambda score, box: collections.OrderedDict(score=score, box=box),
    "kind of OrderedDict": lambda score, box: Named(score=score, box=box),
    "ModelOutput": lambda score, box: ModelOutput(score=score, box=box),
    "nested": lambda score, box: Detection(Answer(score, [box, None]), {"again": Pair(box, score)}),
    "in a tuple": lambda score, box: (Detection(score, box), None),
    "in a list": lambda score, box: [ModelOutput(score, box), score],
    "with a number": lambda score, box: Answer(score, box, 3.5),
}


class Net(nn.Module):
    """Returns a spiking output, and a part that has no spikes in it."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.first, self.score = nn.Linear(4, 8), nn.Linear(8, 2)
        self.anchors = nn.Parameter(torch.rand(3))
        self.kind = kind

    def forward(self, x: Tensor) -> Any:
        return self.kind(self.score(torch.relu(self.first(x))), (self.anchors, x * 2, x.topk(2, 1)))


def shown(tree: Any, lead: int = 0) -> Any:
    """The classes, fields and shapes of an output, without its first dimensions."""
    if isinstance(tree, Tensor):
        return tuple(tree.shape[lead:])
    if isinstance(tree, dict):
        return type(tree).__name__, {key: shown(value, lead) for key, value in tree.items()}
    if isinstance(tree, (tuple, list)):
        return type(tree).__name__, [shown(value, lead) for value in tree]
    if dataclasses.is_dataclass(tree):
        return type(tree).__name__, {f.name: shown(getattr(tree, f.name), lead) for f in dataclasses.fields(tree)}
    return tree


def several_steps(snn: nn.Module, x: Tensor) -> Any:
    functional.set_step_mode(snn, "m")
    try:
        return snn(x.expand(5, *x.shape))
    finally:
        functional.set_step_mode(snn, "s")
        functional.reset_net(snn)


@pytest.mark.parametrize("name", KINDS)
def test_every_way_to_run_a_network_gives_its_class_back(name: str) -> None:
    torch.manual_seed(0)
    x = torch.rand(32, 4)
    ann = Net(KINDS[name]).eval()
    snn = convert(ann, x)
    with torch.no_grad():
        wanted = ann(x)
        assert shown(snn(x)) == shown(wanted)
        assert shown(Converter([x], progress=False).normalize(ann)(x)) == shown(wanted)
    functional.reset_net(snn)
    assert [type(one) for one in _objects(several_steps(snn, x))] == [type(one) for one in _objects(wanted)]
    for network in (snn, copy.deepcopy(snn), nn.Sequential(snn)):
        answer = simulate(network, x, T=64)
        assert shown(answer) == shown(wanted)
        for got, exact in zip(tensors(open_values(answer)[0]), tensors(open_values(wanted)[0]), strict=True):
            assert torch.allclose(got.double(), exact.double(), atol=0.1)


def _objects(tree: Any) -> list[Any]:
    inside = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, (tuple, list)) else ()
    return [tree, *(found for item in inside for found in _objects(item))]


@pytest.mark.parametrize("name", KINDS)
def test_a_file_holds_dicts_with_the_same_fields(name: str, tmp_path: Path) -> None:
    x = torch.rand(32, 4)
    snn = convert(Net(KINDS[name]), x)
    export(snn, tmp_path / "network.zip")
    got, wanted = simulate(load_network(tmp_path / "network.zip"), x, T=8), open_values(simulate(snn, x, T=8))[0]
    assert shown(got) == shown(wanted)
    assert all(torch.equal(one, other) for one, other in zip(tensors(got), tensors(wanted), strict=True))


@pytest.mark.parametrize("kind", [Particular, lambda a, b: collections.defaultdict(list, score=a, box=b)])
def test_a_dict_that_cannot_be_made_again_is_a_plain_one(kind: Kind) -> None:
    x = torch.rand(32, 4)
    answer = simulate(convert(Net(kind), x), x, T=8)
    assert type(answer) is dict
    assert list(answer) == ["score", "box"]


FIELDS: dict[str, Callable[[Tensor], Tensor]] = {
    "max": lambda x: x.max(1, keepdim=True).values,
    "indices": lambda x: torch.max(x, 1, keepdim=True).indices.type_as(x),
    "both": lambda x: (lambda found: found.values + found.indices)(x.min(1, keepdim=True)),
    "topk": lambda x: x.topk(2, 1).values,
    "sort": lambda x: torch.sort(x, dim=1).values,
    "median": lambda x: x.median(1, keepdim=True).values,
    "mode": lambda x: x.mode(1, keepdim=True).values,
    "cummax": lambda x: x.cummax(1).values,
    "kthvalue": lambda x: x.kthvalue(2, 1, True).values,
    "aminmax": lambda x: x.aminmax(dim=1, keepdim=True).max,
    "std_mean": lambda x: torch.std_mean(x, 1, keepdim=True)[0],
    "var_mean": lambda x: torch.var_mean(x, 1, keepdim=True)[1],
    "qr": lambda x: torch.linalg.qr(x.view(-1, 3, 4)).R.flatten(1),
    "svd": lambda x: torch.linalg.svd(x.view(-1, 3, 4)).S,
    "eigh": lambda x: torch.linalg.eigh(x.view(-1, 3, 4) @ x.view(-1, 3, 4).transpose(1, 2)).eigenvalues,
    "frexp": lambda x: torch.frexp(x).mantissa,
    "a pair": lambda x: Pair(x, x.flip(1)).box,
}


class Front(nn.Module):
    def __init__(self, operation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.operation = operation
        self.first, self.last = nn.Linear(operation(torch.rand(2, 12)).shape[1], 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(self.operation(x))))


@pytest.mark.parametrize("name", FIELDS)
def test_fields_of_named_results(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.rand(32, 12)
    snn = convert(Front(FIELDS[name]).double(), x.double())
    wanted = simulate(snn, x.double(), T=5)
    export(snn, tmp_path / "network.zip")
    for network in (snn, load_network(tmp_path / "network.zip")):
        with torch.no_grad():
            assert torch.allclose(simulate(network, x.double(), T=5), wanted)
            assert torch.allclose(several_steps(network, x.double()).mean(0), wanted)
            assert torch.allclose(torch.stack([network(x.double()) for _ in range(5)]).mean(0), wanted)
