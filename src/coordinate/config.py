"""From arguments and environment to settings. Argument beats environment beats default; all are validated here.

=========================  =============================================================================
``COORDINATE_URL``         lease store; default ``redis://127.0.0.1:6379/0``
``COORDINATE_URL_FILE``    a file that holds the URL (for mounted secrets)
``COORDINATE_BACKEND``     a scheme alone, with that store's default address; must agree with the URL
``COORDINATE_MARKERS_URL`` marker store; default: the lease store
``COORDINATE_NAMESPACE``   separates users of one store; default ``coordinate``
``COORDINATE_TTL``         length of a lease in seconds; default 30
``COORDINATE_HOLDER``      how this process is shown to others; default POD_NAME, else the host name
``COORDINATE_LOG_FORMAT``  ``text``, ``json`` or ``auto`` (text on a terminal); for the programs, not the library
=========================  =============================================================================
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from coordinate._names import check_name
from coordinate.errors import BackendUnavailable, ConfigError
from coordinate.url import StoreUrl, parse

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_URL = "redis://127.0.0.1:6379/0"
DEFAULT_TTL = 30.0


class Timing(NamedTuple):
    """How long a lease lasts and when it is renewed; the proportions are client-go's.

    Args:
        ttl: length of the lease in seconds.
        renew_deadline: without a good renewal for this long, the work is told to stop.
        retry_period: how often renewal is tried.
        timeout: how long one request may take.
    """

    ttl: float
    renew_deadline: float
    retry_period: float
    timeout: float

    @classmethod
    def of(
        cls,
        ttl: float,
        renew_deadline: float | None = None,
        retry_period: float | None = None,
        timeout: float | None = None,
    ) -> Timing:
        """Return a timing in which what is not given follows from the ttl: 2/3, 1/6 and at most 1/6 of it.

        Raises:
            ConfigError: a relation is broken; the message names both values.
        """
        deadline = ttl * 2 / 3 if renew_deadline is None else renew_deadline
        period = ttl / 6 if retry_period is None else retry_period
        patience = min(5.0, ttl / 6) if timeout is None else timeout
        timing = cls(ttl, deadline, period, patience)
        timing.check()
        return timing

    def check(self) -> None:
        """Refuse a timing that cannot keep the promises.

        Raises:
            ConfigError: naming both values of the broken relation.
        """
        values = {name: value for name, value in self._asdict().items() if not 0 < value < math.inf}
        if values:
            message = f"lease timing must be finite and above 0 seconds: {values}"
            raise ConfigError(message)
        relations = (
            ("renew_deadline", self.renew_deadline, "ttl", self.ttl),
            ("retry_period", self.retry_period, "renew_deadline", self.renew_deadline),
            # A request that is still unanswered when the work is told to stop must not eat the time to stop it.
            ("request timeout", self.timeout, "ttl - renew_deadline", self.ttl - self.renew_deadline),
        )
        for small_name, small, large_name, large in relations:
            if small >= large:
                message = f"{small_name} ({small:g} s) must be below {large_name} ({large:g} s)"
                raise ConfigError(message)


class Settings(NamedTuple):
    """Everything `coordinate.connect` needs to know."""

    url: StoreUrl
    markers_url: StoreUrl | None
    namespace: str
    timing: Timing
    holder: str


def load(
    url: str | None = None,
    *,
    markers_url: str | None = None,
    namespace: str | None = None,
    ttl: float | None = None,
    holder: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Return settings from arguments, the environment and defaults.

    Raises:
        ConfigError: naming the variable or argument, the value and the fix.
        BackendUnavailable: ``COORDINATE_URL_FILE`` cannot be read.
    """
    env = os.environ if environ is None else environ
    markers = markers_url or env.get("COORDINATE_MARKERS_URL")
    space = namespace or env.get("COORDINATE_NAMESPACE") or "coordinate"
    length = _seconds("COORDINATE_TTL", env.get("COORDINATE_TTL")) if ttl is None else ttl
    name = holder or env.get("COORDINATE_HOLDER") or env.get("POD_NAME") or ""
    return Settings(
        url=parse(url or _url_from(env)),
        markers_url=parse(markers) if markers else None,
        namespace=check_name(space, "namespace"),
        timing=Timing.of(DEFAULT_TTL if length is None else length),
        holder=name,
    )


def _url_from(env: Mapping[str, str]) -> str:
    url, file, scheme = (env.get(f"COORDINATE_{key}", "") for key in ("URL", "URL_FILE", "BACKEND"))
    if url and file:
        message = "COORDINATE_URL and COORDINATE_URL_FILE are both set: unset one"
        raise ConfigError(message)
    url = url or (_read(file) if file else "")
    if not scheme:
        return url or DEFAULT_URL
    if not url:
        from coordinate._plugins import backend_class  # noqa: PLC0415 -- loads a plugin: only when needed

        default = backend_class(scheme).default_url
        if parse(default).scheme != scheme:
            # rediss or redis+sentinel must never come to mean a plain server on this host.
            message = f"COORDINATE_BACKEND={scheme} has no default address: set COORDINATE_URL={scheme}://..."
            raise ConfigError(message)
        return default
    if parse(url).base_scheme != scheme.partition("+")[0]:
        message = f"COORDINATE_BACKEND={scheme} contradicts COORDINATE_URL={parse(url)}: unset one"
        raise ConfigError(message)
    return url


def _read(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except OSError as error:
        message = f"COORDINATE_URL_FILE={file} cannot be read: {error.strerror}"
        raise BackendUnavailable(message) from error


def _seconds(variable: str, text: str | None) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        message = f"{variable}={text!r} is not a number of seconds above 0"
        raise ConfigError(message)
    return value
