"""``python -m coordinate``."""

from coordinate.cli import main

main()
