"""worker and schedule: processes that only live, and say so in STANDIN_LOG every 0.2 s."""

from __future__ import annotations

import signal
import sys
import time

from frappe import knobs


def live(command: str, detail: str = "") -> None:
    """Live until SIGTERM, which ends with 0."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while True:
        knobs.point(f"{command}:tick", detail)
        time.sleep(0.2)
