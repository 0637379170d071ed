"""Measures the accuracy of a network over time steps, and its spikes and synaptic operations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from tqdm.auto import tqdm

from ..contracts.exit_rule import ExitRule
from ..contracts.readout import Readout
from ..errors import EvaluationInterrupted, InputError
from ..hooks.choice import choose, find
from ..hooks.discovery import load_plugins
from ..hooks.kinds import EXIT_RULES
from ..hooks.options import construct
from ..hooks.registry import culprit
from ..simulation.answers import readout_for
from ..simulation.engine import Simulator
from ..support.batches import Signature, explain_rejection, forward_signature, move
from .result import EvaluationResult
from .tally import ChosenRule, Tally, TileTally

__all__ = ["accuracy_of", "evaluate"]


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
        loader: Batches of inputs and labels: tuples, lists or dicts; the last batch may be smaller.
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
        InputError: `T` is not a positive integer, the loader is empty, or a batch has no labels or does
            not fit the network.
        OptionError: `early_exit` names no rule; `readout` is unknown, or has no answer after `T` steps; or `precision`
            is not available on the network's device.
        EvaluationInterrupted: Ctrl-C was pressed. Its `result` covers the samples that were finished by then. It is
            a `KeyboardInterrupt`.
    """
    rule = _exit_rule(early_exit, plugins)
    simulator = Simulator(snn, T, precision)
    answering = readout_for(snn, readout, T, plugins)
    signature = Signature.of(snn) if isinstance(snn, fx.GraphModule) else forward_signature(snn)
    totals = Tally(T)
    index = -1
    try:
        with tqdm(loader, desc=f"simulating T={T}", unit="batch", disable=not progress) as bar:
            for index, batch in enumerate(bar):
                inputs, labels = signature.inputs_of(batch), _class_indices(signature.labels_of(batch))
                if labels.shape[0] != inputs[0].shape[0]:
                    raise InputError(
                        f"Batch {index} holds {inputs[0].shape[0]} samples but {labels.shape[0]} labels; there must be "
                        "one label per sample."
                    )
                with totals.timed():
                    try:
                        simulator.run_all(inputs, partial(TileTally, totals, labels, T, answering, rule))
                    except InputError as error:
                        raise InputError(f"Batch {index} does not fit the network. {error}") from error
                bar.set_postfix(accuracy=f"{totals.accuracy()[-1]:.4f}")
    except KeyboardInterrupt as interrupt:
        if not totals.samples:
            raise
        raise EvaluationInterrupted(totals.result()) from interrupt
    if index < 0:
        raise InputError("The loader is empty: it yields no batches to evaluate.")
    return totals.result()


def accuracy_of(ann: nn.Module, loader: Iterable[Any]) -> float:
    """Share of the samples in `loader` that an ANN classifies correctly; training modes are restored.

    Raises:
        InputError: The loader is empty or has no labels.
    """
    signature = forward_signature(ann)
    device = next((p.device for p in ann.parameters()), torch.device("cpu"))
    modes = [(module, module.training) for module in ann.modules()]
    right = samples = 0
    try:
        ann.eval()
        with torch.no_grad():
            for batch in loader:
                labels = _class_indices(signature.labels_of(batch))
                inputs = tuple(move(value, device) for value in signature.inputs_of(batch))
                with explain_rejection(batch, ann):
                    output = signature.caller(ann)(*inputs)
                right += int((output.argmax(1).cpu() == labels).sum())
                samples += labels.shape[0]
    finally:
        for module, training in modes:
            module.training = training
    if not samples:
        raise InputError("The loader is empty: it yields no batches to evaluate.")
    return right / samples


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


def _class_indices(labels: Tensor) -> Tensor:
    labels = labels.detach().cpu()
    return labels.argmax(1) if labels.dim() == 2 and labels.shape[1] > 1 else labels.reshape(-1)
