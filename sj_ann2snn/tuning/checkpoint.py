"""What makes a search, so that the checkpoint of another one is refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from ..errors import CheckpointError, InputError
from ..evaluation.checkpoints.file import CheckpointFile
from ..evaluation.checkpoints.identity import Identity, checksum, layers_of, text_of, versions
from ..hooks.registry import Registry
from ..support.loaders import Batches
from ..support.paths import AnyPath
from .data import Samples

__all__ = ["file_of"]


def file_of(
    path: AnyPath | None,
    ann: nn.Module,
    registry: Registry,
    found: Samples,
    calibration: Iterable[Any] | None,
    **settings: Any,
) -> CheckpointFile | None:
    """The file of a search; None without a path.

    Args:
        path: The argument `checkpoint`.
        ann: The ANN.
        registry: What plugins offer to try.
        found: The samples of the search.
        calibration: The calibration data that the caller gave.
        settings: Further arguments that decide about the result, by name.

    Raises:
        CheckpointError: The calibration data is another every time.
    """
    if path is None:
        return None
    plugins = {
        f"{hook} of {one.owner}": text_of(sorted(other.name for other in classes if other.owner == one.owner))
        for hook, classes in registry.classes.items()
        for one in classes
    }
    identity: Identity = {
        **versions(),
        "plugins": dict(sorted(plugins.items())),
        **{name.replace("_", " "): text_of(value) for name, value in settings.items()},
        "device": text_of(next((one.device.type for one in ann.parameters()), "cpu")),
        "ann": layers_of(ann),
        "data": checksum(found.search, found.held_out),
        "calibration data": "that of the data" if calibration is None else _calibration(calibration),
    }
    return CheckpointFile(path, "tune", identity)


def _calibration(data: Iterable[Any]) -> str:
    batches = Batches(data, "The calibration data", "tune(ann, data, calibration=...)", InputError)
    found = [checksum(batch) for batch in batches]
    again = next((checksum(batch) for batch in batches), None)
    if found and again != found[0]:
        raise CheckpointError(
            "The calibration data yields another first batch when it is iterated again, so a search that is started "
            "again would not end in the same result. Give a loader without shuffle=True and without random "
            "augmentation, or tune without checkpoint=..."
        )
    return checksum(found)
