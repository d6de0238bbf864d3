"""A project with one app."""
