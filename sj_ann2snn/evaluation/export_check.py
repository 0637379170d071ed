"""Runs a network's file in another program and compares its spikes with the network's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..contracts.exporter import Exporter
from ..contracts.option_checks import require_integer
from ..errors import ExportError, InputError, PluginError
from ..hooks.kinds import EXPORTERS
from ..hooks.registry import culprit
from ..interchange.files import find_exporter
from ..simulation.engine import Call, Collector, Simulator
from ..simulation.engine.numbers.firing import is_spiking
from ..support.blame import Culprit, blame
from ..support.neutral import neutrally
from ..support.paths import AnyPath, checked_path
from ..support.wording import listed, shown

__all__ = ["ExportCheck", "SpikeDifference", "check_export"]


OUTPUT = "output"
"""The key under which `replay` may return the outputs."""

ROUNDING = 1e-4
"""Outputs that differ by a smaller share are equal: their last layer may add in another order."""


@dataclass(frozen=True)
class SpikeDifference:
    """A layer whose neurons emit something else in the other program.

    Attributes:
        layer: The neurons' label in the network.
        step: The first time step that differs, from 1.
        sample: The first sample that differs at that step, from 0.
        neurons: Neurons that differ at that step, over all samples.
        counts: Neurons, over all samples, whose sums over all steps differ.
    """

    layer: str
    step: int
    sample: int
    neurons: int
    counts: int

    def __str__(self) -> str:
        return (
            f"{self.layer}: the first spikes that differ are at step {self.step}, of {self.neurons:,} neurons "
            f"(sample {self.sample} is the first); over all steps, {self.counts:,} spike counts differ"
        )


@dataclass(frozen=True)
class ExportCheck:
    """What `check_export` found.

    Attributes:
        layers: Labels of the neurons that were compared, in the order of the network.
        samples: Number of samples.
        steps: Number of time steps.
        spikes: The network's own spikes, over all samples, steps and layers.
        differences: The layers that differ, in the order of the network.
        missing: Labels of neurons that the other program did not show.
        output_error: The largest difference between the outputs at a step, as a share of the largest output; None if
            the other program did not show its output.
    """

    layers: tuple[str, ...]
    samples: int
    steps: int
    spikes: int
    differences: tuple[SpikeDifference, ...]
    missing: tuple[str, ...] = ()
    output_error: float | None = None

    @property
    def agrees(self) -> bool:
        """True if every neuron emits the same at every step, and the outputs are equal but for rounding."""
        same_output = self.output_error is None or self.output_error <= ROUNDING
        return not self.differences and not self.missing and same_output

    @property
    def first(self) -> SpikeDifference | None:
        """The first layer that differs; the layers behind it may differ because of it."""
        return self.differences[0] if self.differences else None

    def __str__(self) -> str:
        over = f"{self.samples} sample{'s' if self.samples > 1 else ''}, {self.steps} steps, {self.spikes:,} spikes"
        lines = []
        if self.differences:
            lines.append(f"{len(self.differences)} of {len(self.layers)} layers differ ({over})")
            lines.append(f"  {self.first}")
        elif self.output_error is not None and self.output_error > ROUNDING:
            lines.append(
                f"all {len(self.layers)} layers of neurons agree ({over}), but the outputs differ by up to "
                f"{self.output_error:.3g} of the largest one"
            )
        if self.missing:
            lines.append(f"not shown by the other program: {listed(map(shown, self.missing))}")
        return "\n".join(lines) if lines else f"all {len(self.layers)} layers agree spike for spike ({over})"


@neutrally
def check_export(
    snn: nn.Module,
    path: AnyPath,
    x: Tensor,
    T: int,  # noqa: N803 - the field's name for the number of time steps
    format: str | Exporter | None = None,
    **options: Any,
) -> ExportCheck:
    """Run a file of `export` in the other program that its exporter knows, and compare every neuron at every step.

    >>> import tempfile, torch
    >>> from pathlib import Path
    >>> from sj_ann2snn import Converter, Exporter, check_export, load_network, replacing
    >>> class Counted(Exporter):
    ...     name = "counted"
    ...     def export(self, network, path):
    ...         with replacing(path) as file:
    ...             file.write(b"five spikes")
    ...     def replay(self, path, x, T):  # another program; this one emits a spike at every step
    ...         return {"1": torch.ones(T, len(x), 3)}
    >>> ann, x = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()), torch.zeros(2, 4)
    >>> snn = Converter([torch.rand(64, 4)], progress=False)(ann)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = check_export(snn, Path(folder) / "network", x, T=5, format=Counted())
    >>> found.agrees, found.first.layer, found.first.step
    (False, '1', 1)

    Args:
        snn: The network that was exported.
        path: The file.
        x: The inputs ``[N, ...]``, the same at every step. All spikes of all samples are kept, so give a few.
        T: Number of time steps.
        format: As for `export`, with the same options.
        options: Options for a format given by name.

    Raises:
        ExportError: The exporter has no check, or cannot run this file: the other program is missing, say.
        InputError: `x` is no tensor of samples, or the network has no neurons.
        OptionError: The format or an option is unknown, or `path` is no path.
    """
    steps = require_integer("T", T, what="the number of time steps", error=InputError)
    if not isinstance(x, Tensor) or x.dim() < 2 or not len(x):
        raise InputError(f"check_export compares the spikes for a tensor [N, ...] of samples, not for {shown(x)}.")
    source = checked_path(path, ExportError, "checked")
    exporter = find_exporter(source, format, options)
    own, outputs = _spikes(snn, x, steps)
    who = culprit(EXPORTERS, exporter.name)
    with blame(who, f"asked to check {source}", exporter, "replay"):
        try:
            found: Any = exporter.replay(source, x, steps)
        except OSError as error:
            raise ExportError(f"{source} cannot be checked: {error.strerror or error}.") from error
    theirs = _checked(found, own if outputs is None else {**own, OUTPUT: outputs}, who)
    off = None if outputs is None or OUTPUT not in theirs else _error(outputs, theirs[OUTPUT])
    return replace(_compared(own, theirs, len(x), steps), output_error=off)


def _spikes(snn: nn.Module, x: Tensor, steps: int) -> tuple[dict[str, Tensor], Tensor | None]:
    """What every layer of neurons emits, ``[T, N, ...]``, by label; and the outputs, if they are one tensor."""
    tiles = Simulator(snn, steps).run_all((x,), lambda _: _Recorder())
    joined = {label: torch.cat([spikes[label] for spikes, _ in tiles], 1) for label in tiles[0][0]}
    outputs = [one for _, one in tiles if one is not None]
    if not joined:
        raise InputError(
            f"This {type(snn).__name__} has no neurons to compare; give the network that Converter(...)(ann) returned."
        )
    return joined, torch.cat(outputs, 1) if outputs and OUTPUT not in joined else None


class _Recorder(Collector):
    """Keeps what the neurons of a tile emit."""

    def __init__(self) -> None:
        self._seen: dict[str, list[Tensor]] = {}
        self._outputs: list[Tensor] = []

    def watch(self, call: Call) -> None:
        """Keep the spikes, which the next layer may overwrite."""
        if isinstance(call.operation, nn.Module) and is_spiking(call.operation):
            spikes = call.result if call.over_time else call.result[None]
            self._seen.setdefault(call.name, []).append(spikes.detach().cpu().clone())

    def add(self, outputs: Any) -> None:
        """Keep the outputs, if they are one tensor."""
        if isinstance(outputs, Tensor):
            self._outputs.append(outputs.detach().cpu().clone())

    def result(self) -> tuple[dict[str, Tensor], Tensor | None]:
        spikes = {label: torch.cat(stretches) for label, stretches in self._seen.items()}
        return spikes, torch.cat(self._outputs) if self._outputs else None


def _checked(found: Any, own: Mapping[str, Tensor], who: Culprit) -> Mapping[str, Tensor]:
    """What an exporter's `replay` returned.

    Raises:
        PluginError: It is no mapping of labels to tensors of the network's shapes.
    """
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise PluginError(
            f"{who} returned {shown(found)} from replay(); it must return a dict of tensors [T, N, ...] by the labels "
            f"of the neurons. {who.advice}"
        )
    for label, spikes in own.items():
        if label in found and _size(found[label].shape) != _size(spikes.shape):
            raise PluginError(
                f"{who} returned spikes of the shape {list(found[label].shape)} for {label!r} from replay(); the "
                f"network's are {list(spikes.shape)}, [T, N, ...]. {who.advice}"
            )
    return found


def _size(shape: Sequence[int]) -> tuple[int, ...]:
    """Steps, samples and neurons: a program may keep neurons in another shape, in the same order."""
    return (*shape[:2], torch.Size(shape[2:]).numel())


def _error(ours: Tensor, theirs: Tensor) -> float:
    ours, theirs = ours.flatten(2).double(), theirs.detach().cpu().flatten(2).double()
    largest = max(float(ours.abs().max()), float(theirs.abs().max()))
    return float((ours - theirs).abs().max()) / largest if largest else 0.0


def _compared(own: Mapping[str, Tensor], found: Mapping[str, Tensor], samples: int, steps: int) -> ExportCheck:
    compared = [label for label in own if label in found]
    differences = []
    for label in compared:
        ours = own[label].flatten(2)
        theirs = found[label].detach().cpu().flatten(2).to(ours.dtype)
        differ = ours != theirs
        if bool(differ.any()):
            step = int(differ.flatten(1).any(1).nonzero()[0])
            differences.append(
                SpikeDifference(
                    label,
                    step + 1,
                    int(differ[step].any(1).nonzero()[0]),
                    int(differ[step].sum()),
                    int((ours.sum(0) != theirs.sum(0)).sum()),
                )
            )
    spikes = sum(int(one.abs().sum(dtype=torch.float64)) for one in own.values())
    missing = tuple(label for label in own if label not in found)
    return ExportCheck(tuple(compared), samples, steps, spikes, tuple(differences), missing)
