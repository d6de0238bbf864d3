"""Credentials that change: a function that the URL names is asked before each new connection.

``credential_provider=package.module:factory`` names a function of the program's own. It is called once with the
`coordinate.url.StoreUrl` and returns a provider: a function without arguments that returns ``(user, password)``, or
``(None, password)`` for the default user. The provider is called for every new connection, from whatever thread
needs one, maybe from several at once; it should answer at once, because nothing else bounds it.

What a provider raises may hold secrets, so only its type and the line it comes from are ever shown.
"""

from __future__ import annotations

import importlib
import traceback
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, cast

from coordinate.backends.redis.failures import NoCredentials
from coordinate.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from coordinate.url import StoreUrl

    Provider: TypeAlias = Callable[[], tuple[str | None, str]]

OPTION = "credential_provider"


class Login(NamedTuple):
    """What a connection authenticates with."""

    username: str | None
    password: str | None

    def __repr__(self) -> str:
        return f"<Login {self.username}>"


class Credentials:
    """The credentials of a URL: fixed ones, or a provider's.

    Args:
        url: where the option is looked for, and what the factory gets.

    Raises:
        ConfigError: the provider cannot be found or made, or the URL has a password, too.
    """

    def __init__(self, url: StoreUrl) -> None:
        self._fixed = Login(url.username, url.password)
        self._name = url.options.get(OPTION, "")
        self._provider = _made(url, self._name) if OPTION in url.options else None

    def __call__(self) -> Login:
        """Return what a new connection authenticates with.

        Raises:
            NoCredentials: the provider failed or returned something else.
        """
        if self._provider is None:
            return self._fixed
        answer: object = None
        try:
            answer = self._provider()
        except Exception as error:  # noqa: BLE001 -- somebody else's code
            failed = _described(error)
        else:
            failed = "" if _is_login(answer) else "it did not return (user, password), two texts or None and a text"
        # Raised out here, where nothing refers to the provider's own error and its secrets any more.
        if failed:
            message = f"the credential provider {self._name} failed: {failed}"
            raise NoCredentials(message)
        return Login(*cast("tuple[str | None, str]", answer))


def _made(url: StoreUrl, name: str) -> Provider:
    if url.password is not None:
        message = f"{url}: a password and {OPTION} exclude each other: take one out"
        raise ConfigError(message)
    factory = _found(url, name)
    made: object = None
    try:
        made = factory(url)
    except Exception as error:  # noqa: BLE001 -- somebody else's code
        failed = _described(error)
    else:
        failed = "" if callable(made) else "it did not return a function"
    if failed:
        message = f"{url}: the factory of the credential provider failed: {failed}"
        raise ConfigError(message)
    return cast("Provider", made)


def _found(url: StoreUrl, name: str) -> Callable[[StoreUrl], object]:
    module, colon, attribute = name.partition(":")
    found: object = None
    try:
        found = getattr(importlib.import_module(module), attribute, None) if colon and attribute else None
    except ImportError as error:
        failed = str(error)
    except Exception as error:  # noqa: BLE001 -- somebody else's module, or a name that cannot be one
        failed = _described(error)
    else:
        failed = "" if callable(found) else "it names no function; it looks like package.module:factory"
    if failed:
        message = f"{url}: {OPTION}={name!r} cannot be used: {failed}"
        raise ConfigError(message)
    return cast("Callable[[StoreUrl], object]", found)


def _is_login(answer: object) -> bool:
    return (
        isinstance(answer, tuple)
        and len(answer) == len(Login._fields)
        and isinstance(answer[0], str | None)
        and isinstance(answer[1], str)
    )


def _described(error: Exception) -> str:
    """Return type and place of an error, without its text."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {last.filename}:{last.lineno}"
