"""Frappe policy on top of `coordinate`."""
