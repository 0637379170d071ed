"""Runs a network on trial: its own graph, with a probe in place of each neuron."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx

from ..compat import reset_net
from ..contracts.trial import Activation, Activations, TrialSite
from ..contracts.trial_layer import Arriving
from ..errors import Ann2SnnError, CalibrationError, CorrectionError, PluginError
from ..layers import MemoryLayer
from ..simulation.engine.flow import Flow
from ..simulation.engine.outputs import concatenate, plain
from ..simulation.engine.runner import Runner
from ..simulation.engine.tiling import Tiling
from ..support.batches import describe_batch, move, to_full_precision
from ..support.blame import Culprit
from ..support.makers import plugin_failure
from ..support.trees import tensors
from ..support.untouched import Untouched
from ..support.wording import is_fault
from .channel_layout import ChannelLayout
from .draft import Draft
from .trial_layers import LayerProbe

__all__ = ["GraphRunner", "Probe", "Unit"]


class Probe(MemoryLayer):
    """Takes the place of a site's neuron, and passes its currents to the activation under trial."""

    emit: Activation | None = None

    def __init__(self, site: TrialSite, layout: ChannelLayout) -> None:
        super().__init__()
        self.site, self.layout = site, layout

    def multi_step_forward(self, x_seq: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        assert self.emit is not None
        x_seq = self.layout.to_front(x_seq, before=2)
        emitted: Any = self.emit(self.site, x_seq)
        if not isinstance(emitted, Tensor) or emitted.shape != x_seq.shape:
            given = f"shape {tuple(emitted.shape)}" if isinstance(emitted, Tensor) else repr(emitted)
            raise CorrectionError(
                f"The activation given to run() returned {given} at {self.site.name}; it must return a tensor with the "
                f"shape of the currents, {tuple(x_seq.shape)}."
            )
        return self.layout.to_place(emitted, before=2)


@dataclass(frozen=True)
class Unit:
    """The name of a site, the value of one of its spikes, and where it has its channels.

    Attributes:
        current: The ANN's value with both signs, of which the site emits one; None if that is the activation itself.
        negated: True for the site of the negative sign.
    """

    name: str
    value: Tensor
    layout: ChannelLayout
    current: fx.Node | None = None
    negated: bool = False


class GraphRunner:
    """Runs a network and its ANN for a `Trial`; see `TrialRunner`.

    Args:
        network: The rewritten network with a `Probe` at every site and a `LayerProbe` for every layer that may change.
        draft: The draft it was built from.
        units: For the ANN's nodes that have sites, the units of their activations.
        layers: The names of the layers that may change, by the ANN's nodes.
        batches: The calibration data.
    """

    def __init__(
        self,
        network: fx.GraphModule,
        draft: Draft,
        units: Mapping[fx.Node, Sequence[Unit]],
        layers: Mapping[fx.Node, str],
        batches: Iterable[Any],
    ) -> None:
        self._network, self._ann, self._units, self._layers = network, draft.module, units, layers
        self._batches, self._signature, self._device = batches, draft.signature, draft.device
        self._probes = [module for module in network.modules() if isinstance(module, Probe)]
        self._layer_probes = [module for module in network.modules() if isinstance(module, LayerProbe)]
        self._inputs: tuple[Any, ...] | None = None
        self._before: Untouched | None = None
        self._who = Culprit("The correction")
        flow = Flow.of(network)
        assert flow is not None, "probes and neurons are modules with memory"
        # Overwrite no values, because corrections may need gradients.
        self._flow = replace(flow, exclusive=frozenset(), sums={})

    def inputs(self) -> tuple[Any, ...]:
        """All calibration inputs, joined.

        Raises:
            CalibrationError: The loader can be iterated only once.
        """
        if self._inputs is None:
            batches = [self._prepare(batch) for batch in self._batches]
            if not batches:
                raise CalibrationError(
                    "The calibration data can be iterated only once, but a correction needs it again. Give "
                    "Converter(dataloader=...) something that can be iterated repeatedly: a DataLoader or a list."
                )
            self._inputs = tuple(_joined(values) for values in zip(*batches, strict=True))
            self._before = Untouched(tensors(self._inputs), exact=True)
        return self._inputs

    @contextmanager
    def watched(self, who: Culprit) -> Iterator[None]:
        """Check that the correction that runs inside leaves the inputs as they are; the next ones need them.

        Raises:
            PluginError: It wrote to them.
        """
        self._who = who
        yield
        if self._before is not None and self._before.changed():
            raise PluginError(
                f"{who} writes to the calibration inputs, which trial.inputs() shows to every correction. Work on a "
                f"copy (x.clone()). {who.advice}"
            )

    def activations(self, inputs: tuple[Any, ...]) -> Activations:
        """The ANN's activations and output."""
        recorder = _ActivationRecorder(self._ann, self._units, self._layers)
        with torch.no_grad():
            output = recorder.run(*inputs)
        return Activations(recorder.seen, output, recorder.results)

    def run(
        self,
        inputs: tuple[Any, ...],
        steps: int,
        emit: Activation,
        weights: Mapping[str, Tensor] = MappingProxyType({}),
        arriving: Arriving | None = None,
    ) -> Any:
        """The network's outputs ``[T, N, ...]``, with `emit` in place of its neurons and `weights` in its layers."""
        for probe in self._probes:
            probe.emit = self._guarded(emit)
        for layer in self._layer_probes:
            layer.given, layer.arriving = weights.get(layer.layer.name), arriving
        runner = Runner(self._network, self._flow, steps, Tiling("cpu", steps), shortcuts=False)
        try:
            return plain(runner.outputs(inputs))
        except Ann2SnnError:
            raise
        except BaseException as error:
            if not is_fault(error):
                raise
            # A probe runs the correction's own code; neurons that it may not adjust run as they are.
            own = (Probe, LayerProbe)
            layers = [(name, one) for name, one in runner.modules.items() if not isinstance(one, own)]
            failure = plugin_failure(self._network, layers, describe_batch(inputs), error)
            if failure is None:
                raise
            raise failure from error
        finally:
            for probe in self._probes:
                probe.emit = None
            for layer in self._layer_probes:
                layer.given = layer.arriving = None
            reset_net(self._network)

    def _guarded(self, emit: Activation) -> Activation:
        """`emit`, which must leave the currents as they are."""

        def guarded(site: TrialSite, currents: Tensor) -> Tensor:
            before = Untouched([currents])
            emitted = emit(site, currents)
            if before.changed():
                raise PluginError(
                    f"{self._who}, running the network on trial, writes to the currents of {site.name}, which others "
                    f"read as well; its activation must return a new tensor. {self._who.advice}"
                )
            return emitted

        return guarded

    def _prepare(self, batch: Any) -> tuple[Any, ...]:
        return tuple(move(to_full_precision(value), self._device) for value in self._signature.inputs_of(batch))


class _ActivationRecorder(fx.Interpreter):
    """Runs the ANN and records the activations of the sites, in units of a spike, and the results of the layers."""

    def __init__(
        self, ann: fx.GraphModule, units: Mapping[fx.Node, Sequence[Unit]], layers: Mapping[fx.Node, str]
    ) -> None:
        super().__init__(ann)
        self.extra_traceback = False
        self.units, self.layers = units, layers
        self.seen: dict[str, Tensor] = {}
        self.results: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        for unit in self.units.get(n, ()):
            emitted = result
            if unit.current is not None:
                current = result if unit.current is n else self.env[unit.current]
                emitted = (-current if unit.negated else current).relu()
            self.seen[unit.name] = unit.layout.to_front(emitted) / unit.value
        if n in self.layers:
            self.results[self.layers[n]] = result
        return result


def _joined(values: Sequence[Any]) -> Any:
    """One input of all batches as one: its samples one after the other, or the first if it has none."""
    if isinstance(values[0], (list, tuple, dict)) and tensors(values[0]):
        return concatenate(list(values), join=_joined)
    if not isinstance(values[0], Tensor) or not values[0].dim():
        return values[0]
    shapes = {tuple(value.shape[1:]): None for value in values}
    if len(shapes) > 1:
        raise CalibrationError(
            f"A correction needs all calibration samples at once, but they have the shapes "
            f"{', '.join(map(str, shapes))}. Give samples of one shape, or convert without corrections=."
        )
    return torch.cat(list(values))
