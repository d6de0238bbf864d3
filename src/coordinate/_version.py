"""The one version string of the repository; every plugin is held equal to it by a test."""

__version__ = "1.0.0"
