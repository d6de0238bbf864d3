"""Stores that come with the package; each is imported only when a URL names it."""
