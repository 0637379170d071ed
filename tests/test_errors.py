"""The types of the errors: they share one base class and are also what Python calls them."""

from __future__ import annotations

import inspect

from sj_ann2snn import (
    Ann2SnnError,
    CalibrationError,
    ConversionError,
    DeadLayerError,
    NonFiniteError,
    PluginError,
    TracingError,
    UnsupportedError,
    VerificationError,
    errors,
)


def test_every_error_is_the_packages_own() -> None:
    found = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if cls.__module__ == errors.__name__]
    assert sorted(cls.__name__ for cls in found) == sorted(errors.__all__)
    for interrupt in (errors.EvaluationInterrupted, errors.TuningInterrupted):
        found.remove(interrupt)  # Ctrl-C is no error, and `except Exception` must not catch it
        assert issubclass(interrupt, KeyboardInterrupt)
    for cls in found:
        assert issubclass(cls, UserWarning if cls.__name__.endswith("Warning") else Ann2SnnError)
        assert inspect.getdoc(cls)


def test_errors_can_be_caught_as_what_python_calls_them() -> None:
    assert issubclass(errors.ModeError, ValueError)
    assert issubclass(errors.InputError, ValueError)
    assert issubclass(errors.OptionError, TypeError)
    assert issubclass(errors.OutOfMemoryError, MemoryError)
    assert issubclass(errors.ScaleError, PluginError)
    for cls in (TracingError, UnsupportedError, VerificationError, CalibrationError):
        assert issubclass(cls, ConversionError)
    for cls in (NonFiniteError, DeadLayerError):
        assert issubclass(cls, CalibrationError)
