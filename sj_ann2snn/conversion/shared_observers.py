"""Calibration by several processes: what each observed in its batches is merged, to the bits of one process."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from ..contracts.normalization import CalibrationSite, Observer
from ..distributed.packing import packed, unpacked
from ..distributed.ranks import Place, Ranks, Share
from ..errors import OptionError, PluginError
from ..support.blame import Culprit, blame
from ..support.wording import described, is_fault
from .expected_rates import ActivitySums

__all__ = ["SharedObservers"]


class SharedObservers:
    """The observers of one rank.

    An observer that merges exactly sees all batches of its rank. Of any other, every batch gets a copy of its own, and
    these are merged in the order of the batches: sums of floating-point numbers then have the bits that they have in
    one process, whatever the number of ranks.

    Args:
        observers: By node, as the modes made them; exchanged for copies, and in the end for the merged ones.
        activity: Sums over the activations, by node; treated in the same way.
        sites: The sites.
        modes: Their modes, for messages.
        ranks: The processes.
        device: Of the calibration.

    Raises:
        OptionError: An observer cannot be merged.
    """

    def __init__(
        self,
        observers: dict[fx.Node, Observer],
        activity: dict[fx.Node, ActivitySums],
        sites: Mapping[fx.Node, CalibrationSite],
        modes: Mapping[fx.Node, Culprit],
        ranks: Ranks,
        device: torch.device,
    ) -> None:
        self._observers, self._activity = observers, activity
        self._sites, self._modes, self._ranks, self._device = sites, modes, ranks, device
        self._nodes = list(observers)
        self._exact = [node for node, one in observers.items() if one.exact_merge]
        self._single = [node for node in self._nodes if node not in self._exact]
        self._base = dict(observers)
        self._kept: list[tuple[Place, tuple[list[bytes], list[ActivitySums]]]] = []
        for node in self._nodes:
            self._require_merge(node)

    def begin_pass(self) -> None:
        """Put copies in place, which see the batches of this rank."""
        self._kept = []
        self._observers.update({node: self._copy(node) for node in self._nodes})

    def begin_batch(self) -> None:
        """Put copies in place that see one batch only."""
        self._observers.update({node: self._copy(node) for node in self._single})
        self._activity.update({node: ActivitySums(self._sites[node].channel_axis) for node in self._nodes})

    def end_batch(self, place: Place) -> None:
        """Keep what they saw."""
        self._kept.append((place, (self._packed(self._single), [self._activity[node] for node in self._nodes])))

    def end_pass(self, share: Share[Any], fired: set[fx.Node]) -> int:
        """Give the first rank what all saw: merged observers, the sums of the pass, and what `fired`.

        Returns:
            The number of batches.
        """
        kept, batches = self._ranks.joined(self._kept, share, self._device)
        whole = self._ranks.gathered((self._packed(self._exact), [self._nodes.index(node) for node in fired]))
        if self._ranks.is_first:
            self._observers.update(self._base)
            self._activity.update({node: ActivitySums(self._sites[node].channel_axis) for node in self._nodes})
            for observers, sums in kept:
                self._merge(self._single, observers)
                for node, one in zip(self._nodes, sums, strict=True):
                    self._activity[node].merge(one)
            for observers, indices in whole:
                self._merge(self._exact, observers)
                fired.update(self._nodes[index] for index in indices)
        return batches

    def hand_out(self) -> None:
        """Continue on all ranks with the observers of the first one."""
        found = self._ranks.from_first(lambda: self._packed(self._nodes))
        self._base = {node: unpacked(one, self._device) for node, one in zip(self._nodes, found, strict=True)}

    def _merge(self, nodes: list[fx.Node], parts: list[bytes]) -> None:
        for node, part in zip(nodes, parts, strict=True):
            observer = self._observers[node]
            with blame(self._modes[node], f"merging what was observed at {self._name(node)}", observer, "merge"):
                observer.merge(unpacked(part, self._device))

    def _copy(self, node: fx.Node) -> Observer:
        observer = self._base[node]
        with blame(self._modes[node], f"copying the observer of {self._name(node)}", observer, "__deepcopy__"):
            return copy.deepcopy(observer)

    def _packed(self, nodes: list[fx.Node]) -> list[bytes]:
        return [self._packed_one(node) for node in nodes]

    def _packed_one(self, node: fx.Node) -> bytes:
        try:
            return packed(self._observers[node])
        except BaseException as error:
            if not is_fault(error):
                raise
            who = self._modes[node]
            raise PluginError(
                f"{who} cannot be used with distributed=: its observer of {self._name(node)} cannot be sent to another "
                f"process ({described(error)}). An observer must be picklable; its class must be importable. "
                f"{who.advice}"
            ) from error

    def _require_merge(self, node: fx.Node) -> None:
        """Raises:
        OptionError: The observer says that it cannot be merged.
        """
        try:
            self._copy(node).merge(self._copy(node))
        except NotImplementedError as error:
            raise OptionError(
                f"{self._modes[node]} cannot be used with distributed=: its observers cannot be merged, as "
                f"{type(self._base[node]).__name__}.merge says for {self._name(node)}. Convert in one process, or in "
                "another mode."
            ) from error
        except Exception:
            return  # nothing is known of observers that saw nothing

    def _name(self, node: fx.Node) -> str:
        return self._sites[node].name
