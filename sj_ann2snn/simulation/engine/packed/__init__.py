"""What all values have in common that take less memory than numbers, and the layers that they pass."""
