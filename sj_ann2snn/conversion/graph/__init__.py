"""Facts about a traced graph, and passes on it before anything is decided."""
