"""The MACs of one pass through the ANN, and of one step of its spiking network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ...compat import step_modes
from ...simulation.engine.own_copies import left_as_it_was
from ...simulation.partwise import converted_parts
from ...support.batches import HALF, Signature, explain_rejection, first_samples, move, samples_of, to_full_precision
from ...support.structures import open_values
from ...support.trees import tensors
from ..ann_outputs import AnnOutputs
from ..given_networks import require_same_shapes
from .macs import MacCount, count_macs

__all__ = ["DensePasses"]

FEW = 2
"""Samples to count with: some networks drop a dimension of a single one."""


@dataclass(frozen=True)
class _Counted:
    """Per sample of one shape."""

    ann: float
    layers: Mapping[str, float]


class DensePasses:
    """Counts the MACs for every shape of input once, and weights them by its samples.

    Args:
        ann: The ANN.
        snn: Its spiking network.
        signature: The ANN's inputs; by default they follow from the first batch.

    Attributes:
        snn: The spiking network.
        not_counted: Operations whose MACs are not known.
    """

    def __init__(self, ann: nn.Module, snn: nn.Module, signature: Signature | None = None) -> None:
        self.snn = snn
        self._ann = ann
        self._judge = AnnOutputs(ann, signature)
        self._found: dict[Any, _Counted] = {}
        self._samples: Counter[Any] = Counter()
        self.not_counted: dict[str, None] = {}
        tensor = next(iter((*snn.parameters(), *snn.buffers())), None)
        self._device = torch.device("cpu") if tensor is None else tensor.device
        self._compares = not converted_parts(snn)

    def add(self, batch: Any, signature: Signature, inputs: tuple[Any, ...]) -> None:
        """Count a batch."""
        few = first_samples(inputs, FEW)
        if not any(one.dtype in HALF for one in self._ann.parameters()):
            few = tuple(map(to_full_precision, few))
        key = tuple(tuple(x.shape[1:]) if x.dim() else () for x in tensors(few))
        if key not in self._found:
            self._found[key] = self._count(batch, signature, few)
        self._samples[key] += samples_of(inputs)

    @property
    def ann(self) -> float:
        """MACs of the ANN per sample."""
        return self._mean({key: one.ann for key, one in self._found.items()})

    @property
    def layers(self) -> dict[str, float]:
        """MACs of one step of the spiking network per sample, by module."""
        names = dict.fromkeys(name for one in self._found.values() for name in one.layers)
        return {
            name: self._mean({key: one.layers.get(name, 0.0) for key, one in self._found.items()}) for name in names
        }

    def _mean(self, values: Mapping[Any, float]) -> float:
        return sum(values[key] * count for key, count in self._samples.items()) / self._samples.total()

    def _count(self, batch: Any, signature: Signature, few: tuple[Any, ...]) -> _Counted:
        samples = samples_of(few)
        of_ann, wanted = count_macs(self._ann, lambda: self._judge(batch, few))
        of_snn, answer = self._one_step(signature, few)
        if self._compares:
            require_same_shapes(answer, wanted)
        for count, where in ((of_snn, ""), (of_ann, " of the ANN")):
            for name, operation in count.not_counted:
                self.not_counted[f"{name} ({operation}){where}" if name else f"{operation}{where}"] = None
        return _Counted(of_ann.total / samples, {name: macs / samples for name, macs in of_snn.layers.items()})

    def _one_step(self, signature: Signature, few: tuple[Any, ...]) -> tuple[MacCount, Any]:
        inputs = tuple(move(to_full_precision(value), self._device) for value in few)
        with left_as_it_was(self.snn), explain_rejection(few, self.snn):
            for module, _ in step_modes(self.snn):
                module.step_mode = "s"  # type: ignore[assignment]
            count, answer = count_macs(self.snn, lambda: signature.caller(self.snn)(*inputs))
        return count, open_values(answer)[0]
