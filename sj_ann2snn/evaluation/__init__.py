"""Measures accuracy over time steps, spikes and synaptic operations."""
