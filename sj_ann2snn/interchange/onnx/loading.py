"""Opens ONNX files: whether they can be read at all, said in one message."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ...errors import FormatError, InputError
from ...support.wording import described, first_line, is_fault, sentence, shown

__all__ = ["load_model", "require_library"]

INSTALL = 'pip install ".[onnx]" in a copy of the repository'

LARGEST_CHECKED = 1 << 31
"""Bytes of a model that protobuf can copy."""


def require_library(what: str) -> None:
    """Fail if the packages that read ONNX are missing.

    Args:
        what: What is to be read, for the message.

    Raises:
        InputError: They cannot be imported.
    """
    try:
        import onnx  # noqa: F401
        import onnx2pytorch.convert.operations  # noqa: F401
    except Exception as error:
        raise InputError(
            f"{what} cannot be read: it needs the packages onnx and onnx2pytorch, which cannot be imported here "
            f"({described(error)}). Install them with {INSTALL}."
        ) from error


def load_model(source: Any) -> Any:
    """The `onnx.ModelProto` in a file, with its external data; a `ModelProto` itself is copied.

    Raises:
        InputError: The packages that read ONNX are missing, or `source` is no path.
        FormatError: There is no such file, or it does not hold an ONNX model.
    """
    name = what_of(source)
    require_library(name)
    import onnx

    if isinstance(source, onnx.ModelProto):
        model = onnx.ModelProto()
        model.CopyFrom(source)
    elif isinstance(source, (str, os.PathLike)):
        model = _read(Path(source), name)
    else:
        raise InputError(f"from_onnx takes the path of an ONNX file, or an onnx.ModelProto, not {shown(source)}.")
    if not model.graph.node and not model.graph.output:
        raise FormatError(f"{name} does not hold an ONNX model: it is empty.")
    _open_unknown_sizes(model.graph)
    if model.ByteSize() < LARGEST_CHECKED:
        _require_valid(model, name)
    return model


def _open_unknown_sizes(graph: Any) -> None:
    """Leave sizes open that a file does not know, for which some programs write -1, 0 or a question mark."""
    inputs = [(value, 1) for value in graph.input]
    for value, least in (*inputs, *((value, 0) for value in (*graph.value_info, *graph.output))):
        for size in value.type.tensor_type.shape.dim:
            unnamed = size.HasField("dim_param") and not any(map(str.isalnum, size.dim_param))
            if unnamed or (size.HasField("dim_value") and size.dim_value < least):
                size.Clear()


def _require_valid(model: Any, name: str) -> None:
    import onnx

    checked = onnx.ModelProto()
    checked.CopyFrom(model)
    for output in checked.graph.output:
        # Some programs leave these out; they follow from the nodes.
        kind = output.type.tensor_type
        kind.elem_type = kind.elem_type or onnx.TensorProto.FLOAT
        kind.shape.SetInParent()
    try:
        onnx.checker.check_model(checked)
    except Exception as error:
        why = sentence(first_line(error))
        raise FormatError(f"{name} is not a valid ONNX model: {why} {_newer(model)}") from error


def what_of(source: Any) -> str:
    """How messages call a source."""
    return str(source) if isinstance(source, (str, os.PathLike)) else "The ONNX model"


def _read(path: Path, name: str) -> Any:
    import onnx

    if path.is_dir():
        raise FormatError(f"{name} is a folder. Name an ONNX file.")
    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise FormatError(f"{name} cannot be read: {error.strerror or error}.") from error
    except BaseException as error:
        if not is_fault(error):
            raise
        raise FormatError(f"{name} does not hold an ONNX model ({described(error)}).") from error
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except BaseException as error:
        if not is_fault(error):
            raise
        raise FormatError(
            f"{name} keeps its weights in another file, which cannot be read: {sentence(first_line(error))} Put that "
            "file into the same folder under the name that it had when the model was written."
        ) from error
    return model


def _newer(model: Any) -> str:
    """Advice for a file that is newer than the installed package."""
    import onnx

    newest = onnx.defs.onnx_opset_version()
    opset = max((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=0)
    if model.ir_version > onnx.IR_VERSION or opset > newest:
        return f"It has opset {opset}, and onnx {onnx.__version__} knows up to {newest}: install a newer onnx."
    return "Write the file again with the program that made it."
