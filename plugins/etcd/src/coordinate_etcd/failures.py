"""What gRPC and etcd say, put into this library's errors: what was tried, where, and what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coordinate.errors import BackendUnavailable

if TYPE_CHECKING:
    from coordinate.url import StoreUrl

_ADVICE = (
    ("certificate_verify_failed", "the server's certificate is not trusted: name its authority with ssl_ca_certs"),
    ("hostname verification", "the certificate is another host's: name a host that is in it, or set ssl_server_name"),
    ("peer name", "the certificate is another host's: name a host that is in it, or set ssl_server_name"),
    ("certificate required", "it wants a client certificate: add ssl_certfile and ssl_keyfile"),
    ("bad certificate", "it wants a client certificate that its trusted-ca-file signed: see ssl_certfile, ssl_keyfile"),
    ("unwrap failed", "TLS ended by the server: it may want a client certificate: add ssl_certfile and ssl_keyfile"),
    ("wrong version number", "this port speaks no TLS: use etcd://"),
    ("handshake read failed", "the server hung up; if it always does, its port speaks no TLS: use etcd://"),
    ("handshake failed", "TLS was not agreed on: see the server's log, ssl_ca_certs, ssl_certfile and ssl_keyfile"),
    ("authentication failed", "check user name and password in the URL"),
    ("user name is empty", "the ensemble wants a user: write etcd://user:password@host"),
    ("permission denied", "the user's role lacks readwrite on the prefix of this namespace"),
    ("invalid auth token", "the ensemble does not know our token any more; asking again gets a new one"),
    ("space exceeded", "the ensemble's disk quota is used up: compact, defragment and disarm its alarm"),
    ("no leader", "the ensemble has no leader: a majority of its members has to run and reach each other"),
    ("leader changed", "the ensemble has just changed its leader; asking again is safe"),
    ("request timed out", "the ensemble did not agree in time; it may have happened, and asking again is safe"),
    ("too many requests", "the ensemble is overloaded; asking again later is safe"),
    ("deadline exceeded", "no answer in time; it may have happened, and asking again is safe"),
    ("socket closed", "the server hung up; if it always does, its port expects TLS: use etcds://"),
    ("connection reset", "the server hung up; if it always does, its port expects TLS: use etcds://"),
    ("failed to connect", "check that the server runs and that this address reaches it"),
    ("dns resolution failed", "check the host name in the URL"),
    ("unimplemented", "this is no etcd with the version 3 API: etcd 3.3 or later is needed"),
)
_OTHERWISE = "see the log of the server"


class LeaseMissing(Exception):
    """The server lease that a request names has expired or was revoked; nothing was written."""


def failure(what: str, url: StoreUrl, said: str) -> BackendUnavailable:
    """Return our error for what gRPC or the server said; the caller raises it ``from`` theirs."""
    if url.password:
        said = said.replace(url.password, "***")
    lowered = said.lower()
    advice = next((advice for word, advice in _ADVICE if word in lowered), _OTHERWISE)
    return BackendUnavailable(f"{what} on {url} failed: {said}; {advice}")
