"""Neurons whose update is compiled, beside the same neurons step by step."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sj_ann2snn import ChangeLoop, Converter, InPlaceNeuron, NeuronLoop, NeuronMaker, NeuronSite, simulate
from sj_ann2snn.errors import PluginError
from sj_ann2snn.simulation.engine.compiled import neuron_loops
from sj_ann2snn.simulation.engine.compiled.neuron_loops import fire_compiled
from sj_ann2snn.simulation.engine.numbers.firing import fire

pytest.importorskip("numba")


def floor(x: Any, v: Any) -> tuple[Any, Any]:
    v = v + x
    out = math.floor(v)
    return out, v - out


def faded(x: Any, v: Any, kept: Any, step: Any, factor: Any) -> tuple[Any, Any, Any]:
    v = v + factor * x / step
    return v, v, kept + step


class Floor(InPlaceNeuron):
    """One state."""

    def step(self, x: Tensor, out: Tensor) -> None:
        assert self.v is not None
        self.v += x
        torch.floor(self.v, out=out)
        self.v -= out

    def loop(self, dtype: torch.dtype) -> NeuronLoop | None:
        return NeuronLoop(floor)


class Faded(InPlaceNeuron):
    """Two states, a constant and a clock."""

    kept: Tensor | None
    steps: int

    def __init__(self) -> None:
        super().__init__(initial_potential=0.25)
        self.register_memory("kept", None)
        self.register_memory("steps", 0)

    def start(self, x: Tensor) -> None:
        super().start(x)
        self.kept = torch.zeros_like(x)

    def step(self, x: Tensor, out: Tensor) -> None:
        assert self.v is not None
        assert self.kept is not None
        self.steps += 1
        self.v += 0.5 * x / self.steps
        self.kept += self.steps
        out.copy_(self.v)

    def loop(self, dtype: torch.dtype) -> NeuronLoop | None:
        return NeuronLoop(faded, states=("v", "kept"), constants=(0.5,), clock="steps")


class Rounded(Floor):
    """Changes the step alone."""

    def step(self, x: Tensor, out: Tensor) -> None:
        torch.round(x, out=out)


def currents(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype)


LAYOUTS = {
    "dense": currents(12, 3, 8, 5, 5),
    "channels_last": currents(12, 3, 5, 5, 8).movedim(-1, 2),
    "repeated": currents(3, 8, 5, 5).expand(12, 3, 8, 5, 5),
    "double": currents(12, 3, 6, dtype=torch.float64),
    "more neurons than a block": currents(3, 2, 5000),
}


@pytest.mark.parametrize("x", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("made", [Floor, Faded])
def test_same_bits_as_step_by_step(made: type[InPlaceNeuron], overwrite: bool, x: Tensor) -> None:
    by_loop, by_steps = made(), made()
    for piece in x.split(7):
        wanted = torch.empty_like(piece)
        by_steps.fire(piece, wanted)
        given = piece.clone() if overwrite else piece
        assert torch.equal(fire(by_loop, given, overwrite=overwrite), wanted)
        assert torch.equal(piece, piece.clone())
        for name in ("v", "kept", "steps"):
            if hasattr(by_steps, name):
                one, other = getattr(by_loop, name), getattr(by_steps, name)
                assert torch.equal(one, other) if isinstance(other, Tensor) else one == other


def test_the_loop_is_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*given: Any) -> None:
        raise AssertionError("called step by step")

    x = currents(5, 2, 4)
    wanted = fire(Floor(), x, overwrite=False)
    monkeypatch.setattr(Floor, "step", refused)
    assert torch.equal(fire(Floor(), x, overwrite=False), wanted)


def simulate_identity(neuron: nn.Module) -> Tensor:
    class Made(NeuronMaker):
        name = "made"
        resolution = 10.0  # these neurons are no rates

        def make(self, site: NeuronSite) -> nn.Module:
            return neuron

    x = currents(3, 4).abs()
    snn = Converter([x], neuron=Made(), progress=False)(nn.Sequential(nn.Identity(), nn.ReLU()))
    found: Tensor = simulate(snn, x, T=4)
    return found


def test_a_subclass_that_changes_the_step_does_not_inherit_the_loop() -> None:
    x = currents(5, 2, 4)
    assert not fire_compiled(Rounded(), x, torch.empty_like(x))
    assert torch.equal(fire(Rounded(), x, overwrite=False), x.round())


def test_without_numba_the_steps_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neuron_loops, "_loop", lambda *given: None)
    x = currents(5, 2, 4)
    wanted = torch.empty_like(x)
    Floor().fire(x, wanted)
    assert torch.equal(fire(Floor(), x, overwrite=False), wanted)


def test_a_changed_function_is_compiled_anew() -> None:
    names = set()
    for factor in (1, 2):
        space: dict[str, Any] = {"__name__": "somewhere"}
        exec(f"def update(x, v): return {factor} * x, v", space)  # as in a notebook
        neuron, x = Floor(), currents(5, 2, 4)
        neuron.loop = lambda dtype, space=space: NeuronLoop(space["update"])  # type: ignore[method-assign]
        assert torch.equal(fire(neuron, x, overwrite=False), factor * x)
        names.add(neuron_loops._stamp(space["update"]))
    assert names == {None}  # in no file: not stored
    assert neuron_loops._stamp(floor) != neuron_loops._stamp(faded)


def test_a_function_that_does_not_compile_is_the_plugins_fault() -> None:
    neuron = Floor()
    neuron.loop = lambda dtype: NeuronLoop(broken)  # type: ignore[method-assign]
    with pytest.raises(
        PluginError,
        match=r"update=.*\.broken, states=\('v',\).* cannot be compiled for torch.float32: .*no_such_thing.*Correct the",
    ):
        simulate_identity(neuron)


def broken(x: Any, v: Any) -> tuple[Any, Any]:
    return x.no_such_thing, v


def test_wrong_loops_are_refused() -> None:
    def enclosing(factor: float) -> Any:
        return lambda x, v: (factor * x, v)

    with pytest.raises(PluginError, match=r"the function encloses factor, .* hand over such values as constants"):
        NeuronLoop(enclosing(2.0))
    with pytest.raises(
        PluginError, match=r"states=\('a', 'b', 'c'\), clock=None\) is not allowed: a neuron has one or two"
    ):
        NeuronLoop(floor, states=("a", "b", "c"))
    with pytest.raises(PluginError, match=r"ChangeLoop\(.*<lambda>\) is not .* encloses factor"):
        ChangeLoop(enclosing(2.0))
