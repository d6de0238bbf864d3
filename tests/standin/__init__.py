"""Tests of the stand-in bench: every behaviour of the real one that frappe_bootstrap relies on."""
