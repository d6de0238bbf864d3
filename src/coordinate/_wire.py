"""The stored form of records: JSON, one version field, bounded size. Nothing else knows the format."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from coordinate.errors import ConfigError, CorruptRecord

_T = TypeVar("_T")
LIMIT = 64 * 1024
VERSION = 1


def encode(record: msgspec.Struct) -> bytes:
    """Return the record as one line of JSON.

    Raises:
        ConfigError: larger than what `decode` accepts: whoever reads it would refuse it, so it must not be stored.
    """
    data = msgspec.json.encode(record)
    if len(data) > LIMIT:
        message = f"a {type(record).__name__} of {len(data)} bytes is too large to store: at most {LIMIT}"
        raise ConfigError(message)
    return data


def decode(kind: type[_T], data: bytes | bytearray | str) -> _T:
    """Return the record that ``data`` holds.

    Raises:
        CorruptRecord: too large, not JSON, wrong types, or of a version this program does not know.
    """
    if len(data) > LIMIT:
        message = f"a stored {kind.__name__} is larger than {LIMIT} bytes"
        raise CorruptRecord(message)
    try:
        record = msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        message = f"a stored {kind.__name__} cannot be read: {error}"
        raise CorruptRecord(message) from error
    if getattr(record, "v", VERSION) != VERSION:
        message = f"a stored {kind.__name__} has a format this version does not know"
        raise CorruptRecord(message)
    return record
