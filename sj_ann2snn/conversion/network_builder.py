"""Builds the graph of a converted network node by node: names, module calls, scalers on arguments."""

from __future__ import annotations

from typing import Any

from torch import fx, nn

from ..hooks.registry import BUILTIN
from ..layers import Scaler
from ..support.blame import Culprit
from ..support.converted_network import ConvertedNetwork
from ..support.makers import note_makers
from ..support.names import usable_target
from ..support.structures import rebuild
from ..support.trees import leaves
from .draft import Draft
from .graph.naming import copied_attribute, qualified_name

__all__ = ["NetworkBuilder"]


class NetworkBuilder:
    """Collects the nodes and modules of a converted network.

    Args:
        draft: With scales.

    Attributes:
        modules: The modules so far, by name.
    """

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self._graph = fx.Graph()
        self.modules: dict[str, Any] = {}
        self._new: dict[fx.Node, Any] = {}
        self._scaled: dict[tuple[fx.Node, bytes], fx.Node] = {}
        self._makers: dict[str, Culprit] = {}
        nodes = list(draft.module.graph.nodes)
        calls = [node for node in nodes if node.op == "call_module"]
        self._targets = {qualified_name(draft.module, node): str(node.target) for node in calls}
        self._layers = set(self._targets.values())
        self._taken = {
            prefix for node in nodes if node.op in ("call_module", "get_attr") for prefix in _prefixes(str(node.target))
        }

    def finish(self) -> fx.GraphModule:
        """The network, in eval mode on the draft's device."""
        snn = ConvertedNetwork(self.modules, self._graph, type(self.draft.module).__name__)
        snn.graph.lint()
        note_makers(snn, self._makers)
        return snn.eval().to(self.draft.device)

    def set(self, node: fx.Node, new: Any) -> None:
        """Let `new` replace a node of the ANN."""
        self._new[node] = new

    def output(self, node: fx.Node) -> fx.Node:
        """The network's output."""
        plain = fx.map_arg(node.args[0], lambda arg: self.argument(node, arg))
        output: fx.Node = self._graph.output(rebuild(plain, self.draft.structure, self._graph.call_function))
        return output

    def copy(self, node: fx.Node) -> fx.Node:
        """A copy of `node` as it is in the ANN, with the parameter, buffer or layer that it names."""
        if node.op == "get_attr":
            self.modules[str(node.target)] = copied_attribute(self.draft.module, str(node.target))
        elif node.op == "call_module":
            self.modules[str(node.target)] = self.draft.layer(node)
        copied = self._graph.node_copy(node, self._new.__getitem__)
        copied.type = None  # an annotation may be just a name, which older torch cannot write into code
        return copied

    def made_by(self, made: fx.Node, maker: Culprit) -> fx.Node:
        """Note that a plugin made the module that `made` calls, and return `made`."""
        if maker.owner.split()[0] != BUILTIN:
            self._makers[str(made.target)] = maker
        return made

    def call(self, node: fx.Node, name: str, module: nn.Module) -> fx.Node:
        """A call of `module` with the arguments of `node`."""
        args = fx.map_arg(node.args, lambda arg: self.argument(node, arg))
        kwargs = fx.map_arg(node.kwargs, lambda arg: self.argument(node, arg))
        return self.call_on(name, module, *args, **kwargs)

    def call_on(self, name: str, module: nn.Module, *args: Any, **kwargs: Any) -> fx.Node:
        """A call of `module`, registered as `name` or, if that is taken, under a similar name."""
        target = self._free(name)
        self.modules[target] = module
        return self._graph.call_module(target, args, kwargs)

    def first_argument(self, node: fx.Node) -> Any:
        """The first argument of `node`."""
        return self.argument(node, node.all_input_nodes[0])

    def argument(self, user: fx.Node, arg: fx.Node) -> Any:
        """The value that `user` reads for `arg`, behind a scaler if one is planned."""
        scale = self.draft.scales.scalers.get((user, arg))
        if scale is None:
            return self._new[arg]
        key = arg, scale.numpy().tobytes()
        if key not in self._scaled:
            factor = (scale if not scale.dim() else scale[0]).to(self.draft.record[arg].dtype)
            decision = self.draft.plan.decisions.get(arg)
            name = f"{decision.site.name if decision else arg.name}_scaler"
            self._scaled[key] = self.call_on(name, Scaler(factor), self._new[arg])
        return self._scaled[key]

    def sequences(self, node: fx.Node) -> tuple[int, ...]:
        """Positions, among the tensors that the call receives, of tensors with time and samples."""
        batched = [
            leaf in self.draft.plan.batched
            for leaf in leaves((node.args, node.kwargs))
            if isinstance(leaf, fx.Node)
            for _ in self.draft.record.tensors(leaf)
        ]
        return tuple(position for position, yes in enumerate(batched) if yes)

    def _free(self, name: str) -> str:
        """`name`, or the next free name that code can use; layers of the ANN keep their names."""
        name = self._targets.get(name, usable_target(name))
        own = name in self._layers and name not in self.modules
        candidate, count = name, 1
        while not own and (candidate in self._taken or candidate in self.modules):
            candidate, count = f"{name}_{count}", count + 1
        self._taken.update(_prefixes(candidate))
        return candidate


def _prefixes(target: str) -> list[str]:
    parts = target.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]
