"""The base class of metrics, which compare a network's answers with the targets."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import InputError
from ..support.batches import describe_batch
from ..support.wording import described

__all__ = ["Metric"]


class Metric(abc.ABC):
    """Compares answers with targets, sample by sample; what it finds is added up over all samples.

    >>> import torch
    >>> from sj_ann2snn import Metric
    >>> class Within(Metric):
    ...     name = "within"
    ...     def __init__(self, *, distance=1.0):
    ...         self.distance = distance
    ...     def contributions(self, answers, targets):
    ...         return ((answers - targets).abs() <= self.distance).flatten(2).all(2, keepdim=True)
    >>> answers, targets = torch.tensor([[[0.5], [3.0]]]), torch.tensor([[0.0], [0.0]])
    >>> found = Within().contributions(answers, targets).double()
    >>> Within().value(found.sum(1), samples=2)
    tensor([0.5000], dtype=torch.float64)

    ``evaluate(..., metric=Within(distance=0.5))`` uses it. A function of (output, target) is simpler, but it needs the
    outputs of a whole batch at all steps in memory; a metric takes them in a group of steps at a time.

    The methods are pure functions: several threads call them, for tiles of samples that take turns.
    """

    name: ClassVar[str]

    higher_is_better: ClassVar[bool] = True
    """False for an error: `diagnose` counts its rise as a loss."""

    is_share: ClassVar[bool] = False
    """True for a value that is at most 1: `diagnose` gives its losses in points, hundredths of it."""

    against_ann: ClassVar[bool] = False
    """True for a metric whose targets are always the ANN's outputs."""

    @property
    def scale_invariant(self) -> bool:
        """True if nothing changes when all answers are multiplied by a positive number; saves a division."""
        return False

    @abc.abstractmethod
    def contributions(self, answers: Tensor, targets: Tensor) -> Tensor:
        """What each sample contributes after each of some steps.

        Args:
            answers: The readout's answers, ``[t, n, ...]``, in the ANN's units; do not write to it.
            targets: What `targets` returned, the rows of these samples: ``[n, ...]``, on the same device.

        Returns:
            ``[t, n, k]``: k numbers, which are added up over all samples.
        """

    def value(self, sums: Tensor, samples: int) -> Tensor:
        """The metric after every step; by default, the mean contribution.

        Args:
            sums: The sums of the contributions, ``[T, k]``, float64.
            samples: Number of samples.

        Returns:
            ``[T]``.
        """
        return sums[:, 0] / samples

    def targets(self, found: Any, shape: tuple[int, ...]) -> Tensor:
        """The targets of a batch as a tensor ``[N, ...]``.

        Args:
            found: What the batch holds for them.
            shape: Shape of the answers after one step, ``(N, ...)``.

        Raises:
            InputError: They are no targets for such answers.
        """
        return number_targets(found, shape)

    def targets_of_ann(self, outputs: Tensor) -> Any:
        """The targets that follow from the ANN's outputs; by default, the outputs."""
        return outputs


def number_targets(found: Any, shape: tuple[int, ...]) -> Tensor:
    """Finite real numbers of the shape of the answers, except for dimensions of one element.

    >>> number_targets([1.0, 2.0], (2, 1))
    tensor([[1.],
            [2.]])
    """
    targets = as_tensor(found)
    if targets.dtype.is_complex:
        raise InputError(f"Its targets are complex numbers; the network's output has shape {shape} and is real.")
    same_samples = targets.dim() > 0 and targets.shape[0] == shape[0]
    if not same_samples or without_ones(targets.shape[1:]) != without_ones(shape[1:]):
        raise InputError(
            f"Its targets have shape {tuple(targets.shape)}, but the network's output has shape {shape}; they must "
            "have the same shape, except for dimensions of one element. For other targets, give a function of (output, "
            "target) as metric."
        )
    targets = targets.reshape(shape)
    if targets.dtype.is_floating_point and not bool(targets.isfinite().all()):
        raise InputError("Its targets hold NaN or infinite values.")
    return targets


def without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def as_tensor(found: Any, refusal: str = "Its targets are no numbers", allowed: str = "") -> Tensor:
    """What a batch holds for targets, as a tensor on the CPU.

    Args:
        found: What it holds.
        refusal: The beginning of the message if these are no numbers.
        allowed: The end of that message.

    Raises:
        InputError: They are no numbers.
    """
    try:
        # A copy: torch warns of arrays that it may not write to, and refuses those that run backwards.
        own = found.copy() if hasattr(found, "__array_interface__") else found
        targets = torch.as_tensor(own).detach()
        return (targets.to_dense() if targets.layout != torch.strided else targets).cpu()
    except Exception as error:
        why = f"they are {describe_batch(found)}, which is no tensor of numbers ({described(error)})."
        raise InputError(f"{refusal}: {why} {allowed}".rstrip()) from error
