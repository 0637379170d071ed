"""A converted network on trial, which corrections can run, inspect and adjust before it is built."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..compat import is_plain_if, reset_net
from ..errors import CorrectionError
from ..support.blame import Culprit, blame
from ..support.shapes import along_axis
from ..support.wording import listed, shown

__all__ = ["Activation", "Activations", "Trial", "TrialRunner", "TrialSite"]

T_co = TypeVar("T_co")

Activation = Callable[["TrialSite", Tensor], Tensor]
"""Takes a site and its currents ``[T, N, ...]``; returns what the site emits, in the same shape and unit."""


class TrialSite:
    """One spiking layer of the network on trial, with its adjustments so far.

    Currents and outputs are in units of one spike at the mode's scale (λ, for an IF neuron), regardless of `scale`.

    Attributes:
        name: Qualified name of the layer.
        shape: Shape of one sample: ``[C, ...]``.
        binary: True for a neuron that emits 0 or 1, SpikingJelly's plain IF.
        scale: Factor of λ, ``[C]``.
        bias: Added to the current at every step, ``[C]``, in the units of the current.
        initial_potential: Membrane potential after a reset, in units of the (adjusted) threshold: ``[C, ...]``, or
            anything that broadcasts to it.
        largest_scale: Largest allowed `scale`, ``[C]``, if the activation has an upper bound (ReLU6); otherwise None.
    """

    def __init__(
        self,
        name: str,
        shape: tuple[int, ...],
        neuron: nn.Module,
        start: float,
        like: Tensor,
        largest_scale: Tensor | None = None,
        maker: Culprit | None = None,
    ) -> None:
        self.name, self.shape, self.largest_scale = name, shape, largest_scale
        self.binary = is_plain_if(neuron)
        self.scale = torch.ones(self.channels, dtype=like.dtype, device=like.device)
        self.bias = torch.zeros_like(self.scale)
        self.initial_potential = torch.full((1,) * len(shape), start, dtype=like.dtype, device=like.device)
        self._neuron, self._start = neuron, start
        self._maker = maker or Culprit("The neuron")

    @property
    def channels(self) -> int:
        """C."""
        return self.shape[0]

    def along_channels(self, value: Tensor) -> Tensor:
        """A vector ``[C]``, reshaped to broadcast over ``[C, ...]``."""
        return along_axis(value, len(self.shape))

    @torch.no_grad()
    def fire(
        self,
        currents: Tensor,
        *,
        scale: Tensor | None = None,
        bias: Tensor | None = None,
        initial_potential: Tensor | None = None,
    ) -> Tensor:
        """What the neuron emits after a reset; arguments override its own adjustments.

        Args:
            currents: ``[T, N, C, ...]``.
            scale: ``[C]``.
            bias: ``[C]``.
            initial_potential: Broadcasts to ``[C, ...]``.

        Returns:
            A tensor in the shape of `currents`, without gradient.
        """
        factor = self.along_channels(self.scale if scale is None else scale)
        potential = self.initial_potential if initial_potential is None else initial_potential
        driven = (currents + self.along_channels(self.bias if bias is None else bias)) / factor
        driven[0] += potential - self._start
        reset_net(self._neuron)
        self._neuron.step_mode = "m"  # type: ignore[assignment]
        with blame(self._maker, f"run on trial at {self.name}", self._neuron, "forward"):
            emitted: Tensor = self._neuron(driven) * factor
        reset_net(self._neuron)
        return emitted

    @property
    def added_potential(self) -> Tensor | None:
        """The potential to add to the neuron's own initial potential; None if it is zero."""
        added = self.initial_potential - self._start
        return added if bool(added.any()) else None

    def __repr__(self) -> str:
        return f"TrialSite({shown(self.name)}, shape={self.shape})"


@dataclass(frozen=True)
class Activations:
    """The ANN's activations and output.

    Attributes:
        sites: The activation ``[N, C, ...]`` of every site, in the units of its currents.
        output: The ANN's output.
    """

    sites: dict[str, Tensor]
    output: Any


class TrialRunner(Protocol):
    """Runs the network on trial and its ANN."""

    def inputs(self) -> tuple[Any, ...]:
        """All calibration inputs, joined."""

    def activations(self, inputs: tuple[Any, ...]) -> Activations:
        """The ANN's activations and output."""

    def run(self, inputs: tuple[Any, ...], steps: int, emit: Activation) -> Any:
        """The network's outputs ``[T, N, ...]``, with `emit` in place of its neurons."""


class Trial:
    """A converted network on trial, its calibration data and its ANN; see `Correction`.

    Attributes:
        sites: The spiking layers, in order of execution. Pairs of neurons that replace an activation of both signs run
            in the network but are not among the sites.
        adjusts_output: True if the network's output comes from one layer, whose bias can be adjusted.
        output_bias: The adjustment of the network's output so far, ``[classes]``.
        readout: Name and options of the readout for which the network is adjusted; None for any.
    """

    def __init__(
        self,
        sites: Iterable[TrialSite],
        runner: TrialRunner,
        *,
        output_channels: int | None,
        like: Tensor,
        progress: bool,
    ) -> None:
        self.sites = tuple(sites)
        self.adjusts_output = output_channels is not None
        self.output_bias = torch.zeros(output_channels or 0, dtype=like.dtype, device=like.device)
        self.readout: tuple[str, dict[str, Any]] | None = None
        self._runner, self._progress = runner, progress

    def __getitem__(self, name: str) -> TrialSite:
        """The site called `name`."""
        for site in self.sites:
            if site.name == name:
                return site
        raise KeyError(
            f"{shown(name)} is not a site on trial; the sites are {listed(site.name for site in self.sites)}"
        )

    def inputs(self, samples: int | None = None) -> Any:
        """The calibration inputs, joined: all, or the first `samples`; a tuple if the network takes several inputs.

        Raises:
            CalibrationError: The loader can be iterated only once.
        """
        joined = self._runner.inputs()
        taken = tuple(value[:samples] if isinstance(value, Tensor) and value.dim() else value for value in joined)
        return taken[0] if len(taken) == 1 else taken

    @torch.no_grad()
    def activations(self, inputs: Any) -> Activations:
        """The ANN's activations at every site for `inputs`, and its output."""
        return self._runner.activations(_as_tuple(inputs))

    def run(self, inputs: Any, steps: int, activation: Activation | None = None) -> Any:
        """The network's outputs ``[T, N, ...]`` at each of the first `steps` steps.

        Everything between the sites propagates gradients.

        Args:
            inputs: The network's input; a tuple for several inputs.
            steps: T.
            activation: Returns what a site emits for its currents ``[T, N, C, ...]``; by default, the neuron with its
                adjustments so far.
        """
        outputs = self._runner.run(_as_tuple(inputs), steps, activation or _fire)
        return outputs + self.output_bias if self.adjusts_output else outputs

    def adjust(
        self,
        name: str,
        *,
        scale: Tensor | None = None,
        bias: Tensor | None = None,
        initial_potential: Tensor | None = None,
    ) -> None:
        """Set the given adjustments of the site called `name`, replacing earlier ones.

        A scale is limited to `TrialSite.largest_scale`: a neuron that saturates above the activation's bound would
        differ from the ANN.

        Raises:
            CorrectionError: A value has the wrong shape, is not finite, or a scale is not positive.
        """
        site = self[name]
        checked = {
            what: _check_tensor(value, (site.channels,), site.scale, f"the {what} of {name}")
            for what, value in (("scale", scale), ("bias", bias))
            if value is not None
        }
        if initial_potential is not None:
            checked["initial_potential"] = _check_tensor(
                initial_potential, site.shape, site.scale, f"the initial potential of {name}", broadcasts=True
            )
        if scale is not None and not bool((scale > 0).all()):
            raise CorrectionError(f"The scale of {name} must be positive; it was set to {_extremes(scale)}.")
        if "scale" in checked and site.largest_scale is not None:
            checked["scale"] = checked["scale"].minimum(site.largest_scale)
        # Nothing is set unless everything is right.
        for what, value in checked.items():
            setattr(site, what, value)

    def adjust_output(self, bias: Tensor) -> None:
        """Set the adjustment of the network's output, ``[classes]``, in the ANN's units.

        Raises:
            CorrectionError: It has the wrong shape or is not finite, or no single layer produces the output.
        """
        if not self.adjusts_output:
            raise CorrectionError("The network's output does not come from one layer, so its bias cannot be adjusted.")
        self.output_bias = _check_tensor(bias, tuple(self.output_bias.shape), self.output_bias, "the output's bias")

    def suggest_readout(self, name: str, **options: Any) -> None:
        """Name the readout for which the network is adjusted; `simulate` and `evaluate` use it by default.

        Args:
            name: Name of a readout.
            options: Its options.
        """
        self.readout = name, options

    def progress(self, items: Iterable[T_co], what: str) -> Iterator[T_co]:
        """`items`, with a progress bar if the caller wants one."""
        yield from tqdm(items, desc=what, disable=not self._progress)


def _fire(site: TrialSite, currents: Tensor) -> Tensor:
    return site.fire(currents)


def _as_tuple(inputs: Any) -> tuple[Any, ...]:
    return inputs if isinstance(inputs, tuple) else (inputs,)


def _check_tensor(value: Any, shape: tuple[int, ...], like: Tensor, what: str, *, broadcasts: bool = False) -> Tensor:
    fits = isinstance(value, Tensor) and (
        tuple(value.shape) == shape or (broadcasts and _broadcasts(tuple(value.shape), shape))
    )
    if not fits:
        given = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        wanted = f"a tensor that broadcasts to {shape}" if broadcasts else f"a tensor of shape {shape}"
        raise CorrectionError(f"{what[:1].upper()}{what[1:]} was set to {given}; it must be {wanted}.")
    if not bool(value.isfinite().all()):
        raise CorrectionError(f"{what[:1].upper()}{what[1:]} was set to a value that is not finite.")
    found: Tensor = value.detach().to(like).clone()
    return found


def _broadcasts(given: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return len(given) == len(shape) and all(one in (1, other) for one, other in zip(given, shape, strict=True))


def _extremes(value: Tensor) -> str:
    return f"values from {float(value.min()):.4g} to {float(value.max()):.4g}"
