"""Helpers for every part of the package: nested values, batches, wording, blame. They know nothing about spikes."""
