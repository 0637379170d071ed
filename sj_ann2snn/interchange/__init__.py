"""Turns a converted network into plain data for exporters, and back."""

from .building import build
from .describing import describe

__all__ = ["build", "describe"]
