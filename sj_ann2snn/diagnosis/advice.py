"""What to change: the cause of every large error, the setting that mends it, and the call that carries it out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..hooks.kinds import NEURONS
from ..hooks.known_plugins import provider_of
from ..support.calls import keywords
from ..support.names import NEGATIVE
from ..support.wording import listed
from .delay import best_delay
from .layer_arguments import arguments_at, carried_out, for_layers
from .remedies import ActivationSample, Setting, best_setting
from .result import Advice, LayerDiagnosis
from .table import GOOD, percent

__all__ = ["Advisor", "call_of", "readout_advice"]

MATTERS = 0.15
"""Share of the divergence from which a layer's effect is worth mending."""

MOST = 3
"""Layers to give advice on."""

HELPS = 0.7
"""A setting is worth its change if it brings the predicted error below this share."""

SILENT = 0.5
"""Share of active neurons that emit nothing from which a layer counts as silent."""

FAR = 1 / 16
"""The usual activation as a share of λ below which λ is too large for any number of steps that one would want."""

ACTIVE = 0.2
"""Norm of a channel's activation, as a share of the mean over the channels, from which its silence matters."""

SUFFERS = 0.5
"""An error as a share of that of the layer to mend from which another layer suffers as well."""

DELAY_HELPS = 0.75
"""A delay is worth it if it brings the divergence below this share."""


@dataclass(frozen=True)
class Advisor:
    """Knows what advice depends on besides the layer itself.

    Attributes:
        layers: All layers.
        targets: The keys of `samples`, by layer name.
        samples: Activations of the neurons.
        steps: T.
        call: The arguments with which the network was made, as far as they are known.
        neurons: Names of the neurons that may be advised.
        behind: By layer name, the layers that its spikes reach first.
        measured: Arguments by which `evaluate` measures what was diagnosed, as text.
    """

    layers: Sequence[LayerDiagnosis]
    targets: Mapping[str, str]
    samples: Mapping[str, ActivationSample]
    steps: int
    call: Mapping[str, Any]
    neurons: Collection[str]
    behind: Mapping[str, Sequence[str]]
    measured: Sequence[str] = ()

    def advice(self, divergence: float) -> Iterator[Advice]:
        """Advice on the layers that matter, the worst first.

        Args:
            divergence: Of the answer.
        """
        if divergence < GOOD:
            return
        ranked = sorted(self.layers, key=lambda one: -one.effect)
        for position, layer in enumerate(ranked[:MOST]):
            if position and layer.effect < MATTERS * divergence:
                return
            yield self._pool(layer) if layer.kind != "neuron" else self._neuron(layer)

    def _pool(self, layer: LayerDiagnosis) -> Advice:
        text = (
            f"{layer.name} only approximates {layer.kind} over time, with an error of {percent(layer.unevenness)} "
            'of its output: maxpool="cumulative" is exact at every step'
        )
        return self._made(layer, "maxpool", text, carried_out(self.call, layer.name, {"maxpool": "cumulative"}))

    def _neuron(self, layer: LayerDiagnosis) -> Advice:
        cause = next(iter(layer.own))
        if cause == "unevenness":
            return self._uneven(layer)
        arguments, named = self._setting(layer, cause)
        if cause == "clipping":
            text = (
                f"{layer.name} clips {percent(layer.saturated)} of its units at λ = {_scale(layer)}, which costs "
                f"{percent(layer.clipping)} of its activation and no number of steps mends"
            )
            several = f'neurons of several levels there (neuron="burst"{self._from("burst")})'
            remedy = f"{named}{self._from('burst')}" if "neuron=" in named else f"{named}, or {several}"
            return self._made(layer, cause, f"{text}: {remedy}", arguments)
        sample, dead = self.samples[self._target(layer)], _dead(layer)
        if (layer.silent > SILENT and sample.usual < FAR) or dead:
            channels = f", and {percent(dead)} of its channels never" if dead else ""
            text = (
                f"{layer.name}: {percent(layer.silent)} of the active units emit nothing within {self.steps} "
                f"steps{channels}; λ = {_scale(layer)} lies far above their activations"
            )
            return self._made(layer, "silence", f"{text}: {named}", arguments)
        text = (
            f"{layer.name} loses {percent(layer.rounding)} of its activation by rounding to {self.steps} steps at "
            f"λ = {_scale(layer)}"
        )
        more = "" if "T" in arguments else f", or more steps (T={4 * self.steps})"
        return self._made(layer, cause, f"{text}: {named}{more}", arguments)

    def _uneven(self, layer: LayerDiagnosis) -> Advice:
        graded = "signed" in self.neurons and arguments_at(self.call, layer.name).get("neuron") != "signed"
        more = f"more steps (T={4 * self.steps})"
        if graded:
            # What it takes back comes late, too, for the layers behind.
            behind = self.behind.get(layer.name, ())
            arguments, named = self._placed(layer, {"neuron": "signed"}, self._suffer(layer, "unevenness"), behind)
            remedy = f"neurons that take spikes back ({named}), or {more}"
        else:
            arguments = {"T": 4 * self.steps}
            remedy = f'{more}, or neurons that take spikes back (neuron="signed"{self._from("signed")})'
        text = (
            f"{layer.name} loses {percent(layer.unevenness)} of its activation because the spikes that reach it come "
            "unevenly, so that it fires too early or too late"
        )
        return self._made(layer, "unevenness", f"{text}: {remedy}", arguments)

    def _from(self, neuron: str) -> str:
        """Where a neuron comes from that is not installed."""
        provider = None if neuron in self.neurons else provider_of(NEURONS.hook, neuron)
        return "" if provider is None else f", from {provider.distribution}"

    def _setting(self, layer: LayerDiagnosis, cause: str) -> tuple[dict[str, Any], str]:
        """What mends clipping or rounding in a layer, and the same in words."""
        target, own = self._target(layer), arguments_at(self.call, layer.name)
        now, settings = best_setting(
            self.samples,
            target,
            self.steps,
            channel_wise=bool(own.get("channel_wise", self.samples[target].scale.numel() > 1)),
            if_neurons=own.get("neuron", "if") == "if",
        )
        possible = [one for one in settings if cause != "clipping" or "initial_potential" not in one.arguments]
        found = _smallest_change(now, possible, own, everywhere=True)
        if found is not None and (self._suffer(layer, cause) or self._most_helped(now, found[0])):
            return self._placed(layer, found[1], most=True)
        here = _smallest_change(now, sorted(possible, key=_error_here), own, everywhere=False)
        if here is not None:
            return self._placed(layer, here[1], most=len(self._neurons()) == 1)
        if cause == "clipping":
            return self._placed(layer, {"neuron": "burst"}, self._suffer(layer, cause))
        return {"T": 4 * self.steps}, f"T={4 * self.steps}"

    def _suffer(self, layer: LayerDiagnosis, cause: str) -> bool:
        """True if most layers have that error as well."""
        least = SUFFERS * layer.own[cause]
        suffering = [any(one.own[cause] >= least for one in neurons) for neurons in self._neurons()]
        return 2 * sum(suffering) > len(suffering)

    def _most_helped(self, now: Setting, setting: Setting) -> bool:
        """True if most layers suffer like the one to mend, and the setting helps them as well."""
        least = SUFFERS * now.here
        helped = []
        for neurons in self._neurons():
            errors = [(now.layers[target], setting.layers[target]) for target in map(self._target, neurons)]
            helped.append(any(before >= least and after < HELPS * before for before, after in errors))
        return 2 * sum(helped) > len(helped)

    def _neurons(self) -> list[list[LayerDiagnosis]]:
        """The neurons of every layer: two, if its activation has both signs."""
        found: dict[str, list[LayerDiagnosis]] = {}
        for layer in self.layers:
            if self._target(layer) in self.samples:
                found.setdefault(layer.name.removesuffix(NEGATIVE), []).append(layer)
        return list(found.values())

    def _target(self, layer: LayerDiagnosis) -> str:
        return self.targets[layer.name]

    def _placed(
        self, layer: LayerDiagnosis, arguments: dict[str, Any], most: bool, behind: Sequence[str] = ()
    ) -> tuple[dict[str, Any], str]:
        """`arguments` for the whole network if most layers need them, else for this one; and the same in words.

        Args:
            layer: The layer to mend.
            arguments: What mends it.
            most: True if most layers need them.
            behind: Layers that need them as well, if this one has them.
        """
        named = ", ".join(keywords(arguments))
        if most:
            placed = carried_out(self.call, layer.name, arguments)
            return placed, f"{named} in this layer" if "layers" in placed else named
        where = f" and in {listed(behind)}, which it feeds" if behind else ""
        return for_layers(self.call, [layer.name, *behind], arguments), f"{named} in this layer{where}"

    def _made(self, layer: LayerDiagnosis, cause: str, text: str, arguments: dict[str, Any]) -> Advice:
        call = call_of(self.call, arguments, self.steps, self.measured)
        return Advice(layer.name, cause, text, arguments, call, layer.effect)


def _error_here(setting: Setting) -> float:
    return round(setting.here, 3) + 0.002 * len(setting.arguments)


def _smallest_change(
    now: Setting, settings: Sequence[Setting], call: Mapping[str, Any], *, everywhere: bool
) -> tuple[Setting, dict[str, Any]] | None:
    """The setting that helps and changes the fewest arguments of `call`, and these; None if none helps.

    Args:
        now: The present setting.
        settings: Those to choose from, the best first.
        call: The arguments that hold for the layer now.
        everywhere: The error over the whole network must fall as well.
    """
    changed = [
        (one, {name: value for name, value in one.arguments.items() if call.get(name) != value}) for one in settings
    ]
    # Predictions take λ from these samples. If they say that the present setting helps, the calibration data differs
    # (by an outlier, usually), and the same mode would find its λ there again, per channel too.
    misled = any(not new and one.here < HELPS * now.here for one, new in changed)
    for changes in range(1, 4):
        for one, new in changed:
            if misled and one.arguments.get("mode") == call.get("mode"):
                continue
            better = one.here < HELPS * now.here and (not everywhere or one.everywhere < now.everywhere)
            if len(new) == changes and better:
                return one, new
    return None


def _dead(layer: LayerDiagnosis) -> float:
    """Share of the channels that are active in the ANN, as others are, and never spike."""
    silent, activation = layer.channels.get("silent", ()), layer.channels.get("activation", ())
    if len(silent) < 2:
        return 0.0
    usual = ACTIVE * sum(activation) / len(activation)
    return sum(one >= 1 and norm > usual for one, norm in zip(silent, activation, strict=True)) / len(silent)


def readout_advice(
    divergence: float,
    delayed: Mapping[int, float],
    readout: str,
    steps: int,
    name: str,
    measured: Sequence[str] = (),
) -> Advice | None:
    """Advice to leave out the first steps, if that brings the answer closer to the ANN's.

    Args:
        divergence: Of the answer.
        delayed: The divergence of the mean without the first steps, by their number.
        readout: Name of the readout.
        steps: T.
        name: Name of the network's output, for the advice.
        measured: Arguments by which `evaluate` measures what was diagnosed, as text.
    """
    # With fewer than half of the steps, the answer would be close to the ANN's, but coarse.
    delay = best_delay(divergence, {delay: value for delay, value in delayed.items() if delay <= steps / 2})
    if not delay or divergence < GOOD or delayed[delay] > DELAY_HELPS * divergence:
        return None
    arguments = {"readout": "delayed", "delay": delay}
    text = (
        f"the readout ({readout}) starts too early: without the first {delay} of {steps} steps, in which the spikes "
        f"have not reached the output, the answer differs by {percent(delayed[delay])} instead of "
        f"{percent(divergence)}"
    )
    return Advice(
        name, "readout", text, arguments, call_of({}, arguments, steps, measured), divergence - delayed[delay]
    )


def call_of(
    call: Mapping[str, Any], arguments: Mapping[str, Any], steps: int | None = None, measured: Sequence[str] = ()
) -> str:
    """The call that carries out `arguments`, with the arguments that the network was made with.

    >>> call_of({"mode": "max", "neuron": "if", "channel_wise": True}, {"mode": "99.9%"})
    'Converter(mode="99.9%", channel_wise=True, dataloader=calibration_loader)(ann)'
    >>> call_of({}, {"readout": "delayed", "delay": 4}, 16)
    'evaluate(snn, test_loader, T=16, readout=Delayed(delay=4))'
    >>> call_of({}, {"T": 64}, 16, ['metric="mse"', "ann=ann"])
    'evaluate(snn, test_loader, T=64, metric="mse", ann=ann)'
    """
    more = "".join(f", {one}" for one in measured)
    if "readout" in arguments:
        return f"evaluate(snn, test_loader, T={steps}{more}, readout=Delayed(delay={arguments['delay']}))"
    if set(arguments) == {"T"} and "T" not in call:
        return f"evaluate(snn, test_loader, T={arguments['T']}{more})"
    merged = {**call, **arguments}
    if merged.get("neuron") == "if":
        del merged["neuron"]
    elif "neuron" in arguments and "initial_potential" not in arguments:
        merged.pop("initial_potential", None)
    if merged.get("channel_wise") is False:
        del merged["channel_wise"]
    return f"Converter({', '.join([*keywords(merged), 'dataloader=calibration_loader'])})(ann)"


def _scale(layer: LayerDiagnosis) -> str:
    if layer.scale is None:
        return "?"
    low, high = layer.scale
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
