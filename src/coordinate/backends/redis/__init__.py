"""``redis://`` and ``unix://``: leases and markers on a Redis server."""

from coordinate.backends.redis.backend import RedisBackend

__all__ = ["RedisBackend"]
