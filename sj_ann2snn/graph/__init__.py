"""The passes that turn a traced ANN into a spiking network. The core alone edits graphs."""
