"""Log lines of the programs: text for people, JSON for collectors. The library itself only uses `logging`."""

from __future__ import annotations

import json
import logging
import os
import sys
import time

from coordinate.errors import ConfigError


class JsonLines(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        line = {
            "time": stamp,
            "level": record.levelname.lower(),
            "pid": record.process,
            "message": record.getMessage(),
        }
        return json.dumps(line, ensure_ascii=False)


def set_up(level: int = logging.WARNING) -> None:
    """Send log lines to stderr in the format that ``COORDINATE_LOG_FORMAT`` asks for.

    Raises:
        ConfigError: an unknown format.
    """
    wanted = os.environ.get("COORDINATE_LOG_FORMAT", "auto")
    if wanted not in {"auto", "text", "json"}:
        message = f"COORDINATE_LOG_FORMAT={wanted!r}: use auto, text or json"
        raise ConfigError(message)
    handler = logging.StreamHandler(sys.stderr)
    if wanted == "json" or (wanted == "auto" and not sys.stderr.isatty() and "KUBERNETES_SERVICE_HOST" in os.environ):
        handler.setFormatter(JsonLines())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s coordinate[%(process)d] %(levelname)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
