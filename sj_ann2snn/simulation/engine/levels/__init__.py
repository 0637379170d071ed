"""Graded spikes in small integers, on a CPU."""
