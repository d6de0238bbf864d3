"""Several servers that belong together, and what can happen to them."""
