"""Runs a converted network layer by layer over time.

Values that do not vary over time (everything before the first neuron) are computed once. Every other layer runs many
steps at a time, on tiles of samples and steps that keep memory bounded. The tiles share the processor's cores. The
result equals that of the hand-written loop ``for t in range(T): out += snn(x)``.
"""

from .bits.values import PackedSpikes
from .changes.values import Changes
from .collectors import Call, Collector, OverTime
from .levels.values import Levels
from .outputs import concatenate, plain
from .packed.values import Packed
from .simulator import Simulator

__all__ = [
    "Call",
    "Changes",
    "Collector",
    "Levels",
    "OverTime",
    "Packed",
    "PackedSpikes",
    "Simulator",
    "concatenate",
    "plain",
]
