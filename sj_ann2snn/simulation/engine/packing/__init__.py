"""Which parts of a network pass on packed values, and how they run."""
