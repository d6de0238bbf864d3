"""Certificates for tests: an authority, servers and clients, made by the openssl command."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")


class Pair(NamedTuple):
    """A certificate and its key."""

    cert: Path
    key: Path


def _openssl(*args: str | Path) -> None:
    command = ["openssl", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class Authority:
    """A certificate authority in a folder."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self.pair = Pair(folder / f"{name}.crt", folder / f"{name}.key")
        subject = ("-days", "2", "-subj", f"/CN={name}")
        _openssl("req", "-x509", *_NEW_KEY, "-nodes", "-keyout", self.pair.key, "-out", self.pair.cert, *subject)

    def issue(self, name: str, *alternatives: str) -> Pair:
        """Return a certificate for the given names, for example ``DNS:localhost``."""
        pair, request = Pair(self._folder / f"{name}.crt", self._folder / f"{name}.key"), self._folder / f"{name}.csr"
        extension = self._folder / f"{name}.ext"
        extension.write_text(f"subjectAltName={','.join(alternatives or (f'DNS:{name}',))}\n")
        _openssl("req", *_NEW_KEY, "-nodes", "-keyout", pair.key, "-out", request, "-subj", f"/CN={name}")
        signed_by = ("-CA", self.pair.cert, "-CAkey", self.pair.key, "-CAcreateserial")
        _openssl("x509", "-req", "-in", request, *signed_by, "-days", "2", "-extfile", extension, "-out", pair.cert)
        return pair


def locked(pair: Pair, password: str) -> Pair:
    """Return the same certificate with its key under a password."""
    key = pair.key.with_suffix(".locked.key")
    _openssl("pkcs8", "-topk8", "-in", pair.key, "-out", key, "-passout", f"pass:{password}")
    return Pair(pair.cert, key)
