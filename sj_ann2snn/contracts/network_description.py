"""The description of a converted network that exporters receive, and its form as a JSON document."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from ..errors import ExportError, FormatError
from ..support.site_notes import ConversionNotes
from .checksums import KEY, add_checksums, require_document, require_tensors
from .document_fields import field_of, tensor_of
from .limits import beyond_limits
from .notes_document import read_notes, write_notes
from .values import NodeReference, decode, encode

__all__ = ["NetworkDescription", "NodeDescription", "NodeReference", "OperationDescription"]

KINDS = ("input", "constant", "layer", "function", "method", "output")


@dataclass(frozen=True)
class OperationDescription:
    """A layer or function to be rebuilt; among the options of a layer, an operation that it holds.

    Attributes:
        kind: `"layer"` or `"function"`.
        operation, options, tensors: As for `NodeDescription`.
    """

    kind: str
    operation: str
    options: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class NodeDescription:
    """One step of the computation.

    Attributes:
        name: Unique name, to which `NodeReference` refers.
        kind: `"input"`, `"constant"`, `"layer"`, `"function"`, `"method"` or `"output"`.
        operation: For a layer, its type: the name of a class of `torch.nn` (`"Conv2d"`), of a module that sj-ann2snn
            puts into networks (`"IFNode"`, `"Scaler"`), or of a plugin's class, with its package
            (`"package.module.Neuron"`). For a function or a tensor method, its name (`"torch.flatten"`,
            `"operator.add"`, `"view"`).
        label: Qualified name of the layer in the network; for an input, the name of the argument.
        args: Positional arguments: `NodeReference`, numbers, text, None, slices, `...`, dtypes, devices, and tuples,
            lists and dicts of these. For an input, its default, if it has one; for the output, what the network
            returns.
        kwargs: Keyword arguments.
        options: Options with which to construct the layer: the same values as for arguments, and
            `OperationDescription`.
        tensors: Weights, biases, scales and initial potentials by name, on the CPU.
        sequences: Which tensors among the arguments vary over time, so that the operation runs at every step; None if
            it depends only on constants.
    """

    name: str
    kind: str
    operation: str = ""
    label: str = ""
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    sequences: tuple[int, ...] | None = None


@dataclass(frozen=True)
class NetworkDescription:
    """A converted network as plain data, its neurons reset.

    >>> import torch
    >>> from sj_ann2snn import NetworkDescription, NodeDescription, NodeReference
    >>> network = NetworkDescription("Double", (
    ...     NodeDescription("x", "input", label="x"),
    ...     NodeDescription("double", "layer", "Scaler", "double", (NodeReference("x"),),
    ...                     tensors={"scale": torch.tensor(2.0)}, sequences=(0,)),
    ...     NodeDescription("output", "output", args=(NodeReference("double"),)),
    ... ))
    >>> document, tensors = network.as_document()
    >>> document["nodes"][1]["args"], tensors
    ([{'node': 'x'}], {'double.scale': tensor(2.)})
    >>> NetworkDescription.from_document(document, tensors).nodes[1].args
    (NodeReference(name='x'),)

    Attributes:
        name: Name of the ANN's class.
        nodes: The nodes in an order in which they can be computed; the last node is the output.
        readout: Name and options of the readout for which the network was adjusted; None for the mean.
        producer: The program that wrote the description, with its version.
        conversion: λ and bounds of its neurons, and what else `diagnose` reads the network's figures by; None if the
            network does not say.
    """

    name: str
    nodes: tuple[NodeDescription, ...]
    readout: tuple[str, Mapping[str, Any]] | None = None
    producer: str = ""
    conversion: ConversionNotes | None = None

    FORMAT: ClassVar[str] = "sj-ann2snn"
    """The format name in documents."""
    VERSION: ClassVar[int] = 3
    """The document version that is written, and the newest that can be read.

    Version 2 held nothing about the conversion, version 1 no checksums either.
    """

    def as_document(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The description as a JSON document without its tensors, and the tensors by unique name.

        The document holds checksums of itself and of the tensors, which `from_document` verifies. A format that stores
        both and returns them as they were therefore notices all damage. It may add keys to the document.

        Raises:
            ExportError: It holds a value or tensor that the document cannot represent, or is too large.
        """
        tensors: dict[str, Tensor] = {}
        nodes = []
        for node in self.nodes:
            options, names = _write(node.name, node.options, node.tensors, tensors)
            nodes.append(
                {
                    "name": node.name,
                    "kind": node.kind,
                    "operation": node.operation,
                    "label": node.label,
                    "args": encode(node.args),
                    "kwargs": {key: encode(value) for key, value in node.kwargs.items()},
                    "options": options,
                    "tensors": names,
                    "sequences": None if node.sequences is None else list(node.sequences),
                }
            )
        readout = None
        if self.readout is not None:
            name, given = self.readout
            readout = {"name": name, "options": {key: encode(value) for key, value in given.items()}}
        document = {
            "format": self.FORMAT,
            "version": self.VERSION,
            "producer": self.producer,
            "name": self.name,
            "readout": readout,
            "nodes": nodes,
            "conversion": None if self.conversion is None else write_notes(self.conversion, tensors),
        }
        problem = beyond_limits(document)
        if problem:
            raise ExportError(f"the network's document {problem}, and no reader would take it")
        add_checksums(document, tensors)
        return document, tensors

    @classmethod
    def from_document(cls, document: Any, tensors: Mapping[str, Tensor]) -> NetworkDescription:
        """The network that `as_document` wrote.

        Raises:
            FormatError: The document has a newer version or another form, is too large or was changed; or a tensor is
                missing or was changed.
        """
        if not isinstance(document, dict) or document.get("format") != cls.FORMAT:
            raise FormatError(f"It does not hold a network that sj-ann2snn wrote (no format {cls.FORMAT!r}).")
        version, producer = document.get("version"), document.get("producer") or "an unknown version"
        if not isinstance(version, int) or not 1 <= version <= cls.VERSION:
            raise FormatError(
                f"It has version {reprlib.repr(version)} of the format; this sj-ann2snn reads versions up to "
                f"{cls.VERSION}. It was written by {str(producer)[:100]}; update sj-ann2snn."
            )
        problem = beyond_limits(document)
        if problem:
            raise FormatError(f"Its document {problem}.")
        has_checksums = version > 1 or KEY in document
        if has_checksums:
            require_document(document)
        listed = field_of(document, "nodes", list, "The document")
        nodes = tuple(_node(one, position, tensors) for position, one in enumerate(listed))
        readout = None
        if document.get("readout") is not None:
            found = field_of(document, "readout", dict, "The document")
            options = field_of(found, "options", dict, "The readout")
            readout = (
                field_of(found, "name", str, "The readout"),
                {key: decode(value) for key, value in options.items()},
            )
        notes = document.get("conversion") if version > 2 else None
        network = cls(
            field_of(document, "name", str, "The document"),
            nodes,
            readout,
            field_of(document, "producer", str, "The document"),
            None if notes is None else read_notes(notes, tensors),
        )
        if has_checksums:
            require_tensors(document, tensors)
        return network


def qualified_type(cls: type) -> str:
    """The name of a plugin's type in documents.

    >>> qualified_type(NodeReference)
    'sj_ann2snn.contracts.values.NodeReference'
    """
    return f"{cls.__module__}.{cls.__qualname__}"


def _node(one: Any, position: int, tensors: Mapping[str, Tensor]) -> NodeDescription:
    if not isinstance(one, dict):
        raise FormatError(f"Node {position} is {reprlib.repr(one)}, not an object.")
    name = field_of(one, "name", str, f"Node {position}")
    where = f"Node {name!r}"
    kind = field_of(one, "kind", str, where)
    if kind not in KINDS:
        raise FormatError(f"{where} has the kind {kind!r}. Allowed are {', '.join(KINDS)}.")
    options, found = _read(one, tensors, where)
    sequences = one.get("sequences")
    if sequences is not None and not (isinstance(sequences, list) and all(type(place) is int for place in sequences)):
        raise FormatError(
            f"{where} has the sequences {reprlib.repr(sequences)}; it must be a list of positions or null."
        )
    return NodeDescription(
        name=name,
        kind=kind,
        operation=field_of(one, "operation", str, where),
        label=field_of(one, "label", str, where),
        args=tuple(decode(value) for value in field_of(one, "args", list, where)),
        kwargs={key: decode(value) for key, value in field_of(one, "kwargs", dict, where).items()},
        options=options,
        tensors=found,
        sequences=None if sequences is None else tuple(sequences),
    )


def _write(
    name: str, options: Mapping[str, Any], tensors: Mapping[str, Tensor], all_tensors: dict[str, Tensor]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Add `tensors` to all tensors of the document; returns the options and the names of these tensors."""
    written = {}
    for key, value in options.items():
        if isinstance(value, OperationDescription):
            inner, names = _write(f"{name}.{key}", value.options, value.tensors, all_tensors)
            held = {"kind": value.kind, "operation": value.operation, "options": inner, "tensors": names}
            written[key] = {"operation": held}
        else:
            written[key] = encode(value)
    names = {key: f"{name}.{key}" for key in tensors}
    all_tensors.update({names[key]: tensor for key, tensor in tensors.items()})
    return written, names


def _read(
    one: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read back the options and tensors that `_write` wrote."""
    options: dict[str, Any] = {}
    for key, value in field_of(one, "options", dict, where).items():
        if isinstance(value, dict) and set(value) == {"operation"}:
            within = f"{where}, in {key}"
            held = field_of(value, "operation", dict, within)
            kind, operation = (field_of(held, part, str, within) for part in ("kind", "operation"))
            options[key] = OperationDescription(kind, operation, *_read(held, tensors, within))
        else:
            options[key] = decode(value)
    found = {}
    for key, tensor in field_of(one, "tensors", dict, where).items():
        found[key] = tensor_of(tensor, key, tensors, where)
    return options, found
