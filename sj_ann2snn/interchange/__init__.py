"""A converted network as plain data, and back: what stands between the graph and exporters."""

from .building import build
from .describing import describe

__all__ = ["build", "describe"]
