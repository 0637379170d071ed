"""What to change: the cause of every large error, the setting that mends it, and the call that carries it out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..hooks.discovery import load_plugins
from ..hooks.kinds import NEURONS
from ..support.calls import keywords
from .remedies import ActivationSample, Setting, best_setting
from .result import Advice, LayerDiagnosis
from .table import GOOD, percent

__all__ = ["call_of", "layer_advice", "readout_advice"]

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

DELAY_HELPS = 0.75
"""A delay is worth it if it brings the divergence below this share."""


def layer_advice(
    ranked: Sequence[LayerDiagnosis],
    targets: Mapping[str, str],
    samples: Mapping[str, ActivationSample],
    steps: int,
    divergence: float,
    call: Mapping[str, Any],
) -> Iterator[Advice]:
    """Advice on the layers that matter, the worst first.

    Args:
        ranked: The layers, ranked.
        targets: The keys of `samples`, by layer name.
        samples: Activations of the neurons.
        steps: T.
        divergence: Of the answer.
        call: The arguments with which the network was made, as far as they are known.
    """
    if divergence < GOOD:
        return
    for position, layer in enumerate(ranked[:MOST]):
        if position and layer.effect < MATTERS * divergence:
            return
        if layer.kind != "neuron":
            arguments: dict[str, Any] = {"maxpool": "cumulative"}
            text = (
                f"{layer.name} only approximates {layer.kind} over time, with an error of {percent(layer.unevenness)} "
                'of its output: maxpool="cumulative" is exact at every step'
            )
            yield Advice(layer.name, "maxpool", text, arguments, call_of(call, arguments), layer.effect)
            continue
        yield _neuron_advice(layer, targets[layer.name], samples, steps, call)


def _neuron_advice(
    layer: LayerDiagnosis,
    target: str,
    samples: Mapping[str, ActivationSample],
    steps: int,
    call: Mapping[str, Any],
) -> Advice:
    cause = next(iter(layer.own))
    if cause == "unevenness":
        return _uneven(layer, steps, call)
    channel_wise = bool(call.get("channel_wise", samples[target].scale.numel() > 1))
    if_neurons = call.get("neuron", "if") == "if"
    now, settings = best_setting(samples, target, steps, channel_wise=channel_wise, if_neurons=if_neurons)
    possible = [one for one in settings if cause != "clipping" or "initial_potential" not in one.arguments]
    arguments = _smallest_change(now, possible, call)
    if not arguments:
        arguments = {"neuron": "burst"} if cause == "clipping" else {"T": 4 * steps}
    if cause == "clipping":
        text = (
            f"{layer.name} clips {percent(layer.saturated)} of its units at λ = {_scale(layer)}, which costs "
            f"{percent(layer.clipping)} of its activation and no number of steps mends"
        )
        remedy = _named(arguments) + (
            "" if "neuron" in arguments else ', or neurons of several levels there (neuron="burst")'
        )
        return _advice(layer, cause, f"{text}: {remedy}", arguments, call, steps)
    dead = _dead(layer)
    if (layer.silent > SILENT and samples[target].usual < FAR) or dead:
        channels = f", and {percent(dead)} of its channels never" if dead else ""
        text = (
            f"{layer.name}: {percent(layer.silent)} of the active units emit nothing within {steps} steps{channels}; "
            f"λ = {_scale(layer)} lies far above their activations"
        )
        return _advice(layer, "silence", f"{text}: {_named(arguments)}", arguments, call, steps)
    text = (
        f"{layer.name} loses {percent(layer.rounding)} of its activation by rounding to {steps} steps at "
        f"λ = {_scale(layer)}"
    )
    more = "" if "T" in arguments else f", or more steps (T={4 * steps})"
    return _advice(layer, cause, f"{text}: {_named(arguments)}{more}", arguments, call, steps)


def _uneven(layer: LayerDiagnosis, steps: int, call: Mapping[str, Any]) -> Advice:
    installed = {one.name for one in load_plugins().registered(NEURONS)}
    graded = "signed" in installed and call.get("neuron") != "signed"
    arguments: dict[str, Any] = {"neuron": "signed"} if graded else {"T": 4 * steps}
    text = (
        f"{layer.name} loses {percent(layer.unevenness)} of its activation because the spikes that reach it come "
        'unevenly, so that it fires too early or too late: neurons that take spikes back (neuron="signed", from '
        f"sj-ann2snn-signed), or more steps (T={4 * steps})"
    )
    return _advice(layer, "unevenness", text, arguments, call, steps)


def _smallest_change(now: Setting, settings: Sequence[Setting], call: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the setting that helps and changes the fewest of those in `call`; empty if none helps."""
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
            if len(new) == changes and one.here < HELPS * now.here and one.everywhere < now.everywhere:
                return new
    return {}


def _dead(layer: LayerDiagnosis) -> float:
    """Share of the channels that are active in the ANN, as others are, and never spike."""
    silent, activation = layer.channels.get("silent", ()), layer.channels.get("activation", ())
    if len(silent) < 2:
        return 0.0
    usual = ACTIVE * sum(activation) / len(activation)
    return sum(one >= 1 and norm > usual for one, norm in zip(silent, activation, strict=True)) / len(silent)


def _advice(
    layer: LayerDiagnosis, cause: str, text: str, arguments: dict[str, Any], call: Mapping[str, Any], steps: int
) -> Advice:
    return Advice(layer.name, cause, text, arguments, call_of(call, arguments), layer.effect)


def readout_advice(
    divergence: float, delayed: Mapping[int, float], readout: str, steps: int, name: str
) -> Advice | None:
    """Advice to leave out the first steps, if that brings the answer closer to the ANN's.

    Args:
        divergence: Of the answer.
        delayed: The divergence of the mean from a step on, by the number of steps left out.
        readout: Name of the readout.
        steps: T.
        name: Name of the network's output, for the advice.
    """
    possible = {delay: value for delay, value in delayed.items() if delay <= steps / 2}
    if not possible or divergence < GOOD:
        return None
    delay = min(possible, key=lambda one: possible[one])
    if possible[delay] > DELAY_HELPS * divergence:
        return None
    arguments = {"readout": "delayed", "delay": delay}
    text = (
        f"the readout ({readout}) starts too early: without the first {delay} of {steps} steps, in which the spikes "
        f"have not reached the output, the answer differs by {percent(possible[delay])} instead of "
        f"{percent(divergence)}"
    )
    return Advice(name, "readout", text, arguments, call_of({}, arguments, steps), divergence - possible[delay])


def call_of(call: Mapping[str, Any], arguments: Mapping[str, Any], steps: int | None = None) -> str:
    """The call that carries out `arguments`, with the arguments that the network was made with.

    >>> call_of({"mode": "max", "neuron": "if", "channel_wise": True}, {"mode": "99.9%"})
    'Converter(mode="99.9%", channel_wise=True, dataloader=calibration_loader)(ann)'
    >>> call_of({}, {"readout": "delayed", "delay": 4}, 16)
    'evaluate(snn, test_loader, T=16, readout=Delayed(delay=4))'
    """
    if "readout" in arguments:
        return f"evaluate(snn, test_loader, T={steps}, readout=Delayed(delay={arguments['delay']}))"
    if set(arguments) == {"T"} and "T" not in call:
        return f"evaluate(snn, test_loader, T={arguments['T']})"
    merged = {**call, **arguments}
    if merged.get("neuron") == "if":
        del merged["neuron"]
    elif "neuron" in arguments and "initial_potential" not in arguments:
        merged.pop("initial_potential", None)
    if merged.get("channel_wise") is False:
        del merged["channel_wise"]
    return f"Converter({', '.join([*keywords(merged), 'dataloader=calibration_loader'])})(ann)"


def _named(arguments: Mapping[str, Any]) -> str:
    return ", ".join(keywords(arguments))


def _scale(layer: LayerDiagnosis) -> str:
    if layer.scale is None:
        return "?"
    low, high = layer.scale
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
