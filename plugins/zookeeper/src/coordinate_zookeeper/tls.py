"""Encrypted connections: contexts from files, which are read again for each connection, so they may be renewed."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping
    from ssl import SSLContext


def context(ca: str | None, certfile: str | None, keyfile: str | None, password: str) -> SSLContext:
    """Return a context that verifies the server's certificate.

    Args:
        ca: trusted besides the system's authorities.
        certfile: the client's certificate.
        keyfile: its key.
        password: of the key; an empty one keeps OpenSSL from asking on the terminal.
    """
    import ssl  # noqa: PLC0415 -- loads OpenSSL: only for encrypted connections

    # Not ssl's default context: from Python 3.13 on it refuses authorities that lack an extension, as private ones do.
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if ca:
        made.load_verify_locations(ca)
    if certfile and keyfile:
        made.load_cert_chain(certfile, keyfile, password)
    return made


def secured(plain: socket.socket, options: Mapping[str, object]) -> socket.socket:
    """Return a connection encrypted by kazoo's options of those names; the handshake has the socket's time limit.

    Raises:
        OSError: the handshake failed.
    """
    ca, certfile, keyfile = (cast("str | None", options.get(name)) for name in ("ca", "certfile", "keyfile"))
    made = context(ca, certfile, keyfile, str(options.get("keyfile_password") or ""))
    made.check_hostname = bool(options.get("check_hostname"))
    return made.wrap_socket(plain, server_hostname=str(options["hostname"]))
