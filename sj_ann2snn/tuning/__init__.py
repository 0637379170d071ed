"""Finds the cheapest conversion that keeps a network's accuracy."""
