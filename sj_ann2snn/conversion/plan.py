"""Decides for every call of a canonical ANN what becomes of it, and refuses what has no exact counterpart.

A spiking network is right only if every operation between spiking layers is linear in what varies over
time. Here that is checked for the whole graph; all that is not is listed in one error.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from ..contracts.replacements import (
    Analog,
    Average,
    Linear,
    NeuronAfterPool,
    Product,
    Refuse,
    Remove,
    Replacement,
    Spike,
    Stateful,
    Weighted,
)
from ..contracts.site import Site, Value, Varies
from ..errors import PluginError, UnsupportedError
from ..support.blame import WHAT_TO_DO
from ..support.trees import map_leaves
from .graph.naming import attribute, node_label
from .graph.records import Record, TensorRecord
from .graph.refusals import explain
from .graph.snapshot import Snapshot
from .graph.tracing import LEAF, SOURCE

__all__ = ["COMMUTED", "Decision", "Plan", "Problem", "make_plan"]

COMMUTED = "ann2snn_commuted"
"""Key of a node's meta: True for a max pool that was moved in front of its neuron."""

_SHAPE_METHODS = frozenset({"size", "dim", "ndimension", "numel", "nelement", "stride", "is_contiguous", "type"})
_SHAPE_ATTRIBUTES = frozenset({"shape", "dtype", "device", "ndim", "is_cuda", "layout", "requires_grad"})


@dataclass(frozen=True)
class Decision:
    """What becomes of one node, and whose decision that is."""

    site: Site
    replacement: Replacement | None
    """None where no mapper claims the operation (it then runs on what does not vary)."""
    mapper: str
    owner: str
    varies: Varies
    """How the node's own result varies."""


@dataclass(frozen=True)
class Problem:
    """An operation that stands in the way of an exact conversion."""

    name: str
    operation: str
    source: str
    why: str
    help: str

    def __str__(self) -> str:
        at = f" at {self.source}" if self.source else ""
        return f"{self.name} ({self.operation}){at}: {self.why}. {self.help}".rstrip()


@dataclass(frozen=True)
class Plan:
    """The decisions for a whole graph."""

    decisions: dict[fx.Node, Decision]
    varies: dict[fx.Node, Varies]
    batched: frozenset[fx.Node]
    """Nodes whose tensors have the samples in dimension 0."""
    problems: tuple[Problem, ...]

    @property
    def spiking(self) -> list[fx.Node]:
        """The nodes that become neurons, in the order of execution."""
        return [node for node, one in self.decisions.items() if isinstance(one.replacement, Spike)]

    @property
    def analog(self) -> list[fx.Node]:
        """The nodes that become modules with memory which do not spike, in the order of execution."""
        return [node for node, one in self.decisions.items() if isinstance(one.replacement, Analog)]

    def require_exact(self) -> None:
        """Raises:
        UnsupportedError: Something stands in the way; the message lists all of it.
        """
        if self.problems:
            count = len(self.problems)
            raise UnsupportedError(
                f"{count} operation{'s' if count > 1 else ''} of the network cannot be converted exactly:\n"
                + "\n".join(f"  - {problem}" for problem in self.problems),
                self.problems,
            )


MapperFinder = Callable[[Site], tuple[Replacement | None, str, str]]
"""Answers a site with the replacement, the mapper's name and its owner."""


def make_plan(
    module: fx.GraphModule,
    record: Record,
    larger: Record,
    find: MapperFinder,
    claimed: Collection[type[nn.Module]] = (),
    problems: Sequence[Problem] = (),
    mixing: Collection[fx.Node] = (),
    inputs: Varies = Varies.STATIC,
) -> Plan:
    """Decide what becomes of every node.

    Args:
        module: In canonical form.
        record: What the nodes yield for two samples.
        larger: What they yield for three samples; tells which dimension holds the samples.
        find: Asks the mappers.
        claimed: Module types that a mapper claims.
        problems: What earlier passes could not do.
        mixing: Nodes at which a sample begins to depend on the others.
        inputs: How the network's inputs vary.
    """
    return _Planner(module, record, larger, find, frozenset(claimed), list(problems), frozenset(mixing), inputs).run()


class _Planner:
    def __init__(
        self,
        module: fx.GraphModule,
        record: Record,
        larger: Record,
        find: MapperFinder,
        claimed: frozenset[type[nn.Module]],
        problems: list[Problem],
        mixing: frozenset[fx.Node],
        inputs: Varies,
    ) -> None:
        self.module, self.record, self.larger, self.find = module, record, larger, find
        self.claimed, self.problems, self.mixing, self.inputs = claimed, problems, mixing, inputs
        self.varies: dict[fx.Node, Varies] = {}
        self.decisions: dict[fx.Node, Decision] = {}
        self.batched: set[fx.Node] = set()

    def run(self) -> Plan:
        for node in self.module.graph.nodes:
            if node.op == "output":
                continue
            if node.op in ("placeholder", "get_attr"):
                tensor = self.record.is_tensor(node)
                static = node.op == "placeholder" and tensor
                self.varies[node] = self.inputs if static else Varies.CONSTANT
            else:
                self._visit(node)
            self._check_batch(node)
        return Plan(self.decisions, self.varies, frozenset(self.batched), tuple(self.problems))

    def _visit(self, node: fx.Node) -> None:
        inputs = max((self.varies[arg] for arg in node.all_input_nodes), default=Varies.CONSTANT)
        if inputs is Varies.CONSTANT:
            self.varies[node] = inputs
            return
        if _asks_shape(node):
            self.varies[node] = Varies.CONSTANT
            return
        if _picks_from_tuple(node, self.record):
            self.varies[node] = inputs
            return
        site = self._site(node)
        if not self.record.is_tensor(node):
            self.varies[node] = inputs
            if inputs is Varies.VARYING:
                self._refuse(site, "it turns spikes into a Python value, which stays fixed while they change")
            return
        replacement, mapper, owner = self._decide(node, site)
        if isinstance(replacement, Spike):
            inputs = Varies.VARYING
        elif inputs is Varies.VARYING:
            self._check_linear(site, replacement)
        self.varies[node] = inputs
        self.decisions[node] = Decision(site, replacement, mapper, owner, inputs)

    def _decide(self, node: fx.Node, site: Site) -> tuple[Replacement | None, str, str]:
        if node.meta.get(LEAF):
            return Linear(), "leaf_modules", "you"
        before = Snapshot(self.module.graph, site)
        replacement, mapper, owner = self.find(site)
        changed = before.changed()
        if changed is not None:
            raise PluginError(
                f"Mapper {mapper!r} ({owner}), asked about {site.name} ({site.operation_name}), changed {changed}. "
                "A mapper describes, the core alone edits the network: answer a Replacement that makes what is to "
                f"stand there. {WHAT_TO_DO}"
            )
        if isinstance(replacement, NeuronAfterPool):
            if node.meta.get(COMMUTED):
                return Average(exact=False), mapper, owner
            if not self._can_commute(node):
                replacement = replacement.otherwise
        if isinstance(replacement, (Stateful, Average)) and site.varies < Varies.VARYING:
            # Nothing changes over time yet, so the ANN's own operation is exact.
            return Average(), mapper, owner
        if isinstance(replacement, Analog) and site.varies < Varies.VARYING:
            return Linear(), mapper, owner
        return replacement, mapper, owner

    def _can_commute(self, node: fx.Node) -> bool:
        before = node.args[0]
        decision = self.decisions.get(before) if isinstance(before, fx.Node) else None
        return (
            decision is not None
            and isinstance(decision.replacement, Spike)
            and not (decision.replacement.behind or decision.replacement.two_sided)
            and len(decision.site.values) == 1
            and len(before.users) == 1  # type: ignore[union-attr]
        )

    def _check_linear(self, site: Site, replacement: Replacement | None) -> None:
        values = site.values
        varying = [position for position, value in enumerate(values) if value.varies is Varies.VARYING]
        if replacement is None:
            self._refuse(site, *explain(site))
        elif isinstance(replacement, Refuse):
            self._refuse(site, replacement.why, replacement.help)
        elif isinstance(replacement, Product):
            if len(varying) > 1:
                self._refuse(
                    site, "it multiplies two spike streams, and the mean of a product is not the product of the means"
                )
            elif self._divides_by_spikes(site, replacement):
                self._refuse(site, "it divides by a spike stream")
        elif isinstance(replacement, Linear) and replacement.varying is not None:
            if not set(varying) <= set(replacement.varying):
                self._refuse(site, "its weights would be spikes: it is linear in its input only")
        elif isinstance(replacement, (Stateful, Remove, Weighted, Average)) and len(values) > 1 and varying != [0]:
            self._refuse(site, "only its first argument may vary over time")

    @staticmethod
    def _divides_by_spikes(site: Site, product: Product) -> bool:
        if product.divisor is None:
            return False
        divisor = site.argument("other", product.divisor)
        return isinstance(divisor, Value) and divisor.varies is Varies.VARYING

    def _refuse(self, site: Site, why: str, help: str = "") -> None:
        help = help or (
            "Replace it, install a plugin that claims it (`sj-ann2snn plugins`), or name its module in "
            "leaf_modules if it is linear over time."
        )
        help = help[:1].upper() + help[1:]
        help += "" if help.endswith(".") else "."
        self.problems.append(Problem(site.name, site.operation_name, site.source, why, help))

    def _check_batch(self, node: fx.Node) -> None:
        """Find out whether dimension 0 holds the samples, and no other."""
        if not self.record.is_tensor(node) or self.varies[node] is Varies.CONSTANT:
            return
        for first, second in zip(self.record.tensors(node), self.larger.tensors(node), strict=False):
            if (
                not first.shape
                or len(first.shape) != len(second.shape)
                or first.shape[0] * 3 != second.shape[0] * 2
                or first.shape[1:] != second.shape[1:]
            ):
                self._refuse(
                    self._site(node),
                    f"its result has shape {first.shape} for two samples and {second.shape} for three; "
                    "the samples must stay in dimension 0, one after the other",
                    "Move other dimensions only",
                )
                return
        self.batched.add(node)
        if node in self.mixing and node in self.decisions:
            self._refuse(self._site(node), "it mixes the samples of a batch", "Work on each sample by itself")

    def _site(self, node: fx.Node) -> Site:
        layer = self.module.get_submodule(str(node.target)) if node.op == "call_module" else None
        operation: type[nn.Module] | Callable[..., Any] | str
        operation = node.target if layer is None else _operation_type(layer, self.claimed)
        return Site(
            name=node_label(self.module, node),
            operation=operation,
            module=layer,
            args=self._values(node.args),
            kwargs=self._values(node.kwargs),
            output=self._describe(node),
            source=node.meta.get(SOURCE, ""),
        )

    def _values(self, tree: Any) -> Any:
        return map_leaves(tree, lambda leaf: self._describe(leaf) if isinstance(leaf, fx.Node) else leaf)

    def _describe(self, node: fx.Node) -> Any:
        varies = self.varies.get(node, Varies.VARYING)
        constant = attribute(self.module, str(node.target)) if node.op == "get_attr" else None

        def describe(leaf: Any) -> Any:
            if isinstance(leaf, TensorRecord):
                return Value(leaf.shape, leaf.dtype, varies, node.name, constant)
            return leaf

        return map_leaves(self.record[node], describe)


def _operation_type(layer: nn.Module, claimed: frozenset[type[nn.Module]]) -> type[nn.Module]:
    """The layer's type; for a user's subclass that keeps torch's forward, torch's own class."""
    if type(layer) in claimed:
        return type(layer)
    for cls in type(layer).__mro__:
        if cls.__module__.startswith("torch.nn.") or "forward" in cls.__dict__:
            return cls
    return type(layer)


def _asks_shape(node: fx.Node) -> bool:
    if node.op == "call_method":
        casts = node.target == "type" and len(node.args) + len(node.kwargs) > 1
        return node.target in _SHAPE_METHODS and not casts
    return node.op == "call_function" and (
        (node.target is getattr and node.args[1] in _SHAPE_ATTRIBUTES) or node.target in (len, isinstance)
    )


def _picks_from_tuple(node: fx.Node, record: Record) -> bool:
    """True for ``chunks[0]``, which picks one of several results rather than a part of a tensor."""
    if node.target is not operator.getitem:
        return False
    source = node.args[0]
    return isinstance(source, fx.Node) and not isinstance(record[source], TensorRecord)
