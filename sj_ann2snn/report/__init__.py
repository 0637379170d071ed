"""Draws a diagnosis from plain data: as one HTML page, or as Matplotlib figures."""
