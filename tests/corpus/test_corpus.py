"""Networks in the manner of real code: each converts and is right in every way of running it, or is refused with a reason."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from sj_ann2snn import ConversionError, Converter, export, load_network, simulate
from sj_ann2snn.support.batches import forward_signature

from . import networks
from .forms import FORMS, Form

for module in pkgutil.iter_modules(networks.__path__, f"{networks.__name__}."):
    importlib.import_module(module.name)

CONVERTED = [form for form in FORMS if not form.refused]
REFUSED = [form for form in FORMS if form.refused]
STEPS = 1024
SPIKE = 0.05
"""What one spike more or less in 16 steps may do: the largest activation drives its neuron with just the threshold."""


def parts(output: Any) -> list[Tensor]:
    """Every tensor in an output of any structure."""
    if isinstance(output, Tensor):
        return [output]
    if dataclasses.is_dataclass(output):
        output = [getattr(output, one.name) for one in dataclasses.fields(output)]
    if isinstance(output, Mapping):
        output = list(output.values())
    return [tensor for item in output or [] for tensor in parts(item)]


def inputs_of(ann: nn.Module, batch: Any) -> tuple[Tensor, ...]:
    return forward_signature(ann, batch).inputs_of(batch)


def by_hand(snn: nn.Module, inputs: tuple[Tensor, ...], steps: int) -> list[Tensor]:
    functional.reset_net(snn)
    sums: list[Tensor] = []
    with torch.no_grad():
        for _ in range(steps):
            new = parts(snn(*(x.clone() for x in inputs)))
            sums = new if not sums else [one + other for one, other in zip(sums, new, strict=True)]
    functional.reset_net(snn)
    return [one / steps for one in sums]


def in_multi_step_mode(snn: nn.Module, inputs: tuple[Tensor, ...], steps: int) -> list[Tensor]:
    functional.set_step_mode(snn, "m")
    with torch.no_grad():
        outputs = parts(snn(*(x.expand(steps, *x.shape).contiguous() for x in inputs)))
    functional.set_step_mode(snn, "s")
    functional.reset_net(snn)
    return [one.mean(0) for one in outputs]


def assert_close(found: Any, wanted: list[Tensor], tolerance: float) -> None:
    found = parts(found)
    assert [one.shape for one in found] == [one.shape for one in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert torch.isfinite(one).all()
        norm = other.double().norm().clamp(min=1e-6)
        assert (one.double() - other.double()).norm() < tolerance * norm


@pytest.mark.parametrize("form", CONVERTED, ids=lambda form: form.name)
def test_it_converts_and_is_right_in_every_way(form: Form, tmp_path: Path) -> None:
    ann, batch = form.network(), form.data()
    state = copy.deepcopy(ann.state_dict())
    inputs = inputs_of(ann, batch)
    signature = forward_signature(ann, batch)
    full = copy.deepcopy(ann).float() if next(ann.parameters()).dtype == torch.float16 else ann
    with torch.no_grad():
        wanted = parts(signature.caller(full)(*(x.clone() for x in inputs)))

    snn = Converter([batch], progress=False)(ann)
    assert all(torch.equal(value, ann.state_dict()[name]) for name, value in state.items())
    assert_close(simulate(snn, inputs, T=STEPS), wanted, 0.05)

    answer = parts(simulate(snn, inputs, T=16))
    assert_close(by_hand(snn, inputs, 16), answer, SPIKE)
    assert_close(in_multi_step_mode(snn, inputs, 16), answer, SPIKE)
    assert_close(simulate(snn, tuple(x[:1] for x in inputs), T=16), [one[:1] for one in answer], SPIKE)
    export(snn, tmp_path / "network.zip")
    assert all(map(torch.equal, parts(simulate(load_network(tmp_path / "network.zip"), inputs, T=16)), answer))


@pytest.mark.parametrize("form", REFUSED, ids=lambda form: form.name)
def test_it_is_refused_with_the_reason(form: Form) -> None:
    with pytest.raises(ConversionError, match=rf"(?s){form.refused}"):
        Converter([form.data()], progress=False)(form.network())


def test_the_corpus_is_large_enough() -> None:
    assert len(FORMS) >= 50
    assert len({form.name for form in FORMS}) == len(FORMS)
