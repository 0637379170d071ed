"""One conversion, a file per stage; `converter` runs them in order. Plugins describe, the core alone edits graphs."""
