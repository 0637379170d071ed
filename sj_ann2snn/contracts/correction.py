"""The base class of corrections, which adjust a converted network to the ANN."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from .trial import Trial

__all__ = ["Correction"]


class Correction(abc.ABC):
    """Adjusts scales, biases and initial potentials of a converted network before it is built, and, where the caller
    allows it (`Trial.tunes_weights`), weights.

    >>> import torch
    >>> from sj_ann2snn import Converter, Correction
    >>> class OutputBias(Correction):
    ...     name = "output-bias"
    ...     def __init__(self, *, T: int = 8) -> None:
    ...         self.T = T
    ...     def correct(self, trial):
    ...         x = trial.inputs()
    ...         missing = trial.activations(x).output - trial.run(x, self.T).mean(0)
    ...         trial.adjust_output(missing.mean(0))
    >>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> converter = Converter([torch.rand(64, 4)], corrections=OutputBias(T=4), progress=False)
    >>> snn = converter(ann)
    >>> bool((snn.get_submodule("2").bias != ann[2].bias).any())
    True

    A plugin offers it by name through the hook `ann2snn_corrections`; ``Converter(corrections="output-bias", T=4)``
    then finds it. Several corrections are applied in the order in which the caller names them, each to the result of
    the previous ones. Options are the keyword-only parameters of the constructor, all with defaults.
    """

    name: ClassVar[str]
    replaces: ClassVar[tuple[str, ...]] = ()
    tunable: ClassVar[Mapping[str, Sequence[Any]]] = {}
    """The values of options that `tune` tries, by name: ``{"rounds": (1, 3)}``. All others stay at their
    defaults."""

    @abc.abstractmethod
    def correct(self, trial: Trial) -> None:
        """Run the network on trial and adjust it.

        Args:
            trial: The network on trial, its calibration data and the ANN's activations on that data.
        """
