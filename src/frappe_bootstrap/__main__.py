"""``python -m frappe_bootstrap``."""

from frappe_bootstrap.cli import main

main()
