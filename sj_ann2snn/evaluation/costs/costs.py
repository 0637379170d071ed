"""Counts what one inference costs in the ANN and in its spiking network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from torch import nn

from ...contracts.exit_rule import ExitRule
from ...contracts.option_checks import require_integer
from ...contracts.readout import Readout
from ...errors import InputError
from ...simulation.engine.numbers.firing import is_spiking
from ...support.neutral import neutrally
from ...support.wording import shown
from ..batchwise import run_batches
from ..given_networks import require_ann
from .dense import DensePasses
from .energy import EnergyPerOperation, energy_per_operation
from .layers import Layers
from .operations import CostTile, Totals, neuron_names
from .result import Costs
from .summary import summed_up

__all__ = ["costs"]


@neutrally
def costs(
    ann: nn.Module,
    snn: nn.Module,
    data: Iterable[Any],
    T: int,  # noqa: N803 - the field's name for the number of time steps
    *,
    samples: int = 200,
    energy: str | EnergyPerOperation | None = None,
    readout: str | Readout | None = None,
    early_exit: float | str | ExitRule | None = None,
    plugins: Sequence[Any] = (),
    progress: bool = True,
) -> Costs:
    """Count the operations of one inference, layer by layer, and estimate its energy: ANN and spiking network.

    >>> import torch
    >>> from sj_ann2snn import Converter, costs
    >>> ann = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> x = torch.rand(64, 4)
    >>> snn = Converter([x], mode="max", progress=False)(ann)
    >>> found = costs(ann, snn, [x], T=8, progress=False)
    >>> found.ann_macs, found["0"].macs, found["2"].macs
    (56.0, 32.0, 0.0)
    >>> found["2"].accumulates == 3 * found.spikes
    True

    A spike costs one addition of a weight for each of its connections. Values other than 1 and −1 cost a
    multiplication as well. Layers in front of the first neuron see a constant input and are computed once. Only
    arithmetic is counted; moving data, which often takes more energy, is not.

    Args:
        ann: The ANN that was converted.
        snn: What `Converter` or `load_network` returned.
        data: Batches in the form that the network takes, with or without labels; their first `samples` are used.
        T: Number of time steps, at least 1.
        samples: Number of samples, at least 1.
        energy: The energy of single operations: `"float32"` (default), `"float16"`, `"int32"` or `"int8"`, Horowitz's
            figures for 45 nm, or your own, ``EnergyPerOperation(mac=4.6, accumulate=0.9)``.
        readout: As for `evaluate`; it matters for an early exit only.
        early_exit: As for `evaluate`.
        plugins: Plugin objects to use in addition to the installed ones.
        progress: Show a progress bar.

    Returns:
        `Costs`.

    Raises:
        InputError: `T` or `samples` is not a positive integer; the data is empty or does not fit the network; `snn` has
            no spiking layer, or is not made of `ann`.
        OptionError: `energy`, `readout` or `early_exit` is not known.
    """
    steps = require_integer("T", T, what="the number of time steps", error=InputError)
    most = require_integer("samples", samples, what="the number of samples", error=InputError)
    figures = energy_per_operation(energy)
    _require_networks(ann, snn)
    layers, dense, totals = Layers.of(snn), DensePasses(ann, snn), Totals(neuron_names(snn))
    tally = run_batches(
        snn,
        data,
        steps,
        (),
        None,
        readout=readout,
        early_exit=early_exit,
        precision="float32",
        plugins=plugins,
        progress=progress,
        samples=most,
        make_tile=partial(CostTile, totals),
        shown=dense.add,
    )
    found = tally.result()
    return summed_up(layers, dense, totals, figures, steps, found.samples, found.spikes_per_sample)


def _require_networks(ann: Any, snn: Any) -> None:
    require_ann(
        ann,
        "costs(ann, snn, data, T) takes the ANN first",
        "Give the network that was converted, and behind it what the converter returned.",
    )
    if not isinstance(snn, nn.Module):
        raise InputError(
            f"costs(ann, snn, data, T) takes the spiking network second, a torch.nn.Module, not {shown(snn)}."
        )
    if not any(is_spiking(module) for module in snn.modules()):
        raise InputError(
            f"costs(ann, snn, data, T) takes the spiking network second, but this {type(snn).__name__} has no spiking "
            "neurons. Give what Converter or load_network returned."
        )
