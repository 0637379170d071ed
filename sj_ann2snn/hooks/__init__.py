"""How plugins are found, checked and chosen."""
