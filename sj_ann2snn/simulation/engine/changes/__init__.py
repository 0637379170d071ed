"""Values of neurons by their changes, on a CPU."""
