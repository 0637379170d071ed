"""Small networks, and ways of running them that owe nothing to the code under test."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from spikingjelly.activation_based import base, functional, neuron
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sj_ann2snn import (
    Ann2SnnError,
    Converter,
    Correction,
    InPlaceNeuron,
    NeuronMaker,
    NeuronSite,
    Scaler,
    Trial,
    simulate,
)

__all__ = [
    "Graded",
    "GradedMaker",
    "Residual",
    "StepBiases",
    "Written",
    "convert",
    "largest_activations",
    "multi_step",
    "randomized",
    "refusal",
    "relative_error",
    "run_by_hand",
    "scalers",
    "spikes_apart",
    "spikes_of",
    "using_threads",
    "watched",
]


class Written(nn.Module):
    """A network whose forward is a function of the network and its input."""

    def __init__(self, forward: Callable[[Any, Tensor], Any], **layers: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.written = forward

    def forward(self, x: Tensor) -> Any:
        return self.written(self, x)


class Residual(nn.Module):
    """Two 3×3 convolutions and a shortcut around them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.inside, self.outside = nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.outside(self.second(self.inside(self.first(x))) + x)
        return y


class StepBiases(Correction):
    """Random biases for the first steps of every neuron."""

    name = "step-biases"

    def __init__(self, steps: int = 3) -> None:
        self.steps = steps

    def correct(self, trial: Trial) -> None:
        for seed, site in enumerate(trial.sites):
            rows = torch.rand(self.steps, site.channels, generator=torch.Generator().manual_seed(seed))
            trial.adjust(site.name, step_bias=rows - 0.4)


def convert(ann: nn.Module, data: Any, **arguments: Any) -> Any:
    """The spiking network of `ann`, calibrated on one batch or on a list of batches."""
    loader = [data] if isinstance(data, Tensor) else data
    return Converter(loader, progress=False, **arguments)(ann)


def randomized(ann: nn.Module) -> nn.Module:
    """`ann` with random BatchNorm statistics and factors, as training leaves them, in eval mode."""
    for module in ann.modules():
        if not isinstance(module, _BatchNorm):
            continue
        if module.running_mean is not None:
            nn.init.normal_(module.running_mean, 0.0, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
        if module.weight is not None:
            nn.init.uniform_(module.weight, -1.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.3)
    return ann.eval()


def run_by_hand(snn: nn.Module, x: Tensor, steps: int, *more: Any) -> Tensor:
    """The loop of SpikingJelly's tutorial; the output of every step, ``[T, N, ...]``."""
    functional.reset_net(snn)
    with torch.no_grad():
        outputs = torch.stack([snn(x, *more) for _ in range(steps)])
    functional.reset_net(snn)
    return outputs


def multi_step(snn: nn.Module, x: Tensor, steps: int) -> Tensor:
    """All steps in one call in step mode "m"; the output of every step, ``[T, N, ...]``."""
    functional.reset_net(snn)
    functional.set_step_mode(snn, "m")
    try:
        with torch.no_grad():
            return snn(x.expand(steps, *x.shape).contiguous())
    finally:
        functional.set_step_mode(snn, "s")
        functional.reset_net(snn)


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """Largest difference, relative to the largest value that is wanted."""
    assert got.shape == wanted.shape
    return ((got - wanted).abs().max() / wanted.abs().max()).item()


def refusal(ann: nn.Module, data: Tensor, x: Tensor, *, steps: int = 600, tolerance: float = 0.03) -> str | None:
    """The package's own error for `ann`, or None if its spiking network does what `ann` does, however it is run."""
    with torch.no_grad():
        wanted = ann.eval()(x.clone())
    try:
        snn = convert(ann, data.clone())
    except Ann2SnnError as error:
        return str(error)
    by_hand = run_by_hand(snn, x, steps).mean(0)
    assert relative_error(by_hand, wanted) < tolerance
    assert relative_error(multi_step(snn, x, steps).mean(0), by_hand) < spikes_apart(steps)
    assert relative_error(simulate(snn, x, T=steps), by_hand) < spikes_apart(steps)
    return None


def spikes_apart(steps: int, spikes: int = 3) -> float:
    """The relative error that the order of summation may make over `steps` steps.

    The largest calibration activation drives its neuron with exactly the threshold, give or take the last bit. A Linear
    layer's product of nine samples differs in that bit from that of one and eight on some processors, and the neuron
    then fires a step later, or does not.
    """
    return spikes / steps


@contextmanager
def watched(network: nn.Module, kind: type[nn.Module] | tuple[type[nn.Module], ...]) -> Iterator[dict[str, list[Any]]]:
    """Collects what the modules of a kind put out while the context is open."""
    seen: dict[str, list[Any]] = {}
    handles = []

    def watch(name: str) -> Callable[..., None]:
        def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
            if isinstance(output, Tensor):  # not a size
                seen.setdefault(name, []).append(output.detach().clone())

        return keep

    for name, module in network.named_modules():
        if isinstance(module, kind):
            handles.append(module.register_forward_hook(watch(name)))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def spikes_of(snn: nn.Module, x: Tensor, steps: int) -> dict[str, Tensor]:
    """The spikes of every neuron, ``[T, N, ...]``, from a hand-written loop."""
    with watched(snn, neuron.BaseNode) as seen:
        run_by_hand(snn, x, steps)
    return {name: torch.stack(spikes) for name, spikes in seen.items()}


@contextmanager
def using_threads(count: int) -> Iterator[None]:
    """Lets torch use that many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def largest_activations(network: nn.Module, kind: type[nn.Module], batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """The largest output of every module of a kind over all batches."""
    with watched(network, kind) as seen, torch.no_grad():
        for batch in batches:
            network(batch)
    return {name: torch.stack([output.max() for output in outputs]).max() for name, outputs in seen.items()}


def scalers(network: nn.Module) -> list[str]:
    """Names of the scalers in a network."""
    return [name for name, module in network.named_modules() if isinstance(module, Scaler)]


def memories(network: nn.Module) -> list[str]:
    """Names of the modules with memory in a network."""
    return [name for name, module in network.named_modules() if isinstance(module, base.MemoryModule)]


class Graded(InPlaceNeuron):
    """Emits up to `levels` spikes in a step, and remembers how many it emitted."""

    def __init__(self, levels: int = 3) -> None:
        super().__init__(initial_potential=0.5)
        self.levels = levels
        self.register_memory("emitted", None)

    def start(self, x: Tensor) -> None:
        super().start(x)
        self.emitted = torch.zeros_like(x)

    def step(self, x: Tensor, out: Tensor) -> None:
        self.v += x
        torch.floor(self.v, out=out)
        out.clamp_(0, self.levels)
        self.v -= out
        self.emitted += out


class GradedMaker(NeuronMaker):
    name = "graded"

    def __init__(self, *, levels: int = 3) -> None:
        self.levels = levels

    def unit(self, scale: Tensor) -> Tensor:
        return scale / self.levels

    def make(self, site: NeuronSite) -> nn.Module:
        return Graded(self.levels)
