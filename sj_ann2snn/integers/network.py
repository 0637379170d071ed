"""An integer network: plain data, and what can be asked of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..contracts.option_checks import require_integer
from ..errors import InputError
from .operations import Input, Neuron, Operation, Result, Weighted
from .purity import Obstacle, obstacles_in
from .reference import Reference
from .widths import LayerWidths, widths_of

__all__ = ["IntegerNetwork", "IntegerRun"]


@dataclass(frozen=True, eq=False)
class IntegerRun:
    """What the reference interpreter has computed.

    Attributes:
        spikes: 0 or 1, ``[T, N, ...]``, by the name of the neurons' layer.
        outputs: The integer results of every step, ``[T, N, ...]`` each.
        answers: Their means over time in the ANN's units, ``[N, ...]`` each.
    """

    spikes: dict[str, Any]
    outputs: tuple[Any, ...]
    answers: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class IntegerNetwork:
    """A network of integers as plain data; `integer_network` makes it from a converted network.

    Attributes:
        name: Name of the ANN's class.
        operations: In order of execution; each reads results of earlier ones.
    """

    name: str
    operations: tuple[Operation, ...]

    def of(self, kind: type[Any]) -> Iterator[Any]:
        """The operations of a kind, in order."""
        return (one for one in self.operations if isinstance(one, kind))

    def run(self, *inputs: Any, T: int) -> IntegerRun:  # noqa: N803 - the field's name for the number of time steps
        """Run it in plain integers, sample by sample and step by step.

        Args:
            inputs: As for the network, ``[N, ...]`` each: tensors or arrays.
            T: Number of time steps.

        Raises:
            InputError: The inputs have other shapes than those for which the network was made, or hold NaN.
            OptionError: `T` is not an integer of at least 1.
        """
        require_integer("T", T, what="the number of time steps")
        given = [_numbers(x) for x in inputs]
        wanted = list(self.of(Input))
        if [x.shape[1:] for x in given] != [one.shape for one in wanted]:
            raise InputError(
                f"The inputs have samples of the shapes {[x.shape[1:] for x in given]}; the integer network was made "
                f"for {[one.shape for one in wanted]}."
            )
        neurons = {number: one for number, one in enumerate(self.operations) if isinstance(one, Neuron)}
        results = {number: one for number, one in enumerate(self.operations) if isinstance(one, Result)}
        kept = {
            number: np.zeros((T, len(given[0]), *one.shape), dtype=np.uint8 if number in neurons else np.int64)
            for number, one in (neurons | results).items()
        }
        for sample in range(len(given[0])):
            state = Reference(self.operations, [x[sample] for x in given])
            for step in range(T):
                values = state.step()
                for number, array in kept.items():
                    array[step, sample] = values[number].reshape(array.shape[2:])
        outputs = tuple(kept[number] for number in results)
        return IntegerRun(
            {one.name: kept[number] for number, one in neurons.items()},
            outputs,
            tuple(
                sums.sum(0) * one.scale.reshape(one.shape) / T
                for sums, one in zip(outputs, results.values(), strict=True)
            ),
        )

    def widths(self, T: int) -> tuple[LayerWidths, ...]:  # noqa: N803 - the field's name for the number of time steps
        """How wide the sums and potentials of every layer may become within T steps, whatever the input is.

        Raises:
            OptionError: `T` is not an integer of at least 1.
        """
        require_integer("T", T, what="the number of time steps")
        return widths_of(self.operations, T)

    @property
    def obstacles(self) -> tuple[Obstacle, ...]:
        """What keeps it from being pure, with the remedies."""
        return obstacles_in(self.operations)

    @property
    def additions(self) -> int:
        """Additions of a weight in a step, if every input spiked: those of the layers behind the first neurons."""
        moving = (one for one in self.of(Weighted) if one.varies)
        return sum(int((one.windows >= 0).sum()) * one.weight.shape[0] * one.weight.shape[1] for one in moving)

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(one.weight.size for one in self.of(Weighted))


def _numbers(x: Any) -> Any:
    """An input as an array of floating-point numbers; integers are taken in single precision, as by `simulate`."""
    if isinstance(x, Tensor):
        x = x.detach().cpu()
        x = x.numpy() if x.dtype == torch.float64 else x.float().numpy()
    found = np.asarray(x)
    found = found if found.dtype == np.float64 else found.astype(np.float32)
    if np.isnan(found).any():  # infinite ones are clamped
        raise InputError("The inputs hold NaN, which is no integer.")
    return found
