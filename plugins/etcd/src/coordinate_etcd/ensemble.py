"""Talking to an ensemble: one channel for each endpoint, the next endpoint when one fails, a token where one is wanted.

A request that failed on the way is sent again to the other endpoints until the operation's time is up; a reply says
when that has happened, because the first one may have been executed. Nothing is retried beyond one round: policy is
the core's.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, NamedTuple

from coordinate.errors import BackendUnavailable
from coordinate_etcd.failures import LeaseMissing, failure
from coordinate_etcd.loader import load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coordinate._clock import Clock
    from coordinate_etcd.messages import Message
    from coordinate_etcd.options import Options, Tls

_etcd = load()

import grpc  # noqa: E402 -- after the loader has turned gRPC's own log off

KEEPALIVE = 6.0
"""Seconds of silence after which a connection with a waiting channel is tried; etcd takes less than 5 for abuse."""
_SETTINGS = (
    ("grpc.keepalive_time_ms", int(KEEPALIVE * 1000)),
    ("grpc.keepalive_timeout_ms", 3000),
    # Today's gRPC waits a minute for the answer to a ping unless this is set, too.
    ("grpc.http2.ping_timeout_ms", 3000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
)
_SHARE = 0.4
"""Part of an operation's time that one of several endpoints gets: a silent one must leave time for another."""
_MOVE_ON = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
_TOKEN_WORDS = ("invalid auth token", "revision of auth store is old", "user name is empty")
_METHODS = {
    "Txn": ("KV/Txn", "TxnRequest", "TxnResponse"),
    "LeaseGrant": ("Lease/LeaseGrant", "LeaseGrantRequest", "LeaseGrantResponse"),
    "LeaseRevoke": ("Lease/LeaseRevoke", "LeaseRevokeRequest", "LeaseRevokeResponse"),
    # A stream in etcd's words. One request, half-closed, has one reply: a call like any other, and no thread.
    "LeaseKeepAlive": ("Lease/LeaseKeepAlive", "LeaseKeepAliveRequest", "LeaseKeepAliveResponse"),
    "LeaseTimeToLive": ("Lease/LeaseTimeToLive", "LeaseTimeToLiveRequest", "LeaseTimeToLiveResponse"),
    "Status": ("Maintenance/Status", "StatusRequest", "StatusResponse"),
    "Authenticate": ("Auth/Authenticate", "AuthenticateRequest", "AuthenticateResponse"),
}


class Reply(NamedTuple):
    """An answer."""

    message: Message
    repeated: bool
    """The request was sent more than once, and an earlier one may have been executed."""


class Endpoint:
    """One member's address and the connection to it, made at the first request."""

    def __init__(self, target: str, tls: Tls | None) -> None:
        self.target = target
        if tls is None:
            self.channel = grpc.insecure_channel(target, _SETTINGS)
        else:
            keys = grpc.ssl_channel_credentials(tls.authorities, tls.key, tls.certificate)
            name = (("grpc.ssl_target_name_override", tls.server_name),) if tls.server_name else ()
            self.channel = grpc.secure_channel(target, keys, (*_SETTINGS, *name))
        self.calls = {name: self._method(*parts) for name, parts in _METHODS.items()}
        self.watch = _etcd.WatchStub(self.channel).Watch

    def _method(self, path: str, request: str, response: str) -> Message:
        serialize = getattr(_etcd, request).SerializeToString
        return self.channel.unary_unary(f"/etcdserverpb.{path}", serialize, getattr(_etcd, response).FromString)


class Ensemble:
    """All endpoints of a URL, one of them in use. May be shared by threads; a forked child is refused."""

    def __init__(self, options: Options, clock: Clock) -> None:
        self.url = options.url
        self._options = options
        self._clock = clock
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._endpoints: dict[str, Endpoint] = {}
        self._order = list(options.endpoints)
        self._token = ""
        self._streams: dict[Message, str] = {}
        self._operation = threading.local()
        self._closed = False

    @contextlib.contextmanager
    def operation(self) -> Iterator[None]:
        """Give all requests that this thread makes in the body the time of one operation together."""
        self._operation.ends_at = self._clock.now() + self._options.timeout
        try:
            yield
        finally:
            del self._operation.ends_at

    # One request, one reply

    def call(self, what: str, method: str, request: Message) -> Reply:
        """Return the ensemble's answer.

        Raises:
            BackendUnavailable: no usable answer within the time of one operation.
            LeaseMissing: the request names a server lease that is no more.
        """
        self.check_process(what)
        ends_at = getattr(self._operation, "ends_at", self._clock.now() + self._options.timeout)
        targets = list(self._order)
        share = self._options.timeout * (_SHARE if len(targets) > 1 else 1)
        repeated = False
        error: grpc.RpcError | None = None
        for target in targets:
            left = ends_at - self._clock.now()
            if left <= 0:
                break
            try:
                message = self._once(target, method, request, min(left, share))
            except grpc.RpcError as failed:
                self._judge(what, failed)
                error, repeated = failed, True
                self._leave(target, failed)
            except ValueError as closed:  # what gRPC says of a channel that another thread has just closed
                raise failure(what, self.url, str(closed)) from closed
            else:
                return Reply(message, repeated)
        raise failure(what, self.url, _said(error)) from error

    def _once(self, target: str, method: str, request: Message, timeout: float) -> Message:
        endpoint = self._endpoint(target)
        call = endpoint.calls[method]
        token = self._token or self._log_in(endpoint, timeout)
        try:
            return call(request, timeout=timeout, metadata=_metadata(token))
        except grpc.RpcError as error:
            if not self.token_is_old(_said(error)):
                raise
        token = self._log_in(endpoint, timeout, old=token)
        return call(request, timeout=timeout, metadata=_metadata(token))

    def _judge(self, what: str, error: grpc.RpcError) -> None:
        """Raise what no other endpoint can answer differently."""
        said = _said(error)
        if error.code() is grpc.StatusCode.NOT_FOUND and "lease not found" in said:
            raise LeaseMissing(said) from error
        if error.code() not in _MOVE_ON:
            raise failure(what, self.url, said) from error

    def _leave(self, target: str, error: grpc.RpcError) -> None:
        """Prefer another endpoint from now on; waiting channels leave one that does not answer, too."""
        if error.code() is grpc.StatusCode.CANCELLED:
            return  # by ourselves
        with self._lock:
            if self._order[0] == target:
                self._order = [*self._order[1:], target]
            silent = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and len(self._order) > 1
            streams = [stream for stream, used in self._streams.items() if used == target] if silent else []
        for stream in streams:
            stream.cancel()

    def _endpoint(self, target: str) -> Endpoint:
        with self._lock:
            if self._closed:
                message = f"{self.url} is closed: open another backend"
                raise BackendUnavailable(message)
            endpoint = self._endpoints.get(target)
            if endpoint is None:
                endpoint = self._endpoints[target] = Endpoint(target, self._options.tls)
            return endpoint

    def check_process(self, what: str) -> None:
        """Refuse a forked child: gRPC's threads and connections did not come along.

        Raises:
            BackendUnavailable: always there.
        """
        if os.getpid() != self._pid:
            message = f"{what} on {self.url} failed: a forked child needs a backend of its own, in a new interpreter"
            raise BackendUnavailable(message)

    # Users

    def _log_in(self, endpoint: Endpoint, timeout: float, old: str = "") -> str:
        """Return a token, a new one unless another thread got one meanwhile; nothing where no user is named."""
        if not self.url.username:
            return ""
        with self._lock:
            if self._token != old:
                return self._token
        request = _etcd.AuthenticateRequest(name=self.url.username, password=self.url.password or "")
        try:
            token = str(endpoint.calls["Authenticate"](request, timeout=timeout).token)
        except grpc.RpcError as error:
            if "authentication is not enabled" not in _said(error):
                raise
            token = ""
        with self._lock:
            self._token = token
        return token

    def token_is_old(self, said: str) -> bool:
        """Return whether the server said that it wants a new token, where we can get one."""
        return bool(self.url.username) and any(word in said for word in _TOKEN_WORDS)

    # The one stream

    @contextlib.contextmanager
    def stream(self, requests: Iterator[Message]) -> Iterator[Message]:
        """Yield a stream of watch responses; it ends with a ``grpc.RpcError``, at the latest after the body."""
        target = self._order[0]
        endpoint = self._endpoint(target)
        token = self._token or self._log_in(endpoint, self._options.timeout)
        # Without it a member that is cut off from the others would stay silent.
        stream = endpoint.watch(requests, metadata=(*_metadata(token), ("hasleader", "true")))
        with self._lock:
            self._streams[stream] = target
        try:
            yield stream
        except grpc.RpcError as error:
            if self.token_is_old(_said(error)):
                self.forget_token(token)
            self._leave(target, error)
            raise
        finally:
            with self._lock:
                del self._streams[stream]
            stream.cancel()

    def forget_token(self, token: str | None = None) -> None:
        """Log in again before the next request."""
        with self._lock:
            if token in {None, self._token}:
                self._token = ""

    def close(self) -> None:
        """Close all connections. Idempotent; a forked child closes nothing."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._closed = True
            endpoints = list(self._endpoints.values())
            self._endpoints.clear()
        for endpoint in endpoints:
            endpoint.channel.close()


def _metadata(token: str) -> tuple[tuple[str, str], ...]:
    return (("token", token),) if token else ()


def _said(error: grpc.RpcError | None) -> str:
    return str(error.details() or error.code()) if error is not None else "deadline exceeded"
