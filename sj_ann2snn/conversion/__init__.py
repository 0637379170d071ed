"""One conversion, a file per stage; `converter` runs them in order. Plugins describe; only the core edits graphs."""
