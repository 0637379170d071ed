"""Runs a converted network layer by layer over time.

What does not vary over time (all before the first neuron) is computed once; every other layer runs many
steps at a time, for a tile of samples and steps that keeps memory bounded; the tiles share the
processor's cores. The result is that of the hand-written loop ``for t in range(T): out += snn(x)``.
"""

from .collectors import Collector, OverTime
from .outputs import concatenate, plain
from .simulator import Simulator

__all__ = ["Collector", "OverTime", "Simulator", "concatenate", "plain"]
