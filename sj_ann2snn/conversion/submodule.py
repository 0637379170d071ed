"""Converts one submodule of a network and leaves the rest as it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CalibrationError, OptionError
from ..support.batches import forward_signature, run_batch
from ..support.neutral import neutral
from ..support.trees import map_tensors
from ..support.wording import did_you_mean, shown
from .calibrate import CalibrationData
from .prepare import device_of, working_copy

__all__ = ["Part", "SubmoduleInputs", "module_name", "module_names", "part_to_convert", "require_submodule"]


def module_name(option: str, name: object) -> str:
    """Check that `name`, given for a converter's `option`, is a qualified name.

    Raises:
        OptionError: It is not.
    """
    if isinstance(name, str):
        return name
    kind = f"the class {name.__name__}" if isinstance(name, type) else f"a {type(name).__name__}"
    raise OptionError(
        f"{option} takes qualified names of submodules, such as 'layer1.0' (see network.named_modules()), not {kind}."
    )


def module_names(option: str, given: object) -> tuple[str, ...]:
    """The qualified names in `given`, which holds one or several.

    Raises:
        OptionError: It holds anything else.
    """
    names = given if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    return tuple(module_name(option, name) for name in names)


def require_submodule(ann: nn.Module, name: str) -> nn.Module:
    """The submodule of `ann` called `name`.

    Raises:
        OptionError: There is none.
    """
    found: dict[str, nn.Module] = dict(ann.named_modules())
    if not name or name not in found:
        hint = did_you_mean(name, filter(None, found)) or "See network.named_modules()."
        raise OptionError(f"convert_only names {shown(name)}, which is not a submodule of the network. {hint}")
    return found[name]


@dataclass(frozen=True)
class Part:
    """The part of a network that is converted.

    Attributes:
        ann: The network, or the submodule of a copy of it.
        data: The calibration data, as `ann` takes it.
        device: Device of the conversion.
        network: The copy that the submodule belongs to; None if the whole network is converted.
        name: The submodule's qualified name.
    """

    ann: nn.Module
    data: CalibrationData
    device: torch.device
    network: nn.Module | None = None
    name: str = ""

    def put_back(self, converted: nn.Module) -> nn.Module:
        """The network with `converted` in place of the submodule."""
        if self.network is None:
            return converted
        self.network.set_submodule(self.name, converted)
        return self.network


def part_to_convert(
    ann: nn.Module, name: str | None, dataloader: Iterable[Any] | None, device: torch.device | None
) -> Part:
    """The part of `ann` called `name`, or all of it for None.

    Raises:
        ConversionError: `ann` is not a network, or lies on several devices.
        CalibrationError: There is no calibration data.
        OptionError: There is no such submodule.
    """
    loader = CalibrationData(dataloader)
    place = device_of(ann, device)
    if name is None:
        return Part(ann, loader, place)
    network = working_copy(ann, place)
    part = require_submodule(network, name)
    return Part(part, CalibrationData(SubmoduleInputs(network, name, loader, place)), place, network, name)


class _Reached(Exception):  # noqa: N818 - not an error: it ends the forward once the inputs are known
    """The submodule was called."""


class SubmoduleInputs:
    """What a submodule receives while its network runs over the calibration data.

    Args:
        network: In eval mode.
        name: Qualified name of the submodule.
        loader: Calibration data of the whole network.
        device: Device of the network.
    """

    def __init__(self, network: nn.Module, name: str, loader: CalibrationData, device: torch.device) -> None:
        self.network, self.name, self.loader, self.device = network, name, loader, device
        self.signature = forward_signature(network, loader.first)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for index, batch in enumerate(self.loader):
            yield self._inputs(batch, index)

    def __len__(self) -> int:
        length = self.loader.length()
        if length is None:
            raise TypeError("the loader does not know its length")
        return length

    def _inputs(self, batch: Any, index: int) -> tuple[Any, ...]:
        received: list[tuple[Any, ...]] = []

        def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            received.append((*args, *kwargs.values()))
            raise _Reached

        handle = self.network.get_submodule(self.name).register_forward_pre_hook(keep, with_kwargs=True)

        def run(*inputs: Any) -> None:
            # Copies: the network may write to its inputs, and these are the caller's.
            try:
                self.signature.caller(self.network)(*map_tensors(inputs, Tensor.clone))
            except _Reached:
                return

        try:
            with neutral(self.network), torch.no_grad():
                run_batch(run, batch, index, self.signature, self.device)
        finally:
            handle.remove()
        if not received:
            raise CalibrationError(
                f"convert_only names {shown(self.name)}, which the network did not call on calibration batch {index}."
            )
        return received[0]
