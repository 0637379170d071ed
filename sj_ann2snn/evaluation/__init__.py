"""Accuracy over time steps, and what the network spends for it."""
