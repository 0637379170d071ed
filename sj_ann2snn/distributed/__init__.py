"""Several processes share one piece of work, and end up with the same bits as one process alone.

A public function opens a `session` and hands the `Ranks` to its stages, which ask it for their share of the batches and
for what the others found. Without ``distributed=`` there is one rank, which has everything.
"""
