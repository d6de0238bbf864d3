"""A patch whose effect is its line in the patch log."""


def execute() -> None:
    """Do nothing."""
