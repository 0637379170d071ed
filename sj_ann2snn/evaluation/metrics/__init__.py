"""What `evaluate` measures: metrics by name, of the caller's, and how they find their outputs and targets."""
