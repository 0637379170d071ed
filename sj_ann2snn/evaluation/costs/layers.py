"""The layers of a converted network, and which of them are computed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import fx, nn

from ...layers.stepwise import operation_label
from ...simulation.engine.flow import Flow
from ...simulation.partwise import converted_parts

__all__ = ["Layers"]


@dataclass(frozen=True)
class Layers:
    """The layers by name, in the order of their calls.

    Attributes:
        network: The network.
        once: For every call of a module, whether its input is constant over time, so that it is computed once.
        others_once: The same for everything else: what stands outside of the converted parts.
    """

    network: nn.Module
    once: Mapping[str, bool]
    others_once: bool

    @classmethod
    def of(cls, snn: nn.Module) -> Layers:
        """The layers of a converted network, or of one with converted parts; others run step by step."""
        parts = {"": snn} if isinstance(snn, fx.GraphModule) else converted_parts(snn)
        once: dict[str, bool] = {}
        flows = []
        for name, part in parts.items():
            flow = Flow.of(part)
            flows.append(flow)
            for node in part.graph.nodes:
                if node.op == "call_module":
                    target = f"{name}.{node.target}" if name else str(node.target)
                    constant = flow is not None and node not in flow.varying
                    once[target] = once.get(target, True) and constant
        return cls(snn, once, bool(parts) and None not in flows)

    def row(self, name: str) -> str:
        """The layer that the module `name` is, or is a part of."""
        outer = name
        while outer and outer not in self.once:
            outer = outer.rpartition(".")[0]
        return outer or name

    def is_once(self, name: str) -> bool:
        """True if the layer is computed once, and not at every step."""
        return self.once.get(name, self.others_once)

    def kind(self, name: str) -> str:
        """What the layer is: ``Conv2d``, ``matmul``."""
        module = self.network.get_submodule(name) if name else self.network
        operation = getattr(module, "operation", module)
        if not name:
            return "functions"
        return type(operation).__name__ if isinstance(operation, nn.Module) else operation_label(operation)
