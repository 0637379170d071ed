"""The class of converted networks: a graph of torch.fx that keeps its notes when it is copied or pickled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx

__all__ = ["ConvertedNetwork", "tell_obstacles_by"]

_FINDERS: list[Callable[[fx.GraphModule], tuple[Any, ...] | None]] = []


def tell_obstacles_by(find: Callable[[fx.GraphModule], tuple[Any, ...] | None]) -> None:
    """Let `find` answer what stands in a network's way; this part of the package knows nothing of spikes."""
    _FINDERS[:] = [find]


def obstacles_of(network: fx.GraphModule) -> tuple[Any, ...] | None:
    """What keeps a network from being pure; None if it is not of integers."""
    return _FINDERS[0](network) if _FINDERS else None


class ConvertedNetwork(fx.GraphModule):
    """A `torch.fx.GraphModule` whose `meta` survives `pickle`, `torch.save` and `copy.copy`, as it does `deepcopy`.

    >>> import pickle, torch
    >>> graph = fx.Graph()
    >>> output = graph.output(graph.placeholder("x"))
    >>> network = ConvertedNetwork(torch.nn.Module(), graph)
    >>> network.meta["readout"] = "delayed"
    >>> pickle.loads(pickle.dumps(network)).meta
    {'readout': 'delayed'}

    torch drops `meta` from what it pickles. It holds the readout for which corrections adjusted the network, without
    which its answers are others.
    """

    @property
    def is_pure(self) -> bool:
        """True for a network of integers in which nothing but binary spikes passes between the layers."""
        return self.obstacles == ()

    @property
    def obstacles(self) -> tuple[Any, ...] | None:
        """What keeps a network of integers from being pure, each with the remedy; None for any other network."""
        return obstacles_of(self)

    def __reduce__(self) -> tuple[Any, ...]:
        restore, arguments, *_ = super().__reduce__()
        return _restored, (restore, arguments, self.meta)

    def __copy__(self) -> ConvertedNetwork:
        return _converted(super().__copy__(), self.meta)


def _restored(restore: Callable[..., fx.GraphModule], arguments: tuple[Any, ...], meta: dict[str, Any]) -> Any:
    return _converted(restore(*arguments), meta)


def _converted(plain: fx.GraphModule, meta: dict[str, Any]) -> ConvertedNetwork:
    """The same network as an instance of this class."""
    made = ConvertedNetwork(plain, plain.graph, type(plain).__name__)
    for name, value in vars(plain).items():
        if not hasattr(made, name):  # what the graph does not use
            setattr(made, name, value)
    made.meta = meta
    return made
