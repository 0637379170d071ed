"""The channels of every value of a network, and which of its dimensions hold them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from torch import fx

from .channels import Channels
from .lengths import flexible_dimensions
from .records import Record, TensorRecord

__all__ = ["ChannelMap"]


class ChannelMap:
    """Answers where the channels of a value are.

    Args:
        module: A traced network.
        samples: One value per input.
        record: What its nodes yield for them.
        channels: The channels of every node's result, nested like the result; None where they are not known.
    """

    def __init__(
        self, module: fx.GraphModule, samples: tuple[Any, ...], record: Record, channels: Mapping[fx.Node, Any]
    ) -> None:
        self._module, self._samples, self._record, self._channels = module, samples, record, channels

    @classmethod
    def empty(cls) -> ChannelMap:
        """A map that knows nothing."""
        return cls(fx.GraphModule({}, fx.Graph()), (), Record({}), {})

    def __getitem__(self, node: fx.Node) -> Channels | None:
        """The channels of a node's only result; None if they are not known."""
        found = self._channels.get(node)
        return found if isinstance(found, Channels) else None

    def axis(self, node: fx.Node) -> int | None:
        """The dimension along which a value can have a scale per channel; None if there is none.

        It never is a dimension whose size follows the size of the network's input.
        """
        shape, channels = self._shape(node), self[node]
        if channels is not None and channels.is_one and (channels.axis is not None or len(shape) != 2):
            return channels.axis
        if channels is None or channels.is_one:
            dims = frozenset({1} if len(shape) == 2 else ())
        else:
            # Channels in dimension 0 have been merged with the samples.
            dims = channels.dimensions if 0 not in channels.dimensions else frozenset()
        fixed = [dim for dim in dims if self.is_fixed(node, frozenset({dim}))]
        return fixed[0] if len(fixed) == 1 else None

    def is_unknown(self, node: fx.Node) -> bool:
        """True for a value that may have several channels, but along no dimension that is known to hold them."""
        channels = self[node]
        one = channels is not None and channels.is_one
        return len(self._shape(node)) > 1 and not one and self.axis(node) is None

    def is_fixed(self, node: fx.Node, dims: frozenset[int]) -> bool:
        """True if no dimension of `dims` follows the size of the network's input, or holds the samples."""
        channels = self[node]
        if not dims or 0 in dims:
            return not dims
        if channels is not None and channels.is_apart(dims):
            return True  # as many places as channels, whose number the weights fix
        return not dims & self._flexible[node]

    def _shape(self, node: fx.Node) -> tuple[int, ...]:
        found = self._record[node]
        return found.shape if isinstance(found, TensorRecord) else ()

    @cached_property
    def _flexible(self) -> dict[fx.Node, frozenset[int]]:
        # Runs the network, so only if a question cannot be answered otherwise.
        return flexible_dimensions(self._module, self._samples, self._record)
