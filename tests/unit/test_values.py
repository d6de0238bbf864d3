"""Names, URLs, configuration, wire format and errors."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import coordinate
from coordinate import _entry_points, _names, _plugins, _wire, config, errors
from coordinate._identity import mint
from coordinate.errors import BackendUnavailable, ConfigError, CorruptRecord, PluginError
from coordinate.types import Claim, LeaseRecord, Loss, LossReason, MarkerRecord, MarkerState, Owner
from coordinate.url import Host, parse

if TYPE_CHECKING:
    from pathlib import Path


@given(st.text(min_size=1))
def test_encoding_names_is_reversible_and_safe(text: str) -> None:
    """Any text becomes a file name and comes back."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    encoded = _names.encode(text)
    assert _names.decode(encoded) == text
    assert "/" not in encoded
    assert not encoded.startswith(".")


@pytest.mark.parametrize(
    "name", ["", "/", "a/", "/a", "a//b", ".", "..", "a/../b", "a b", "a\n", "a\0", "ä", "x" * 65, "ab/" * 70]
)
def test_bad_names_are_refused(name: str) -> None:
    """With the rule in the message."""
    with pytest.raises(ConfigError, match="not allowed"):
        _names.check_name(name)


@pytest.mark.parametrize("revision", ["", "x" * 513, "a\nb", "a\0b", "\x1b[31m"])
def test_bad_revisions_are_refused(revision: str) -> None:
    """Control characters would reach terminals and logs."""
    with pytest.raises(ConfigError):
        _names.check_revision(revision)


@pytest.mark.parametrize(
    ("text", "hosts", "path", "password"),
    [
        ("redis://h:1/2", (Host("h", 1),), "/2", None),
        ("redis://:p%40ss@h", (Host("h", None),), "", "p@ss"),
        ("redis://u:a@b/c#d@h:1/0", (Host("h", 1),), "/0", "a@b/c#d"),
        ("redis+sentinel://h1:1,[::1]:2,h3/svc/0", (Host("h1", 1), Host("::1", 2), Host("h3", None)), "/svc/0", None),
        ("file:///srv/a@b", (), "/srv/a@b", None),
        ("memory://", (), "", None),
    ],
)
def test_urls_are_taken_apart(text: str, hosts: tuple[Host, ...], path: str, password: str | None) -> None:
    """Several hosts, IPv6, passwords with any character."""
    url = parse(text)
    assert (url.hosts, url.path, url.password) == (hosts, path, password)


@pytest.mark.parametrize(
    "text", ["", "redis", "redis:/h", "://h", "redis://h:0", "redis://h:70000", "redis://h:x", "redis://h,,i",
             "redis://::1", "redis://[::1", "redis://h?a=1&a=2"]
)  # fmt: skip
def test_broken_urls_are_refused(text: str) -> None:
    """Before anything is tried."""
    with pytest.raises(ConfigError):
        parse(text)


def test_no_form_of_a_url_shows_its_password() -> None:
    """Neither str, repr, an error about an option, nor secret options."""
    url = parse("redis://user:canary-1@h/0?sentinel_password=canary-2&timeout=1")
    with pytest.raises(ConfigError) as refused:
        url.check_options(("timeout",))
    for text in (str(url), repr(url), f"{url!r}", str(refused.value)):
        assert "canary" not in text


def test_argument_beats_environment_beats_default(tmp_path: Path) -> None:
    """In that order, for each value."""
    env = {"COORDINATE_URL": "memory://env", "COORDINATE_TTL": "12", "POD_NAME": "pod-1"}
    assert str(config.load("memory://arg", environ=env).url) == "memory://arg"
    settings = config.load(environ=env)
    assert (str(settings.url), settings.timing.ttl, settings.holder) == ("memory://env", 12.0, "pod-1")
    assert str(config.load(environ={}).url) == config.DEFAULT_URL
    secret = tmp_path / "url"
    secret.write_text("memory://from-file\n")
    assert str(config.load(environ={"COORDINATE_URL_FILE": str(secret)}).url) == "memory://from-file"


def test_contradictions_and_bad_values_are_named() -> None:
    """The variable is in the message."""
    for env in (
        {"COORDINATE_URL": "memory://", "COORDINATE_BACKEND": "redis"},
        {"COORDINATE_URL": "memory://", "COORDINATE_URL_FILE": "/x"},
        {"COORDINATE_TTL": "soon"},
        {"COORDINATE_TTL": "-1"},
        {"COORDINATE_BACKEND": "no-such"},
        {"COORDINATE_BACKEND": "redis+sentinel"},
        {"COORDINATE_BACKEND": "rediss"},
    ):
        with pytest.raises(ConfigError):
            config.load(environ=env)
    with pytest.raises(BackendUnavailable, match="COORDINATE_URL_FILE"):
        config.load(environ={"COORDINATE_URL_FILE": "/does/not/exist"})
    assert config.load(environ={"COORDINATE_BACKEND": "memory"}).url.scheme == "memory"


def test_unknown_schemes_name_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing plugin of ours says what to install, anything else what there is."""
    monkeypatch.setattr(_entry_points, "every", list)
    monkeypatch.setattr(_entry_points, "_look", lambda _scheme: None)
    with pytest.raises(PluginError, match="pip install coordinate-filelock"):
        _plugins.backend_class("file")
    with pytest.raises(PluginError, match="memory"):
        _plugins.backend_class("carrier-pigeon")
    monkeypatch.setenv("COORDINATE_DISABLE", "file,other")
    with pytest.raises(PluginError, match="disabled"):
        _plugins.backend_class("file")


class _Entry:
    """An entry point that loads what the test says."""

    name = "odd"

    def __init__(self, loaded: object, value: str = "odd_plugin") -> None:
        self.value = value
        self._loaded = loaded

    def load(self) -> object:
        """Load, or fail as a broken plugin does."""
        if isinstance(self._loaded, Exception):
            raise self._loaded
        return self._loaded


def _module(*classes: object) -> object:
    from coordinate.hookspecs import hookimpl

    class Module:
        """A plugin module."""

        @hookimpl
        def coordinate_backends(self) -> list[object]:
            """Return the classes."""
            return list(classes)

    return Module()


class _NoBackend:
    schemes = ("odd",)


@pytest.mark.parametrize(
    ("loaded", "words"),
    [
        ([_Entry(ImportError("no grpc"))], "cannot be loaded"),
        ([_Entry(_module())], "does not answer"),
        ([_Entry(_module(_NoBackend))], "is not a coordinate.backend.Backend"),
        ([_Entry(_module(), "a"), _Entry(_module(), "b")], "more than one plugin"),
    ],
)
def test_a_bad_plugin_is_one_clear_error(loaded: list[_Entry], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken, silent, foreign or ambiguous; the others stay usable."""
    monkeypatch.setattr(_entry_points, "find", lambda _scheme: loaded)
    with pytest.raises(PluginError, match=words):
        _plugins.backend_class("odd")
    assert _plugins.backend_class("memory")


def test_records_survive_the_wire() -> None:
    """Written and read they are equal."""
    for record in (Claim(7, mint("x")), MarkerRecord("s", "r", MarkerState.FAILED, detail="ü", notes={"a": "b"})):
        assert _wire.decode(type(record), _wire.encode(record)) == record


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"step":1}', b'{"step":"s","revision":"r","state":"finished"}',
     b'{"step":"s","revision":"r","state":"done","v":99}', b"[" * 40000, b"x" * 70000],
)  # fmt: skip
def test_what_cannot_be_understood_is_corrupt(data: bytes) -> None:
    """Never taken for done, never a crash."""
    with pytest.raises(CorruptRecord):
        _wire.decode(MarkerRecord, data)


def test_what_no_reader_would_accept_is_not_encoded() -> None:
    """The limit is the same both ways."""
    with pytest.raises(ConfigError, match="too large"):
        _wire.encode(MarkerRecord("s", "r", MarkerState.FAILED, detail="x" * 70_000))


def test_every_error_can_be_pickled_and_has_one_root() -> None:
    """Fields included; the exit codes are those of the documentation."""
    for name in errors.__all__:
        kind = getattr(errors, name)
        assert issubclass(kind, errors.CoordinateError)
        copy = pickle.loads(pickle.dumps(kind("what happened")))  # noqa: S301 -- our own bytes
        assert str(copy) == "what happened"
    lost = pickle.loads(pickle.dumps(errors.LeaseLost("gone", Loss(LossReason.TAKEN))))  # noqa: S301
    assert lost.loss.reason is LossReason.TAKEN
    refused = pickle.loads(pickle.dumps(errors.StepRefused("no", 81)))  # noqa: S301
    declined = pickle.loads(pickle.dumps(errors.StepDeclined("not here", 82, 3.0)))  # noqa: S301
    assert (refused.exit_code, declined.exit_code, declined.patience) == (81, 82, 3.0)
    holder = LeaseRecord("job", 7, Owner("n"), 30.0)
    contended = pickle.loads(pickle.dumps(errors.Contended("held", holder, 5.0, 1.0)))  # noqa: S301
    assert (contended.holder, contended.since, contended.retry_after) == (holder, 5.0, 1.0)
    codes = {name: getattr(errors, name).exit_code for name in errors.__all__}
    assert codes["BackendUnavailable"] == 69
    assert codes["AcquireTimeout"] == codes["Contended"] == 75
    assert codes["StepFailed"] == 76
    assert codes["ConfigError"] == 78
    assert codes["LeaseLost"] == 79
    assert codes["WaitTimeout"] == 124


def test_all_public_names_can_be_imported() -> None:
    """The list is sorted and true."""
    assert coordinate.__all__ == sorted(coordinate.__all__)
    assert len(coordinate.__all__) <= 40
    for name in coordinate.__all__:
        assert getattr(coordinate, name) is not None
