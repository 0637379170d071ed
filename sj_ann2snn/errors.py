"""Every error and warning that the package raises.

An error message stands alone: it says what was given, what is allowed, where (the qualified name of the layer) and
what to do.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "Ann2SnnError",
    "BackendError",
    "BackendWarning",
    "CalibrationError",
    "CheckpointError",
    "CheckpointWarning",
    "ConflictError",
    "ConversionError",
    "CorrectionError",
    "DeadLayerError",
    "DistributedError",
    "EvaluationInterrupted",
    "ExportError",
    "FormatError",
    "InputError",
    "IntegerError",
    "LegacyArgumentWarning",
    "MemoryWarning",
    "ModeError",
    "NoSpikesWarning",
    "NonFiniteError",
    "NotConvertedWarning",
    "OptionError",
    "OutOfMemoryError",
    "PluginError",
    "PluginWarning",
    "QuietLayerWarning",
    "ScaleError",
    "TracingError",
    "TuningInterrupted",
    "UnsupportedError",
    "VerificationError",
    "VersionError",
]


class Ann2SnnError(Exception):
    """Base of every error that sj-ann2snn raises on purpose.

    >>> import sj_ann2snn
    >>> try:
    ...     sj_ann2snn.Converter(mode="maximum", dataloader=[])
    ... except sj_ann2snn.Ann2SnnError as error:
    ...     print(type(error).__name__)
    ModeError
    """


class ModeError(Ann2SnnError, ValueError):
    """The normalization mode is unknown, out of range or claimed twice."""


class OptionError(Ann2SnnError, TypeError):
    """A keyword is unknown, or its value is not allowed."""


class ConflictError(Ann2SnnError):
    """Several plugins claim the same name, mode or site, and nothing says which one wins."""


class CorrectionError(Ann2SnnError, ValueError):
    """A correction set a value that the network cannot take."""


class PluginError(Ann2SnnError):
    """A plugin breaks the contract of the hook that it implements."""


class ConversionError(Ann2SnnError):
    """The network cannot be converted."""


class TracingError(ConversionError):
    """torch.fx cannot follow the network's forward."""


class UnsupportedError(ConversionError):
    """Operations in the network have no exact spiking counterpart; the message lists them all.

    Attributes:
        problems: The same list as data, each item with the fields `name`, `operation`, `source`, `why` and `help`.
    """

    def __init__(self, message: str, problems: tuple[Any, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class VerificationError(ConversionError):
    """The rewritten network does not compute what the ANN computes; no network is returned."""


class CalibrationError(ConversionError):
    """The calibration data is missing, empty or does not fit the network."""


class NonFiniteError(CalibrationError):
    """A value is NaN or infinite, during calibration or where a simulation would hide it."""


class DeadLayerError(CalibrationError):
    """A layer was zero over the whole calibration set, so its scale is unknown."""


class ScaleError(PluginError):
    """A normalization returned a scale that is not finite, not positive or of the wrong shape."""


class IntegerError(ConversionError):
    """A network cannot compute with integers only; the message lists what stands in the way.

    Attributes:
        problems: For every part that cannot, the name of the layer and the reason.
    """

    def __init__(self, message: str, problems: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class InputError(Ann2SnnError, ValueError):
    """An input to `simulate`, `evaluate` or the command line cannot be used."""


class DistributedError(Ann2SnnError, RuntimeError):
    """Another process of a group that shares the work failed, is lost, or was given something else."""


class ExportError(Ann2SnnError):
    """A converted network cannot be written to a file.

    Attributes:
        problems: For everything in the network that cannot be written, the name of the layer and the reason.
    """

    def __init__(self, message: str, problems: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class FormatError(Ann2SnnError, ValueError):
    """A file does not hold a readable network."""


class CheckpointError(Ann2SnnError, ValueError):
    """The file of a checkpoint cannot be used: it belongs to another run, is damaged, or cannot be read or written.

    Attributes:
        differences: What differs between the run that wrote it and this one.
    """

    def __init__(self, message: str, differences: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.differences = differences


class EvaluationInterrupted(KeyboardInterrupt):
    """Ctrl-C was pressed during `evaluate`.

    Attributes:
        result: The `EvaluationResult` of the samples that were finished by then.
    """

    def __init__(self, result: Any) -> None:
        self.result = result
        super().__init__(f"Interrupted; the result so far, also in the attribute `result`: {result}")


class TuningInterrupted(KeyboardInterrupt):
    """Ctrl-C was pressed during `tune`.

    Attributes:
        result: The `Tuning` with the best conversion so far.
    """

    def __init__(self, result: Any) -> None:
        self.result = result
        super().__init__(f"Interrupted; the best so far, also in the attribute `result`: {result.verdict}")


class OutOfMemoryError(Ann2SnnError, MemoryError):
    """There is not enough memory to simulate a single sample."""


class BackendError(Ann2SnnError):
    """The requested neuron backend is not available here."""


class VersionError(Ann2SnnError):
    """The installed SpikingJelly line lacks something that another line has."""


class BackendWarning(UserWarning):
    """A backend was requested, but this SpikingJelly line chooses it by itself."""


class CheckpointWarning(UserWarning):
    """A checkpoint cannot be written any more; the run goes on without."""


class LegacyArgumentWarning(UserWarning):
    """An argument of SpikingJelly's own converter has no effect here."""


class MemoryWarning(UserWarning):
    """Memory ran short; the simulation continues with smaller tiles."""


class NoSpikesWarning(UserWarning):
    """No layer of the converted network spikes: a plugin computes all its activations on analog values."""


class NotConvertedWarning(UserWarning):
    """Layers with weights stay as they are in the ANN, because operations that no mapper claims follow them."""


class PluginWarning(UserWarning):
    """A plugin could not be loaded; everything else works without it."""


class QuietLayerWarning(UserWarning):
    """Neurons of a layer hardly fire within the number of steps, because its scale λ is far above its activations."""
