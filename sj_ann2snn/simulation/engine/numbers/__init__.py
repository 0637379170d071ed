"""Layers whose values stay numbers: faster ways through modules of torch and SpikingJelly."""
