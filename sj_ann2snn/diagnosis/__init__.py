"""Says which layers of a converted network lose the ANN's answer, by what, and what mends it."""
