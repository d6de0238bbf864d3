"""Patches of the stand-in framework."""
