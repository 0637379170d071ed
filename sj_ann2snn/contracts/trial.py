"""A converted network on trial, which corrections can run, inspect and adjust before it is built."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..errors import CorrectionError
from ..support.trees import map_leaves
from ..support.wording import listed, shown
from .trial_layer import Arriving, TrialLayer
from .trial_output import TrialOutput
from .trial_site import TrialSite

__all__ = ["Activation", "Activations", "Arriving", "Trial", "TrialLayer", "TrialOutput", "TrialRunner", "TrialSite"]

T_co = TypeVar("T_co")

Activation = Callable[[TrialSite, Tensor], Tensor]
"""Takes a site and its currents ``[T, N, ...]``; returns what the site emits, in the same shape and unit."""


@dataclass(frozen=True)
class Activations:
    """The ANN's activations and output.

    Attributes:
        sites: The activation ``[N, C, ...]`` of every site, in the units of its currents.
        output: The ANN's output.
        layers: The result ``[N, ...]`` of every layer in `Trial.layers`, in the ANN's units.
    """

    sites: dict[str, Tensor]
    output: Any
    layers: dict[str, Tensor] = field(default_factory=dict)


class TrialRunner(Protocol):
    """Runs the network on trial and its ANN."""

    def inputs(self) -> tuple[Any, ...]:
        """All calibration inputs, joined."""

    def activations(self, inputs: tuple[Any, ...]) -> Activations:
        """The ANN's activations and output."""

    def run(
        self,
        inputs: tuple[Any, ...],
        steps: int,
        emit: Activation,
        weights: Mapping[str, Tensor],
        arriving: Arriving | None,
    ) -> Any:
        """The network's outputs ``[T, N, ...]``, with `emit` in place of its neurons and `weights` in its layers."""


class Trial:
    """A converted network on trial, its calibration data and its ANN; see `Correction`.

    Attributes:
        sites: The spiking layers, in order of execution. An activation of both signs is replaced by two neurons, and
            each of them is a site.
        outputs: The tensors that the network returns, in order.
        layers: The layers whose weights may change, in order of execution; empty unless `tunes_weights`.
        tunes_weights: True if the caller allows weights to change, by ``Converter(weights="tuned")``.
        notes: What corrections have said for the report.
        readout: Name and options of the readout for which the network is adjusted; None for any.
    """

    def __init__(
        self,
        sites: Iterable[TrialSite],
        runner: TrialRunner,
        *,
        outputs: Iterable[TrialOutput],
        progress: bool,
        layers: Iterable[TrialLayer] | None = None,
    ) -> None:
        self.sites, self.outputs = tuple(sites), tuple(outputs)
        self.layers, self.tunes_weights = tuple(layers or ()), layers is not None
        self.notes: tuple[str, ...] = ()
        self.readout: tuple[str, dict[str, Any]] | None = None
        self._runner, self._progress = runner, progress

    @property
    def adjusts_output(self) -> bool:
        """True if the network returns one tensor, which comes from one layer, whose bias can be adjusted."""
        return len(self.outputs) == 1 and self.outputs[0].adjustable and not self.outputs[0].name

    @property
    def output_bias(self) -> Tensor:
        """The adjustment of the network's only output so far, ``[C]``; empty if it cannot be adjusted."""
        return self.outputs[0].bias if self.adjusts_output else torch.zeros(0)

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

    def layer(self, name: str) -> TrialLayer:
        """The layer called `name`, whose weights may change.

        Raises:
            CorrectionError: The caller does not allow weights to change, or there is no such layer.
        """
        if not self.tunes_weights:
            raise CorrectionError(
                f"The weights of {shown(name)} may not change: the converter was not given weights='tuned'. Convert "
                "with Converter(..., weights='tuned'), or have the correction look at trial.tunes_weights first."
            )
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise CorrectionError(
            f"{shown(name)} is not a layer whose weights may change; these are "
            f"{listed(layer.name for layer in self.layers) or 'none'}."
        )

    def run(
        self,
        inputs: Any,
        steps: int,
        activation: Activation | None = None,
        *,
        weights: Mapping[str, Tensor] | None = None,
        arriving: Arriving | None = None,
    ) -> Any:
        """The network's outputs ``[T, N, ...]`` at each of the first `steps` steps, nested as the network returns them.

        Everything between the sites propagates gradients, if they are enabled. The layers run one after the other, each
        over all steps, so what `activation` and `arriving` adjust at a site or layer takes effect there.

        Args:
            inputs: The network's input; a tuple for several inputs.
            steps: T.
            activation: Returns what a site emits for its currents ``[T, N, C, ...]``; by default, the neuron with its
                adjustments so far.
            weights: By the names of `layers`, weights to run with instead of those so far; gradients reach them.
            arriving: Called with every layer of `layers` and the inputs ``[T, N, ...]`` that arrive there, without
                gradients and in the ANN's units, before the layer computes; T is 1 in front of the first neuron.

        Raises:
            CorrectionError: `weights` or `arriving` is given, but the caller does not allow weights to change; or
                `weights` names no layer, or has another shape or values that are not finite.
        """
        given = {name: self._checked_weight(name, weight) for name, weight in (weights or {}).items()}
        if arriving is not None and not self.tunes_weights:
            raise CorrectionError(
                "run(arriving=...) shows the inputs of layers whose weights may change, but the converter was not "
                "given weights='tuned'. Convert with Converter(..., weights='tuned'), or have the correction look at "
                "trial.tunes_weights first."
            )
        outputs = self._runner.run(_as_tuple(inputs), steps, activation or _fire, given, arriving)
        biases = {place: one for one in self.outputs if one.adjustable for place in one._places}
        place = itertools.count()

        def biased(leaf: Any) -> Any:
            output = biases.get(next(place))
            return leaf if output is None else leaf + output.along_channels(output.bias, leaf.dim() - 1)

        return map_leaves(outputs, biased)

    def adjust(
        self,
        name: str,
        *,
        scale: Tensor | None = None,
        bias: Tensor | None = None,
        step_bias: Tensor | None = None,
        initial_potential: Tensor | None = None,
    ) -> None:
        """Set the given adjustments of the site called `name`, replacing earlier ones.

        A scale is limited to `TrialSite.largest_scale`: a neuron that saturates above the activation's bound would
        differ from the ANN.

        Args:
            name: Name of the site.
            scale: ``[C]``; see `TrialSite.scale`.
            bias: ``[C]``; see `TrialSite.bias`.
            step_bias: ``[T, C]``, for any T; see `TrialSite.step_bias`. The network that is built counts the steps
                from its reset.
            initial_potential: Broadcasts to ``[C, ...]``; see `TrialSite.initial_potential`.

        Raises:
            CorrectionError: A value has the wrong shape, is not finite, or a scale is not positive.
        """
        site = self[name]
        checked = {
            what: _check_tensor(value, (site.channels,), site.scale, f"the {what} of {name}")
            for what, value in (("scale", scale), ("bias", bias))
            if value is not None
        }
        if step_bias is not None:
            checked["step_bias"] = _check_steps(step_bias, site, f"the step bias of {name}")
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

    def adjust_weight(self, name: str, weight: Tensor) -> None:
        """Set the weights of the layer called `name`, in the ANN's units and in the shape of `TrialLayer.weight`.

        Raises:
            CorrectionError: The caller does not allow weights to change, there is no such layer, or the weights have
                another shape or are not finite.
        """
        self.layer(name).weight = self._checked_weight(name, weight).detach().clone()

    def adjust_output(self, bias: Tensor, output: str | None = None) -> None:
        """Set the adjustment of an output's bias, ``[C]``, in the ANN's units.

        Args:
            bias: Per channel (class).
            output: Name of the output, if the network returns several (`TrialOutput.name`).

        Raises:
            CorrectionError: It has the wrong shape or is not finite, no output has that name, or no single layer
                produces the output.
        """
        found = self._output(output)
        what = f"the output's bias{f' ({found.name})' if found.name else ''}"
        if not found.adjustable:
            which = f" {found.name}" if found.name else ""
            raise CorrectionError(
                f"The network's output{which} does not come from one layer, so its bias cannot be adjusted."
            )
        found.bias = _check_tensor(bias, (found.channels,), found.bias, what)

    def note(self, text: str) -> None:
        """Add a line to the report of the conversion; it appears behind the correction's name."""
        self.notes = (*self.notes, text)

    def suggest_readout(self, name: str, **options: Any) -> None:
        """Name the readout for which the network is adjusted; `simulate` and `evaluate` use it by default.

        Args:
            name: Name of a readout.
            options: Its options.
        """
        self.readout = name, options

    def _checked_weight(self, name: str, weight: Any) -> Tensor:
        """`weight` as the layer called `name` takes it, still with its gradient."""
        layer = self.layer(name)
        what = f"the weight of {layer.name}"
        _check_tensor(weight, layer.shape, layer.weight, what)
        if not weight.is_floating_point():
            raise CorrectionError(f"{what[:1].upper()}{what[1:]} was set to {weight.dtype}; it must be floating point.")
        taken: Tensor = weight.to(layer.weight)
        return taken

    def _output(self, name: str | None) -> TrialOutput:
        matching = [one for one in self.outputs if name is None or one.name == name]
        if len(matching) == 1:
            return matching[0]
        known = ", ".join(repr(one.name) for one in self.outputs)
        if name is None:
            raise CorrectionError(
                f"The network returns {len(self.outputs)} tensors, so adjust_output needs the name of one of them: "
                f"{known or 'there are none'}."
            )
        raise CorrectionError(f"{name!r} is not an output of the network; the outputs are {known or 'none'}.")

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


def _check_steps(value: Any, site: TrialSite, what: str) -> Tensor:
    """A step bias ``[T, C]``, for any T of at least one."""
    if isinstance(value, Tensor) and value.dim() == 2 and len(value) and value.shape[1] == site.channels:
        return _check_tensor(value, tuple(value.shape), site.scale, what)
    given = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
    raise CorrectionError(
        f"{what[:1].upper()}{what[1:]} was set to {given}; it must be a tensor of shape (T, {site.channels}), with a "
        "row for each of the first T steps."
    )


def _broadcasts(given: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return len(given) == len(shape) and all(one in (1, other) for one, other in zip(given, shape, strict=True))


def _extremes(value: Tensor) -> str:
    return f"values from {float(value.min()):.4g} to {float(value.max()):.4g}"
