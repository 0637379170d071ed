"""Networks inside wrappers, with weights that are computed or no parameters, with state, and in TorchScript."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.optim.swa_utils import AveragedModel

from sj_ann2snn import ConversionError, Converter, TracingError, evaluate, simulate

from ..helpers.networks import Written, convert, relative_error


def mlp(out: int = 3) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, out)).eval()


def vectors(count: int = 12) -> Tensor:
    return torch.randn(count, 4)


def spiking_layers(snn: nn.Module, x: Tensor) -> list[str]:
    result = evaluate(snn, [(x, torch.zeros(len(x)).long())], T=4, progress=False)
    return [layer.name for layer in result.layers]


@contextmanager
def alone() -> Iterator[None]:
    """A process group of one process."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "DataParallel": nn.DataParallel,
    "DistributedDataParallel": nn.parallel.DistributedDataParallel,
    "AveragedModel": AveragedModel,
    "torch.compile": torch.compile,
    "twice": lambda network: AveragedModel(nn.DataParallel(network)),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_wrappers_are_looked_into(wrap: Callable[[nn.Module], nn.Module]) -> None:
    x = vectors()
    with alone():
        around, inside = wrap(mlp()), nn.Sequential(wrap(mlp(4)), nn.ReLU(), nn.Linear(4, 2)).eval()
        plain = nn.Sequential(mlp(4), nn.ReLU(), inside[2])
        snn = convert(around, x)
        assert torch.equal(simulate(snn, x, T=64), simulate(convert(mlp(), x), x, T=64))
        assert len(spiking_layers(snn, x)) == 1
        snn = convert(inside, x)
        assert torch.equal(simulate(snn, x, T=64), simulate(convert(plain, x), x, T=64))
        assert len(spiking_layers(snn, x)) == 2


def pruned() -> nn.Module:
    ann = mlp()
    prune.l1_unstructured(ann[2], "weight", amount=0.5)
    prune.random_structured(ann[0], "weight", amount=0.25, dim=0)
    prune.l1_unstructured(ann[0], "bias", amount=0.5)
    return ann


def pruned_twice() -> nn.Module:
    ann = mlp()
    prune.l1_unstructured(ann[2], "weight", amount=0.3)
    prune.random_unstructured(ann[2], "weight", amount=0.3)
    return ann


def weights_in_buffers() -> nn.Module:
    ann = mlp()
    for layer in (ann[0], ann[2]):
        for name in ("weight", "bias"):
            value = layer._parameters.pop(name)
            layer.register_buffer(name, value.detach())
    return ann


def plain_tensors() -> nn.Module:
    ann = mlp()
    weight = ann[2]._parameters.pop("weight")
    ann[2].weight = weight.detach() * 2
    return ann


class Equalized:
    """The learning rate equalized in the manner of GANs: a hook computes the weight before every call."""

    def __init__(self, layer: nn.Module) -> None:
        weight = layer._parameters.pop("weight")
        layer.register_parameter("weight_orig", nn.Parameter(weight.data))
        layer.register_forward_pre_hook(self)

    def __call__(self, layer: Any, inputs: Any) -> None:
        layer.weight = layer.weight_orig * 1.5


def equalized() -> nn.Module:
    ann = mlp()
    Equalized(ann[2])
    return ann


def convolutions() -> nn.Module:
    torch.manual_seed(2)
    ann = nn.Sequential(
        parametrizations.weight_norm(nn.Conv1d(1, 4, 3)), nn.BatchNorm1d(4), nn.ReLU(),
        parametrizations.spectral_norm(nn.Conv1d(4, 2, 1)), nn.ReLU(), nn.Flatten(),
        parametrizations.orthogonal(nn.Linear(4, 3)),
    )  # fmt: skip
    return nn.Sequential(nn.Unflatten(1, (1, 4)), *ann).eval()


def old_norms() -> nn.Module:
    ann = mlp()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ann[0] = nn.utils.weight_norm(ann[0])
        ann[2] = nn.utils.spectral_norm(ann[2])
    return ann.eval()


WEIGHTS = [
    pruned, pruned_twice, weights_in_buffers, plain_tensors, equalized, convolutions, old_norms,
]  # fmt: skip


@pytest.mark.parametrize("called", [False, True], ids=["fresh", "called before"])
@pytest.mark.parametrize("make", WEIGHTS, ids=lambda make: make.__name__)
def test_weights_that_are_computed_or_no_parameters(make: Callable[[], nn.Module], called: bool) -> None:
    ann, x = make(), vectors()
    if called:
        ann(x)  # with gradients, so that computed weights have a history
    wanted = ann(x).detach()
    state, hooks = copy.deepcopy(ann.state_dict()), [len(child._forward_pre_hooks) for child in ann.modules()]
    snn = convert(ann, x)
    assert relative_error(simulate(snn, x, T=1024), wanted) < 0.02
    assert all(torch.equal(value, ann.state_dict()[name]) for name, value in state.items())
    assert hooks == [len(child._forward_pre_hooks) for child in ann.modules()]
    assert not [name for name in snn.state_dict() if "_orig" in name or "_mask" in name]
    ann(x)


def scripted(network: nn.Module, how: str) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(network) if how == "script" else torch.jit.trace(network, vectors())  # type: ignore[no-any-return]


@pytest.mark.parametrize("method", ["__call__", "check", "normalize"])
@pytest.mark.parametrize("how", ["script", "trace"])
def test_torchscript_is_refused_by_name(how: str, method: str) -> None:
    converter = Converter([vectors()], progress=False)
    with pytest.raises(TracingError, match=r"The network is TorchScript.*load_state_dict"):
        getattr(converter, method)(scripted(mlp(), how))
    with pytest.raises(TracingError, match=r"holds TorchScript \('0'\)"):
        getattr(converter, method)(nn.Sequential(scripted(mlp(4), how), nn.ReLU(), nn.Linear(4, 2)))


class Recurrent(nn.Module):
    """Keeps its last current somewhere."""

    def __init__(self, keep: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.keep = mlp(), keep
        self.last: Any = None
        self.history: list[Tensor] = []
        self.register_buffer("state", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        h = self.net[0](x)
        return self.net[2](torch.relu(h + self.keep(self, h)))  # type: ignore[no-any-return]


def attribute(net: Any, h: Tensor) -> Tensor:
    before, net.last = net.last, h
    return torch.zeros_like(h) if before is None else before


def in_a_list(net: Any, h: Tensor) -> Tensor:
    net.history.append(h)
    return sum(net.history[:-1], torch.zeros_like(h))


def counter(net: Any, h: Tensor) -> Tensor:
    net.last = (net.last or 0) + 1
    return h * net.last


def replaced_buffer(net: Any, h: Tensor) -> Tensor:
    before, net.state = net.state, h.mean(0)
    return before


def written_buffer(net: Any, h: Tensor) -> Tensor:
    net.state += h.mean(0)
    return net.state


@pytest.mark.parametrize(
    ("keep", "what"),
    [(attribute, "last"), (in_a_list, "history"), (counter, "last"), (replaced_buffer, "state"),
     (written_buffer, "state")],
)  # fmt: skip
def test_state_between_calls_is_refused_and_named(keep: Any, what: str) -> None:
    with pytest.raises(ConversionError, match=rf"keeps state between calls.*{what}"):
        convert(nn.Sequential(Recurrent(keep)).eval(), vectors())


def memo(net: Any, h: Tensor) -> Tensor:
    net.last = h  # kept for a look at it, never read
    net.history = [h]
    return torch.zeros_like(h)


def cache(net: Any, h: Tensor) -> Tensor:
    if net.last is None or net.last.shape[0] != h.shape[1]:
        net.last = torch.arange(h.shape[1]) / 8
    return net.last  # type: ignore[no-any-return]


@pytest.mark.parametrize("keep", [memo, cache])
def test_what_is_kept_without_changing_results_is_allowed(keep: Any) -> None:
    ann, x = Recurrent(keep).eval(), vectors()
    snn = convert(ann, x)
    assert ann.last is None
    assert relative_error(simulate(snn, x, T=512), ann(x).detach()) < 0.02


def test_every_module_that_cannot_be_traced_is_named_at_once() -> None:
    def data_dependent(net: Any, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x

    def loops(net: Any, x: Tensor) -> Tensor:
        return torch.stack(list(x))

    ann = nn.Sequential(
        Written(data_dependent),
        nn.Linear(4, 4),
        nn.ReLU(),
        nn.Sequential(Written(loops), nn.ReLU()),
        Written(data_dependent),
    ).eval()
    with pytest.raises(TracingError, match="cannot trace 3 modules of the network") as caught:
        convert(ann, vectors())
    lines = str(caught.value).splitlines()
    assert [line.split()[1] for line in lines[1:4]] == ["'0'", "'3.0'", "'4'"]
    assert "the value of a tensor decides" in lines[1]
    assert "number of samples decides" in lines[2]
    assert f"{__file__}:{data_dependent.__code__.co_firstlineno + 1}" in lines[3]
    assert "convert_only" in lines[-1]


class ManyInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()

    def forward(self, *inputs: Tensor, **more: Tensor) -> Tensor:
        return self.net(*inputs, *more.values())  # type: ignore[no-any-return]


class Optional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()

    def forward(
        self, input_ids: Any = None, pixel_values: Any = None, labels: Any = None, *, scale: Any = None
    ) -> dict[str, Tensor]:
        if pixel_values is None:
            raise ValueError("You have to specify pixel_values")
        logits = self.net(pixel_values if scale is None else pixel_values * scale)
        out = {"logits": logits}
        if labels is not None:
            out["loss"] = nn.functional.cross_entropy(logits, labels)
        return out


def test_any_number_of_inputs() -> None:
    x, labels = vectors(), torch.zeros(12).long()
    wanted = simulate(convert(mlp(), x), x, T=32)
    for batch in (x, (x, labels), [x, labels], {"image": x}, {"image": x, "label": labels}):
        snn = Converter([batch], progress=False)(ManyInputs())
        assert torch.equal(simulate(snn, x, T=32), wanted)


def test_optional_inputs_that_a_batch_gives() -> None:
    x, scale = vectors(), torch.full((12, 1), 2.0)
    wanted = simulate(convert(mlp(), x), x, T=32)
    for batch in ({"pixel_values": x}, {"pixel_values": x, "labels": torch.zeros(12).long(), "id": ["a"] * 12}):
        snn = Converter([batch], progress=False)(Optional())
        assert torch.equal(simulate(snn, x, T=32)["logits"], wanted)
        labelled = [{"pixel_values": x, "labels": torch.zeros(12).long()}]
        assert list(simulate(snn, x, T=4)) == ["logits"], labelled
    snn = Converter([{"pixel_values": x, "scale": scale}], progress=False)(Optional())
    assert relative_error(simulate(snn, (x, scale), T=512)["logits"], mlp()(x * 2).detach()) < 0.02
