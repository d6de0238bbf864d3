"""Stores with one promise broken each, by what is broken; `broken_stores` runs the contract on them."""
