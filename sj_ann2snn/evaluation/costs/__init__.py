"""What an inference costs: operations and energy, of an ANN and of its spiking network."""
