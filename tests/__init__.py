"""All tests that are not a plugin's own."""
