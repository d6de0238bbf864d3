"""A stand-in for the framework: what its commands show to the outside, and nothing of its inside."""

__version__ = "15.8.1"
