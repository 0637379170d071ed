"""How far an evaluation has come: its totals after some batches, and which batches these were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from ...support.paths import AnyPath
from ..metrics.measures import Measure
from .file import CheckpointFile
from .identity import Identity, checksum, conversion_of, layers_of, text_of, versions

if TYPE_CHECKING:
    from ...simulation.engine import Simulator
    from ...simulation.partwise import PartwiseSimulator
    from ..tally import Tally

__all__ = ["EvaluationProgress", "NoProgress", "Progress", "progress_in"]

SAME_BATCHES = (
    "A run can only be continued if the loader yields the same batches in the same order every time: without "
    "shuffle=True and without random augmentation"
)


class NoProgress:
    """Keeps nothing."""

    def begin(self, totals: Tally, simulator: Simulator | PartwiseSimulator) -> None:
        """Called before the first batch; may restore totals, and what the simulator has learnt."""

    def has(self, batch: Any) -> bool:
        """True if the next batch is already among the totals."""
        return False

    def add(self) -> None:
        """Called after every batch that was evaluated."""

    def finish(self) -> None:
        """Called after the last batch."""


class EvaluationProgress(NoProgress):
    """Keeps the totals in a file.

    Args:
        file: The file.
    """

    def __init__(self, file: CheckpointFile) -> None:
        self._file = file
        self._found: tuple[str, ...] = ()
        self._seen: list[str] = []
        self._finished = False

    def begin(self, totals: Tally, simulator: Simulator | PartwiseSimulator) -> None:
        """Take over what the file holds; otherwise write it, so that a file that cannot be written is noticed now.

        Raises:
            CheckpointError: It cannot be used.
            OptionError: A metric has a state that a file cannot hold.
        """
        self._totals, self._simulator = totals, simulator
        empty = self._state()
        found = self._file.load()
        if found is not None:
            try:
                self._found, self._finished = found["batches"], found["finished"]
                totals.restore(found["totals"])
                simulator.tiling = found["tiling"]
            except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
                raise self._file.damaged() from error
        if not self._finished:
            self._file.save(empty if found is None else found)

    def has(self, batch: Any) -> bool:
        """True for a batch that the file holds.

        Raises:
            CheckpointError: There was another batch in its place.
        """
        place, found = len(self._seen), checksum(batch)
        self._seen.append(found)
        if place < len(self._found):
            if found != self._found[place]:
                raise self._file.foreign(f"batch {place} of the data was another. {SAME_BATCHES}")
            return True
        if self._finished:
            raise self._file.foreign(f"the data had {place} batches, and has more")
        return False

    def add(self) -> None:
        if self._file.is_due:
            self._file.try_to_save(self._state())

    def finish(self) -> None:
        """Write the totals for good.

        Raises:
            CheckpointError: The data ended before what the file holds.
        """
        if len(self._seen) < len(self._found):
            raise self._file.foreign(f"the data had {len(self._found)} batches or more, and has {len(self._seen)}")
        if not self._finished:
            self._finished = True
            self._file.try_to_save(self._state())

    def _state(self) -> dict[str, Any]:
        return {
            "batches": tuple(self._seen),
            "finished": self._finished,
            "tiling": dict(self._simulator.tiling),
            "totals": self._totals.state(),
        }


Progress = NoProgress | EvaluationProgress


def progress_in(
    path: AnyPath | None,
    snn: nn.Module,
    steps: object,
    measures: Sequence[Measure],
    ann: nn.Module | None,
    **settings: Any,
) -> Progress:
    """Where an evaluation keeps its totals: in the file at `path`, or nowhere.

    Args:
        path: The argument `checkpoint`.
        snn: The network.
        steps: Number of steps.
        measures: The metrics.
        ann: The ANN that replaces the targets.
        settings: Further arguments that decide about the numbers, by name.
    """
    if path is None or not isinstance(snn, nn.Module):  # what is no network is refused later
        return NoProgress()
    identity: Identity = {
        **versions(),
        **conversion_of(snn),
        "T": text_of(steps),
        "metric": text_of({one.name: (one.metric, one.path, one.listed_of) for one in measures}),
        **{name.replace("_", " "): text_of(value) for name, value in settings.items()},
        "device": text_of(next((one.device.type for one in snn.parameters()), "cpu")),
        "ann": "None" if ann is None else layers_of(ann),
        "network": layers_of(snn),
    }
    return EvaluationProgress(CheckpointFile(path, "evaluate", identity))
