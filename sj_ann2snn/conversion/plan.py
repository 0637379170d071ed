"""Decides what every call of a canonical ANN becomes, and refuses what has no exact counterpart.

A spiking network is correct only if every operation between spiking layers is linear in the values that vary over
time. The planner checks the whole graph; one error lists everything that breaks this rule.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from torch import fx, nn

from ..contracts.replacements import Average, Linear, NeuronAfterPool, Refuse, Replacement, Spike
from ..contracts.site import Site, Value, Varies
from ..errors import PluginError
from ..hooks.known_plugins import KnownPlugin, provider_of_operation
from ..hooks.registry import BUILTIN
from ..support.blame import Culprit, blame
from ..support.trees import map_leaves
from ..support.wording import sentence, shown
from .draft import COMMUTED, YOU, Decision, Draft, Plan
from .forward_batchnorm import fold_forward
from .graph.batch_mixing import mixing_nodes
from .graph.known_values import asks_shape
from .graph.naming import attribute, node_label
from .graph.records import Record, TensorRecord
from .graph.refusals import explain
from .graph.snapshot import Snapshot
from .graph.tracing import LEAF, SOURCE
from .pools import exchange_pools, exchanged_pools
from .prepare import record_of
from .problems import Problem

__all__ = ["MapperFinder", "make_plan"]

MapperFinder = Callable[[Site], tuple[Replacement | None, str, str]]
"""Returns the replacement for a site, the mapper's name and its owner."""


def make_plan(
    draft: Draft, find: MapperFinder, claimed: Collection[type[nn.Module]], *, fold_batchnorm: bool = True
) -> Draft:
    """Decide what every node becomes, fold BatchNorm behind neurons, and exchange pools where decisions ask for it.

    Args:
        draft: In canonical form.
        find: Asks the mappers.
        claimed: Module types that a mapper claims.
        fold_batchnorm: Fold BatchNorm behind neurons into the layers behind it.

    Returns:
        The draft with `record` and `plan`; the plan lists everything that prevents an exact conversion.
    """
    planned = _run_planner(draft, find, claimed)
    if planned.plan.problems:
        return planned
    folded = fold_forward(planned) if fold_batchnorm else planned
    if folded is not planned:
        planned = _run_planner(folded, find, claimed)
    exchanged = exchange_pools(planned)
    if exchanged is planned:
        return planned
    final = _run_planner(exchanged, find, claimed)
    return final.evolve(plan=replace(final.plan, exchanged=tuple(exchanged_pools(planned.plan).values())))


def _run_planner(draft: Draft, find: MapperFinder, claimed: Collection[type[nn.Module]]) -> Draft:
    recorded, larger = (record_of(draft.module, samples) for samples in (draft.samples, draft.more))
    mixing = mixing_nodes(draft.module, draft.more)
    draft = draft.evolve(record=recorded)

    def plan(inputs: Varies, *, front_stays: bool) -> Plan:
        return _Planner(draft, larger, find, frozenset(claimed), mixing, inputs, front_stays=front_stays).run()

    made = plan(Varies.STATIC, front_stays=True)
    if not made.spikes:
        made = plan(Varies.STATIC, front_stays=False)
    if not made.spikes:
        # Without a neuron nothing varies over time, so nothing would be refused: plan as if the input varied.
        made = plan(Varies.VARYING, front_stays=False)
    return draft.evolve(plan=made)


class _Planner:
    """Visits the nodes in order of execution.

    Args:
        draft: With a record for two samples.
        larger: The record for three samples; shows which dimension holds the samples.
        find: Asks the mappers.
        claimed: Module types that a mapper claims.
        mixing: Nodes at which a sample begins to depend on the others.
        inputs: How the network's inputs vary.
        front_stays: Leave activations in front of the first weights as they are in the ANN.
    """

    def __init__(
        self,
        draft: Draft,
        larger: Record,
        find: MapperFinder,
        claimed: frozenset[type[nn.Module]],
        mixing: frozenset[fx.Node],
        inputs: Varies,
        *,
        front_stays: bool,
    ) -> None:
        self.module, self.record, self.larger, self.find = draft.module, draft.record, larger, find
        self.claimed, self.problems, self.mixing, self.inputs = claimed, list(draft.problems), mixing, inputs
        self.front_stays = front_stays
        self.varies: dict[fx.Node, Varies] = {}
        self.decisions: dict[fx.Node, Decision] = {}
        self.batched: set[fx.Node] = set()
        self.raw: set[fx.Node] = set()
        """Values made of the network's inputs without any weights."""

    def run(self) -> Plan:
        for node in self.module.graph.nodes:
            if node.op == "output":
                continue
            if node.op in ("placeholder", "get_attr"):
                tensor = self.record.is_tensor(node)
                static = node.op == "placeholder" and tensor
                self.varies[node] = self.inputs if static else Varies.CONSTANT
                if static:
                    self.raw.add(node)
            else:
                self._visit(node)
            self._check_batch(node)
        return Plan(
            self.decisions,
            self.varies,
            frozenset(self.batched),
            raw=frozenset(self.raw),
            problems=tuple(self.problems),
        )

    def _visit(self, node: fx.Node) -> None:
        inputs = max((self.varies[arg] for arg in node.all_input_nodes), default=Varies.CONSTANT)
        if inputs is Varies.CONSTANT:
            self.varies[node] = inputs
            return
        if asks_shape(node.op, node.target, node.args, node.kwargs):
            self.varies[node] = Varies.CONSTANT
            return
        if _picks_from_tuple(node, self.record):
            self.varies[node] = inputs
            if self.raw.issuperset(node.all_input_nodes):
                self.raw.add(node)
            return
        site = self._site(node)
        if self._is_raw(node, site):
            self.raw.add(node)
        if not self.record.is_tensor(node):
            self.varies[node] = inputs
            if inputs is Varies.VARYING:
                self._refuse(site, "it turns spikes into a Python value, which stays fixed while they change")
            return
        replacement, mapper, owner = self._decide(node, site)
        if isinstance(replacement, Spike):
            inputs = Varies.VARYING
        elif inputs is Varies.VARYING:
            self._check_linear(site, replacement, mapper, owner)
        self.varies[node] = inputs
        self.decisions[node] = Decision(site, replacement, mapper, owner, inputs)

    def _decide(self, node: fx.Node, site: Site) -> tuple[Replacement | None, str, str]:
        if node.meta.get(LEAF):
            return Linear(), "leaf_modules", YOU
        before = Snapshot(self.module.graph, site)
        replacement, mapper, owner = self.find(site)
        changed = before.changed()
        who = Culprit(f"Mapper {shown(mapper)}", owner)
        if changed is not None:
            raise PluginError(
                f"{who}, asked about {_shown(site)}, changed {changed}. A mapper only describes; the core edits the "
                f"network. It must return a Replacement that makes the new module. {who.advice}"
            )
        if isinstance(replacement, NeuronAfterPool):
            if node.meta.get(COMMUTED):
                return Average(exact=False), mapper, owner
            if not self._can_commute(node):
                replacement = replacement.otherwise
        if isinstance(replacement, Spike) and not self._may_spike(node, site):
            replacement = None if site.varies < Varies.VARYING else Refuse("spikes carry real values, not complex ones")
        if replacement is not None and site.varies < Varies.VARYING:
            with blame(who, f"asked about {_shown(site)}", replacement, "when_static"):
                replacement = replacement.when_static()
        return replacement, mapper, owner

    def _is_raw(self, node: fx.Node, site: Site) -> bool:
        """True for what is made of the network's inputs without weights, such as a spectrum or a rescaled image."""
        weights = site.module is not None and next(site.module.parameters(), None) is not None
        weights = weights or any(isinstance(value.constant, nn.Parameter) for value in site.values)
        inputs = [arg for arg in node.all_input_nodes if self.varies[arg] > Varies.CONSTANT]
        return not weights and self.raw.issuperset(inputs)

    def _may_spike(self, node: fx.Node, site: Site) -> bool:
        """False for complex values, and for a front end that stays as it is: nothing in it was trained."""
        return not any(value.dtype.is_complex for value in site.values) and not (self.front_stays and node in self.raw)

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

    def _check_linear(self, site: Site, replacement: Replacement | None, mapper: str, owner: str) -> None:
        varying = [position for position, value in enumerate(site.values) if value.varies is Varies.VARYING]
        if replacement is None:
            self._refuse(site, *explain(site), provider=provider_of_operation(site.operation))
            return
        with blame(Culprit(f"Mapper {shown(mapper)}", owner), f"asked about {_shown(site)}", replacement, "objection"):
            objection = replacement.objection(site, varying)
        if objection is not None:
            provider = provider_of_operation(site.operation) if owner.split()[0] == BUILTIN else None
            if isinstance(replacement, Refuse) and provider is not None and mapper not in provider.lifts:
                provider = None
            self._refuse(site, *objection, provider=provider)

    def _refuse(self, site: Site, why: str, help: str = "", *, provider: KnownPlugin | None = None) -> None:
        help = help or (
            "Replace it, install a plugin that claims it (`sj-ann2snn plugins`), or name its module in "
            "leaf_modules if it is linear over time."
        )
        help = help[:1].upper() + help[1:]
        help = sentence(help)
        if provider is not None:
            help += f" {site.operation_name} comes with {provider}."
        self.problems.append(Problem(site.name, site.operation_name, site.source, why, help))

    def _check_batch(self, node: fx.Node) -> None:
        """Check that dimension 0, and no other, holds the samples."""
        if not self.record.is_tensor(node) or self.varies[node] is Varies.CONSTANT:
            return
        for first, second in zip(self.record.tensors(node), self.larger.tensors(node), strict=False):
            if (
                not first.shape
                or len(first.shape) != len(second.shape)
                or first.shape[0] * 3 != second.shape[0] * 2
                or first.shape[1:] != second.shape[1:]
            ):
                self._refuse_batch(node, first.shape, second.shape)
                return
        self.batched.add(node)
        if node in self.mixing and node in self.decisions:
            self._refuse(self._site(node), "it mixes the samples of a batch", "Work on each sample by itself")

    def _refuse_batch(self, node: fx.Node, first: tuple[int, ...], second: tuple[int, ...]) -> None:
        label = node_label(self.module, node)
        if any(problem.name == label for problem in self.problems):
            return  # for a reason that says more
        if node.op == "placeholder":
            why = f"it has shape {first} for two samples and {second} for three; inputs hold samples in dimension 0"
            help = "Pass one value per sample, or keep in the network what is the same for all of them, as a buffer."
            self.problems.append(Problem(label, "input", "", why, help))
        elif all(self._has_samples(arg) for arg in node.all_input_nodes):  # otherwise it follows from what is refused
            self._refuse(
                self._site(node),
                f"its result has shape {first} for two samples and {second} for three; "
                "the samples must stay in dimension 0, one after the other",
                "Move other dimensions only",
            )

    def _has_samples(self, node: fx.Node) -> bool:
        """True for what is checked to have its samples in dimension 0, and for what has none."""
        return node in self.batched or not self.record.is_tensor(node) or self.varies[node] is Varies.CONSTANT

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


def _shown(site: Site) -> str:
    return f"{site.name} ({site.operation_name})"


def _operation_type(layer: nn.Module, claimed: frozenset[type[nn.Module]]) -> type[nn.Module]:
    """The layer's type; for a subclass that inherits torch's forward, torch's own class."""
    if type(layer) in claimed:
        return type(layer)
    for cls in type(layer).__mro__:
        if cls.__module__.startswith("torch.nn.") or "forward" in cls.__dict__:
            return cls
    return type(layer)


def _picks_from_tuple(node: fx.Node, record: Record) -> bool:
    """True for ``chunks[0]``, which picks one of several results instead of a part of a tensor."""
    if node.target is not operator.getitem:
        return False
    source = node.args[0]
    return isinstance(source, fx.Node) and not isinstance(record[source], TensorRecord)
