"""The image of examples/frappe: built, run in containers, looked at."""
