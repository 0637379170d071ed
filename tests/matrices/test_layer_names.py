"""Layer names x ways to use a network: whatever torch allows as a name converts, runs and comes back from a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from sj_ann2snn import Converter, UnsupportedError, export, load_network, simulate

from ..helpers.exports import FORMATS
from ..helpers.networks import Written, convert, multi_step, relative_error, run_by_hand

NAMES: dict[str, tuple[str, ...]] = {
    "keywords": ("in", "class", "lambda", "None", "True", "is", "match", "async"),
    "of torch.fx": ("graph", "code", "meta", "_graph", "recompile", "delete_submodule"),
    "of torch.nn": ("type", "forward", "to", "float", "_modules", "_parameters", "parameters", "T_destination", "eval"),
    "of Python": ("self", "__class__", "__call__", "__dict__", "print", "torch", "super", "getattr"),
    "no identifiers": ("1x", "a-b", "a b", "#2", "relu#2", " ", "-"),
    "quotes": ('a"b', "a'b", "a\\b", "a\nb", "\t", '"', '"); print("x'),
    "letters": ("ünï", "é", "e\u0301", "\ufb01", "名", "\u00aa", "\u200b"),
    "of the graph": ("x", "output", "input", "add", "relu", "relu_1"),
    "of this package": ("x_scaler", "relu_neuron", "last_scaler", "relu_slope", "first_bias"),
    "long": ("n" * 3000,),
}
"""The rows, by kind."""

ALL = [pytest.param(name, id=f"{kind} {number}") for kind, names in NAMES.items() for number, name in enumerate(names)]


class Layer(nn.Module):
    """A layer has the name. Python may find a method under it first, so the forward asks torch for the layer."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.key = name
        self.first = nn.Linear(4, 6)
        self._modules[name] = nn.ReLU()
        self.last = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Any = self._modules[self.key]
        return self.last(found(self.first(x)))


class Container(nn.Module):
    """A module that holds layers has the name, inside another one; a function is called in it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.key = name
        self.layers = nn.Module()
        self.layers._modules[name] = Written(lambda net, x: torch.relu(net.inner(x)), inner=nn.Linear(4, 6))
        self.last = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Any = self.layers._modules[self.key]
        return self.last(found(x))


class Parameter(nn.Module):
    """A parameter has the name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.key = name
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        self._parameters[name] = nn.Parameter(torch.rand(6))

    def forward(self, x: Tensor) -> Tensor:
        found: Any = self._parameters[self.key]
        return self.last(torch.relu(self.first(x) + found))


class Buffer(Parameter):
    """A buffer has the name."""

    def __init__(self, name: str) -> None:
        super().__init__("unused")
        self.key = name
        self._buffers[name] = torch.rand(6)

    def forward(self, x: Tensor) -> Tensor:
        found: Any = self._buffers[self.key]
        return self.last(torch.relu(self.first(x) + found))


PLACES: dict[str, Callable[[str], nn.Module]] = {
    "layer": Layer,
    "container": Container,
    "parameter": Parameter,
    "buffer": Buffer,
}
"""What has the name."""

STEPS = 40


def by_hand(snn: Any, x: Tensor, folder: Path) -> Tensor:
    return run_by_hand(snn, x, STEPS).mean(0)


def in_one_call(snn: Any, x: Tensor, folder: Path) -> Tensor:
    return multi_step(snn, x, STEPS).mean(0)


def simulated(snn: Any, x: Tensor, folder: Path) -> Tensor:
    return simulate(snn, x, T=STEPS)


def from_archive(snn: Any, x: Tensor, folder: Path) -> Tensor:
    export(snn, folder / FORMATS["archive"])
    return run_by_hand(load_network(folder / FORMATS["archive"]), x, STEPS).mean(0)


def from_torch(snn: Any, x: Tensor, folder: Path) -> Tensor:
    export(snn, folder / FORMATS["torch"])
    return simulate(load_network(folder / FORMATS["torch"]), x, T=STEPS)


WAYS: dict[str, Callable[[Any, Tensor, Path], Tensor]] = {
    "by hand": by_hand,
    "in one call": in_one_call,
    "simulate": simulated,
    "archive": from_archive,
    "torch file": from_torch,
}
"""The columns."""


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ALL)
def test_every_name_converts_and_comes_back(name: str, place: str, tmp_path: Path) -> None:
    x = torch.rand(8, 4)
    ann = PLACES[place](name)
    with torch.no_grad():
        wanted = ann(x)
    converter = Converter([x], progress=False)
    snn = converter(ann)
    for way, run in WAYS.items():
        assert relative_error(run(snn, x, tmp_path), wanted) < 0.15, way
    if place == "layer":
        assert name in {entry.name for entry in converter.report.entries}
    if place == "container":
        assert f"layers.{name}.inner" in {entry.name for entry in converter.report.entries}


def test_refusals_show_the_users_name() -> None:
    ann = Layer("in")
    ann._modules["in"] = nn.Sequential(nn.ReLU(), nn.GroupNorm(2, 6))
    with pytest.raises(UnsupportedError) as caught:
        convert(ann, torch.rand(8, 4))
    assert [problem.name for problem in caught.value.problems] == ["in.1"]


PAIRS = (
    ("in", "in_"), ("in_", "in"), ("graph", "graph_"), ("graph_", "graph__"), ("a-b", "a_b"), ("a b", "a-b"),
    ('a"b', "a_b"), ("a'b", 'a"b'), ("\ufb01", "fi"), ("relu", "relu_1"), ("x", "x_scaler"), ("relu", "relu_neuron"),
)  # fmt: skip
"""Names that might become one."""


@pytest.mark.parametrize(("one", "two"), PAIRS)
def test_names_that_are_alike_stay_apart(one: str, two: str, tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name in (one, two):
                self._modules[name] = nn.ModuleDict({name: nn.Linear(4, 4)} if name != "graph" else {})
                self._modules[name]._modules[name] = nn.Linear(4, 4)  # type: ignore[union-attr]
                self._parameters[f"{name}p"] = nn.Parameter(torch.rand(4))

        def forward(self, x: Tensor) -> Tensor:
            for name in (one, two, one):
                layers: Any = self._modules[name]
                added: Any = self._parameters[f"{name}p"]
                weight: Any = layers._modules[name].weight
                x = torch.relu(layers._modules[name](x) + added + weight.sum() / 8)
            return x

    x, ann = torch.rand(8, 4), Net()
    with torch.no_grad():
        wanted = ann(x)
    snn = convert(ann, x)
    for way, run in WAYS.items():
        assert relative_error(run(snn, x, tmp_path), wanted) < 0.2, way


def test_a_layer_named_like_another_ones_second_call() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleDict({"fc": nn.Linear(4, 4), "fc#2": nn.Linear(4, 4), "fc#3": nn.Linear(4, 4)})

        def forward(self, x: Tensor) -> Tensor:
            for name in ("fc", "fc", "fc#2", "fc#3", "fc", "fc#2"):
                x = torch.relu(self.layers[name](x) + 0.5)
            return x

    x, net = torch.rand(16, 4), Net()
    with torch.no_grad():
        wanted = net(x)
    converter = Converter([x], progress=False)
    assert relative_error(run_by_hand(converter(net), x, 200).mean(0), wanted) < 0.05
    names = [entry.name for entry in converter.report.entries if "fc" in entry.name]
    assert len(names) == len(set(names)) == 6


def test_parameters_that_are_read_apart_stay_apart() -> None:
    inner = Written(lambda net, x: net.b(x), b=nn.Linear(4, 4))
    ann = Written(
        lambda net, x: torch.relu(net.a(x) + net.a_b(x) + net.a.b.bias - 2 * net.a_b.bias), a=inner, a_b=nn.Linear(4, 4)
    )
    x = torch.rand(16, 4)
    with torch.no_grad():
        wanted = ann(x)
    assert relative_error(run_by_hand(convert(ann, x), x, 200).mean(0), wanted) < 0.05


INPUTS = ("input", "in_", "x_y", "torch", "device", "self_", "getattr", "slice", "inf", "nan", "NoneType", "fx_pytree",
          "pytree", "type", "lambda_", "graph", "forward", "output", "print", "é", "Ellipsis")  # fmt: skip


def with_inputs(first: str, second: str) -> nn.Module:
    """A network whose forward has these arguments."""
    scope: dict[str, Any] = {"relu": torch.relu}
    exec(f"def forward(net, {first}, {second}):\n    return net.b(relu(net.a({first})) + {second}[..., :5])", scope)

    class Net(nn.Module):
        forward = scope["forward"]

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 2)

    return Net()


@pytest.mark.parametrize("name", [*INPUTS, "self"])
def test_every_name_of_an_input(name: str, tmp_path: Path) -> None:
    ann, x, y = with_inputs(name, "second"), torch.rand(8, 4), torch.rand(8, 6)
    with torch.no_grad():
        wanted = ann(x, y)
    snn = convert(ann, [{"second": y, name: x}])
    assert isinstance(snn, fx.GraphModule)
    export(snn, tmp_path / "network.zip")
    loaded = load_network(tmp_path / "network.zip")
    for network in (snn, loaded):
        assert relative_error(run_by_hand(network, x, 60, y).mean(0), wanted) < 0.1
        assert relative_error(simulate(network, (x, y), T=60), wanted) < 0.1


@pytest.mark.parametrize("name", ["lambda", "My Net", "Net[int]", "é", "1", ""])
def test_every_name_of_a_class(name: str, tmp_path: Path) -> None:
    x = torch.rand(8, 4)
    snn = convert(type(name, (nn.Sequential,), {})(nn.Linear(4, 3), nn.ReLU()), x)
    export(snn, tmp_path / "network.pt")
    assert torch.equal(simulate(load_network(tmp_path / "network.pt"), x, T=9), simulate(snn, x, T=9))
