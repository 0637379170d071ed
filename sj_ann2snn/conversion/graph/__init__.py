"""Facts about a traced graph, and passes over it before anything is decided."""
