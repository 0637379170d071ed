"""Converts submodules of a network and leaves the rest as it is."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..distributed.ranks import ALONE, Ranks
from ..errors import Ann2SnnError, CalibrationError, OptionError
from ..support.batches import forward_signature, run_batch
from ..support.neutral import neutral
from ..support.trees import leaves, map_tensors
from ..support.wording import did_you_mean, listed, shown
from .calibrate import CalibrationData
from .prepare import device_of, working_copy

__all__ = [
    "Part",
    "SubmoduleInputs",
    "by_name",
    "module_name",
    "module_names",
    "parts_to_convert",
    "put_back",
    "require_inside",
    "require_submodule",
]


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
    """A part of a network that is converted.

    Attributes:
        ann: The network, or the submodule of a copy of it.
        data: The calibration data, as `ann` takes it.
        device: Device of the conversion.
        name: The submodule's qualified name; empty for the whole network.
    """

    ann: nn.Module
    data: CalibrationData
    device: torch.device
    name: str = ""

    @property
    def prefix(self) -> str:
        """What the names of its layers begin with in the whole network."""
        return f"{self.name}." if self.name else ""

    def inner_names(self, names: Sequence[str]) -> list[str]:
        """Those of the network's qualified names that lie in the part, as the part knows them."""
        return [name.removeprefix(self.prefix) for name in names if name.startswith(self.prefix)]

    @contextmanager
    def named(self) -> Iterator[None]:
        """Let errors about a submodule begin with its name."""
        try:
            yield
        except Ann2SnnError as error:
            if self.name and error.args and isinstance(error.args[0], str):
                error.args = (f"In the submodule {shown(self.name)} (convert_only): {error.args[0]}", *error.args[1:])
            raise


def parts_to_convert(
    ann: nn.Module,
    names: Sequence[str] | None,
    dataloader: Iterable[Any] | None,
    device: torch.device | None,
    ranks: Ranks = ALONE,
) -> tuple[nn.Module | None, list[Part]]:
    """The parts of `ann` called `names`, or all of it for None, and the copy of `ann` that the former belong to.

    Raises:
        ConversionError: `ann` is not a network, or lies on several devices.
        CalibrationError: There is no calibration data.
        OptionError: There is no such submodule, or one lies inside another.
    """
    loader = CalibrationData(dataloader, ranks)
    place = device_of(ann, device)
    if names is None:
        return None, [Part(ann, loader, place)]
    network = working_copy(ann, place)
    _require_apart({name: require_submodule(network, name) for name in names})
    return network, [
        Part(
            network.get_submodule(name),
            CalibrationData(SubmoduleInputs(network, name, loader, place, again=index > 0), ranks),
            place,
            name,
        )
        for index, name in enumerate(dict.fromkeys(names))
    ]


def _require_apart(parts: dict[str, nn.Module]) -> None:
    """Raises:
    OptionError: There are no parts, or one lies inside another.
    """
    if not parts:
        raise OptionError("convert_only names no submodule. Leave it out to convert the whole network.")
    for outer, module in parts.items():
        inside = {id(inner) for inner in module.modules()}
        for name, other in parts.items():
            if name != outer and id(other) in inside:
                raise OptionError(
                    f"convert_only names {shown(outer)} and {shown(name)}, which is a part of it. Name one of them."
                )


def require_inside(leaves: Sequence[str], parts: Sequence[Part]) -> None:
    """Raises:
    OptionError: `leaf_modules` names a submodule that lies in none of the parts.
    """
    for name in leaves:
        if not any(name.startswith(part.prefix) for part in parts):
            known = [part.prefix + inner for part in parts for inner, _ in part.ann.named_modules() if inner]
            hint = did_you_mean(name, known)
            raise OptionError(
                f"leaf_modules names {shown(name)}, which lies in no submodule that convert_only names "
                f"({listed(part.name for part in parts)}). {hint}".rstrip()
            )


def put_back(network: nn.Module, converted: dict[str, nn.Module]) -> nn.Module:
    """`network` with `converted` in place of its submodules of these names."""
    for name, module in converted.items():
        _keep_attributes(network.get_submodule(name), module)
        network.set_submodule(name, module)
    return network


def _keep_attributes(before: nn.Module, after: nn.Module) -> None:
    """Give `after` the numbers and texts that the rest of the network may read from `before`, such as a stride."""
    plain = (bool, int, float, str)
    for name, value in vars(before).items():
        if name.startswith("_") or hasattr(after, name):
            continue
        if all(isinstance(leaf, plain) for leaf in leaves(value)):
            setattr(after, name, value)


class SubmoduleInputs:
    """What a submodule receives while its network runs over the calibration data: one item per call.

    Args:
        network: In eval mode.
        name: Qualified name of the submodule.
        loader: Calibration data of the whole network.
        device: Device of the network.
        again: Another submodule reads the same data.
    """

    def __init__(
        self, network: nn.Module, name: str, loader: CalibrationData, device: torch.device, *, again: bool = False
    ) -> None:
        self.network, self.name, self.loader, self.device = network, name, loader, device
        self.signature = forward_signature(network, loader.first)
        self._again = again

    def __iter__(self) -> Iterator[Any]:
        index = -1
        for index, batch in enumerate(self.loader):
            yield from self._inputs(batch, index)
        if index < 0 and self._again and not self.loader.ranks.sharded:  # a part of the data may be empty
            raise CalibrationError(
                "The calibration data ran out: every submodule that convert_only names needs it. Give a dataloader "
                "that can be iterated repeatedly instead of an iterator."
            )

    def _inputs(self, batch: Any, index: int) -> list[Any]:
        received: list[Any] = []

        def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            # Copies: what runs behind the submodule may write to them.
            received.append(map_tensors(by_name(module, args, kwargs), Tensor.clone))

        handle = self.network.get_submodule(self.name).register_forward_pre_hook(keep, with_kwargs=True)

        def run(*inputs: Any) -> None:
            # Copies: the network may write to its inputs, and these are the caller's.
            self.signature.caller(self.network)(*map_tensors(inputs, Tensor.clone))

        try:
            with neutral(self.network), torch.no_grad():
                run_batch(run, batch, index, self.signature, self.device)
        finally:
            handle.remove()
        if not received:
            raise CalibrationError(
                f"convert_only names {shown(self.name)}, which the network did not call on calibration batch {index}."
            )
        return received


def by_name(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The arguments of a call as a batch of data: by name, without those that are None."""
    given = inspect.signature(module.forward).bind(*args, **kwargs).arguments
    parameters = inspect.signature(module.forward).parameters
    kinds = {parameters[name].kind for name in given}
    if kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}:
        return (*args, *kwargs.values())
    return {name: value for name, value in given.items() if value is not None}
