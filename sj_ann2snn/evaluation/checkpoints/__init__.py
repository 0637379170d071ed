"""Checkpoints: what a long run has finished, in a file, so that it can be killed and started again."""
