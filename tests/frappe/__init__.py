"""Tests of the entrypoint of Frappe images."""
