"""Measures the accuracy of a network over time steps, and its spikes and synaptic operations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import fx, nn
from tqdm.auto import tqdm

from ..contracts.exit_rule import ExitRule
from ..contracts.readout import Readout
from ..errors import EvaluationInterrupted, InputError, NonFiniteError
from ..hooks.choice import choose, find
from ..hooks.discovery import load_plugins
from ..hooks.kinds import EXIT_RULES
from ..hooks.options import construct
from ..hooks.registry import culprit
from ..simulation.partwise import simulator_for
from ..support.batches import Signature, describe_batch, explain_rejection, forward_signature, move, samples_of
from ..support.loaders import Batches
from ..support.locks import exclusive
from ..support.neutral import neutrally
from ..support.quiet_layers import warn_of_quiet_layers
from ..support.trees import tensors
from .labels import ClassLabels, require_scores
from .result import EvaluationResult
from .tally import ChosenRule, Tally, TileTally

__all__ = ["accuracy_of", "evaluate"]

MOST_STEPS = 100_000_000
"""Time steps whose accuracies fit into memory in any case."""

EMPTY = "The loader is empty: it yields no batches to evaluate."


@neutrally
def evaluate(
    snn: nn.Module,
    loader: Iterable[Any],
    T: int,  # noqa: N803 - the field's name for the number of time steps
    *,
    readout: str | Readout | None = None,
    early_exit: float | str | ExitRule | None = None,
    precision: str = "float32",
    plugins: Sequence[Any] = (),
    progress: bool = True,
) -> EvaluationResult:
    """Classify all of `loader` and measure the network's accuracy after every number of steps.

    >>> import torch
    >>> from sj_ann2snn import Converter, evaluate
    >>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> x = torch.rand(64, 4)
    >>> snn = Converter([x], mode="max", progress=False)(ann)
    >>> result = evaluate(snn, [(x, ann(x).argmax(1))], T=100, progress=False)
    >>> len(result.accuracy), result.accuracy[-1] > 0.8
    (100, True)
    >>> evaluate(snn, [(x, ann(x).argmax(1))], T=100, early_exit=2.0, progress=False).steps_per_sample < 100
    True

    Args:
        snn: A converted network whose output is ``[N, classes]``.
        loader: Batches of inputs and labels: tuples, lists or dicts; the last batch may be smaller. Labels are class
            indices from 0 up, ``[N]`` or ``[N, 1]``, of any integer type, or one-hot rows ``[N, classes]``.
        T: Number of time steps, at least 1.
        readout: How to turn the outputs over time into the answer: `"mean"`, `"delayed"`, `"exponential"`, `"last"`,
            `"potential"`, the name of any plugin's readout, or an instance with options,
            ``Delayed(delay=2)``. By default, the readout for which a correction adjusted the network,
            otherwise the mean.
        early_exit: Stop simulating a sample once its answer is settled; the others continue. Give the margin by which
            the summed output of the best class must lead the next (`Margin`), the name of a rule, or an
            `ExitRule`.
        precision: Precision of the products, as for `simulate`.
        plugins: Plugin objects to use in addition to the installed ones, whose readouts and exit rules you may name.
        progress: Show a progress bar.

    Raises:
        InputError: `T` is not a positive integer; the loader is empty, fails, or is none; a batch does not fit the
            network, or has no labels or labels that are not its classes; or the network is no classifier with one
            score per class.
        NonFiniteError: A batch or a weight holds NaN or infinite values, which the answers would hide.
        OptionError: `early_exit` names no rule; `readout` is unknown, or has no answer after `T` steps; or `precision`
            is not available on the network's device.
        EvaluationInterrupted: Ctrl-C was pressed. Its `result` covers the samples that were finished by then. It is
            a `KeyboardInterrupt`.
    """
    rule = _exit_rule(early_exit, plugins)
    simulator, answering = simulator_for(snn, T, precision, readout, plugins)
    warn_of_quiet_layers(snn, T)
    signature = Signature.of(snn) if isinstance(snn, fx.GraphModule) else None
    if simulator.steps > MOST_STEPS:
        raise InputError(
            f"T={simulator.steps} is not allowed: evaluate keeps the accuracy after every step, of at most "
            f"{MOST_STEPS:,}."
        )
    totals = Tally(T)
    batches = _batches(loader)
    try:
        with tqdm(batches, desc=f"simulating T={T}", unit="batch", total=batches.length(), disable=not progress) as bar:
            for index, batch in enumerate(bar):
                signature = signature or forward_signature(snn, batch)
                with _named(index):
                    inputs, labels = _split(signature, batch)
                with totals.timed(), _named(index, "does not fit the network. "):
                    simulator.run_all(inputs, partial(TileTally, totals, labels, T, answering, rule))
                bar.set_postfix(accuracy=f"{totals.accuracy()[-1]:.4f}")
    except KeyboardInterrupt as interrupt:
        if not totals.samples:
            raise
        raise EvaluationInterrupted(totals.result()) from interrupt
    if not totals.samples:
        raise InputError(EMPTY)
    return totals.result()


@neutrally
def accuracy_of(ann: nn.Module, loader: Iterable[Any]) -> float:
    """Share of the samples in `loader` that an ANN classifies correctly; training modes are restored.

    Raises:
        InputError: As for `evaluate`.
    """
    signature: Signature | None = None
    device = next((p.device for p in ann.parameters()), torch.device("cpu"))
    right = samples = 0
    with _in_eval_mode(ann), torch.no_grad():
        for index, batch in enumerate(_batches(loader)):
            signature = signature or forward_signature(ann, batch)
            with _named(index):
                inputs, labels = _split(signature, batch)
            with _named(index, "does not fit the network. "):
                with explain_rejection(batch, ann, errors=(Exception,)):
                    output = signature.caller(ann)(*(move(value, device) for value in inputs))
                scores = require_scores(output, len(labels.indices))
                labels.require_classes(scores.shape[1])
            right += int((scores.argmax(1).cpu() == labels.indices).sum())
            samples += len(labels.indices)
    if not samples:
        raise InputError(EMPTY)
    return right / samples


@contextmanager
def _in_eval_mode(ann: nn.Module) -> Iterator[None]:
    """While the context is open, the network is in eval mode, and other threads that want to switch it wait."""
    with exclusive(*ann.modules()):
        modes = [(module, module.training) for module in ann.modules()]
        try:
            ann.eval()
            yield
        finally:
            for module, training in modes:
                module.training = training


def _exit_rule(given: object, plugins: Sequence[Any]) -> ChosenRule | None:
    """The rule that the argument `early_exit` means."""
    if given is None:
        return None
    registry = load_plugins() if plugins == () else load_plugins(plugins)
    if isinstance(given, (int, float)) and not isinstance(given, bool):
        found = find(registry, EXIT_RULES, "margin")
        who, options = culprit(EXIT_RULES, found.name, found.owner), {"threshold": given}
        return ChosenRule(construct(found.cls, options, who), who)
    choice = choose(registry, EXIT_RULES, given)
    if choice.instance is not None:
        return ChosenRule(choice.instance, choice.culprit)
    return ChosenRule(construct(choice.found.cls, {}, choice.culprit), choice.culprit)


def _batches(loader: Any) -> Batches:
    return Batches(loader, "The loader", "evaluate(snn, loader, T)", InputError)


def _split(signature: Signature, batch: Any) -> tuple[tuple[Any, ...], ClassLabels]:
    """The inputs and the labels of a batch."""
    inputs = signature.inputs_of(batch)
    found = signature.labels_of(batch)
    if not tensors(inputs[0])[0].dim():
        raise InputError(f"It holds {describe_batch(batch)}; the inputs must be tensors [N, ...].")
    samples = samples_of(inputs)
    if not samples:
        raise InputError(f"It holds no samples: {describe_batch(batch)}.")
    return inputs, ClassLabels(found, samples)


@contextmanager
def _named(index: int, what: str = "cannot be evaluated. ") -> Iterator[None]:
    """Let errors about a batch begin with its number."""
    try:
        yield
    except InputError as error:
        raise InputError(f"Batch {index} {what}{error}") from error
    except NonFiniteError as error:
        raise NonFiniteError(f"Batch {index} cannot be evaluated. {error}") from error
