"""Reads ONNX files as networks of torch, which the converter then takes."""

from .reading import from_onnx

__all__ = ["from_onnx"]
