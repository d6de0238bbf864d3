"""The waiting channel: one stream of etcd's for all that this process waits for.

A thread of its own reads the stream: gRPC hands a stream to nobody but a caller that blocks on it. A broken stream is
opened again, on the next endpoint, from the revision after the last that was seen, so nothing is missed. Where that is
not possible, because the history is compacted or the store is another one now, the topic is reported instead.
"""

from __future__ import annotations

import collections
import contextlib
import os
import queue
import threading
from typing import TYPE_CHECKING

import grpc

from coordinate.backend import News, Watch
from coordinate.errors import BackendUnavailable
from coordinate_etcd import messages
from coordinate_etcd.failures import failure
from coordinate_etcd.keys import after
from coordinate_etcd.loader import load
from coordinate_etcd.markers import done_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from coordinate.types import Topic
    from coordinate_etcd.ensemble import Ensemble
    from coordinate_etcd.keys import Keys
    from coordinate_etcd.messages import Message

_etcd = load()
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
"""Seconds before a broken stream is opened again; doubled each time."""
_WHAT = "waiting"
_JOIN = 5.0
"""Seconds for the reader to notice that it is over."""


class Interest:
    """Something watched: a range of keys from a revision on.

    ``once``: only for the end of one key; ``then``: after that, for the end of this other one.
    """

    def __init__(self, key: bytes, end: bytes, start: int, *, once: bool, then: bytes = b"") -> None:
        self.key = key
        self.end = end
        self.start = start
        self.once = once
        self.then = then
        self.number: int | None = None
        """Its number in the present stream; None until the server has answered."""
        self.fired = False
        self.fresh = True
        """Never watched yet."""
        self.changes = 0
        """How many have been reported."""
        self.stored = b""
        """The record that was stored with the last of them; empty if that was something else, or is not known."""

    def request(self) -> Message:
        """Return the request that watches it from where we are; a fresh one from where the store is.

        etcd serves a watch from a past revision, be it the last one, only ten times a second.
        """
        filters = [messages.NO_PUT] if self.once else []
        start = 0 if self.fresh else self.start
        create = _etcd.WatchCreateRequest(key=self.key, range_end=self.end, start_revision=start, filters=filters)
        return _etcd.WatchRequest(create_request=create)


class EtcdWatch(Watch):
    """Reports ends of what waiters stand behind, and changes of watched scopes."""

    poll_interval = 30.0
    """The net, under streams that resume: for a store that was replaced by another one behind our back."""

    def __init__(self, ensemble: Ensemble, keys: Keys, pass_on: Callable[[Topic], None]) -> None:
        ensemble.check_process(_WHAT)
        self._ensemble = ensemble
        self._keys = keys
        self._pass_on = pass_on
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._closed = False
        self._over = threading.Event()
        self._pending: set[Topic] = set()
        self._refused = ""
        self._interests: dict[Topic, Interest] = {}
        self._numbers: dict[int, tuple[Topic, Interest]] = {}
        self._unanswered: collections.deque[tuple[Topic, Interest]] = collections.deque()
        self._requests: queue.SimpleQueue[Message | None] | None = None
        self._stream: Message = None
        self._thread: threading.Thread | None = None

    # What the core asks

    def fileno(self) -> int:
        """Return the eventfd."""
        return self._fd

    def add(self, topic: Topic) -> None:
        """Watch a scope from now on; turns for a lease need no more than `acquire` with this watch.

        Raises:
            BackendUnavailable: the ensemble does not answer.
        """
        if topic.kind != "markers":
            return
        start = self._keys.markers(topic.name).rpartition(b"marker:")[0]
        reading = messages.transaction(success=[messages.get(self._keys.base, count_only=True)])
        now = self._ensemble.call(_WHAT, "Txn", reading).message.header.revision
        self._watch(topic, Interest(start, after(start), now + 1, once=False))

    def remove(self, topic: Topic) -> None:
        """Stop watching a topic."""
        self._ensemble.check_process(_WHAT)
        with self._lock:
            interest = self._interests.pop(topic, None)
            if interest is not None:
                self._cancel(interest)

    def drain(self) -> frozenset[Topic]:
        """Return what changed since the last call.

        Raises:
            BackendUnavailable: the ensemble refuses to be watched, or this is a forked child.
        """
        self._ensemble.check_process(_WHAT)
        with self._lock:
            if self._closed or self._refused:
                why = "the channel is closed" if self._closed else self._refused
                raise failure(_WHAT, self._ensemble.url, why)
            pending = frozenset(self._pending)
            if pending:
                self._pending.clear()
                os.eventfd_read(self._fd)
            return pending

    def news(self, topic: Topic) -> News:
        """Return the record that says done, if it came with the last change of its scope."""
        with self._lock:
            interest = self._interests.get(topic)
            changes, stored = (0, b"") if interest is None else (interest.changes, interest.stored)
        return News(changes, done_in(stored) if stored else None)

    def close(self) -> None:
        """Give up; those who wait behind this process's waiters need not wait for them."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
            lines = [topic for topic, interest in self._interests.items() if interest.once]
            self._interests.clear()
            self._over.set()
            self._hang_up()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_JOIN)
        os.close(self._fd)
        with contextlib.suppress(BackendUnavailable):
            for topic in lines:
                self._pass_on(topic)

    # What the line asks

    def follow(self, topic: Topic, key: bytes, revision: int, then: bytes = b"") -> None:
        """Report a topic when a key that was there at ``revision`` is removed; follow the key ``then`` at once then.

        So a waiter whose predecessor got the lease watches it before it has found out that it is the next one.
        """
        with self._lock:
            known = self._interests.get(topic)
            if known is not None and known.key == key and not known.fired:
                return
        self._watch(topic, Interest(key, b"", revision + 1, once=True, then=then))

    def followed(self, topic: Topic) -> Interest | None:
        """Return what a waiter waits for."""
        return self._interests.get(topic)

    def _watch(self, topic: Topic, interest: Interest) -> None:
        with self._lock:
            if self._closed:
                raise failure(_WHAT, self._ensemble.url, "the channel is closed")
            known = self._interests.get(topic)
            if known is not None:
                self._cancel(known)
            self._interests[topic] = interest
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="coordinate-etcd-watch", daemon=True)
                self._thread.start()
            else:
                self._ask(topic, interest)

    def _ask(self, topic: Topic, interest: Interest) -> None:
        if self._requests is not None:
            self._unanswered.append((topic, interest))
            self._requests.put(interest.request())

    def _cancel(self, interest: Interest) -> None:
        if self._requests is not None and interest.number is not None:
            self._numbers.pop(interest.number, None)
            self._end(interest.number)
            interest.number = None

    def _end(self, number: int) -> None:
        if self._requests is not None:
            cancel = _etcd.WatchCancelRequest(watch_id=number)
            self._requests.put(_etcd.WatchRequest(cancel_request=cancel))

    def _report(self, topic: Topic, stored: bytes = b"") -> None:
        if not self._closed:
            interest = self._interests.get(topic)
            if interest is not None:
                interest.changes += 1
                interest.stored = stored
            self._pending.add(topic)
            os.eventfd_write(self._fd, 1)

    # The reader

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while not self._over.is_set():
            try:
                if self._read_stream():
                    pause = _FIRST_PAUSE
            except (grpc.RpcError, BackendUnavailable, ValueError):
                pass  # an outage: whoever asks for something gets to know its reason
            self._over.wait(pause)
            pause = min(_LONGEST_PAUSE, pause * 2)

    def _read_stream(self) -> bool:
        """Read one stream to its end; True if anything was watched on it."""
        requests: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        said = False
        with contextlib.suppress(grpc.RpcError), self._ensemble.stream(iter(requests.get, None)) as stream:
            with self._lock:
                self._begin(requests, stream)
            try:
                for response in stream:
                    said = said or not response.canceled
                    with self._lock:
                        self._take(response)
            finally:
                with self._lock:
                    self._hang_up()
        return said

    def _begin(self, requests: queue.SimpleQueue[Message | None], stream: Message) -> None:
        self._requests, self._stream = requests, stream
        self._numbers.clear()
        self._unanswered.clear()
        if self._closed:
            self._hang_up()
        for topic, interest in self._interests.items():
            interest.number = None
            if not interest.fired:
                self._ask(topic, interest)

    def _hang_up(self) -> None:
        if self._requests is not None:
            self._requests.put(None)
            self._requests = None
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None

    def _take(self, response: Message) -> None:
        if response.created:
            self._created(response)
        if response.canceled:
            self._canceled(response)
        topic, interest = self._numbers.get(response.watch_id, (None, None))
        if topic is None or interest is None or interest.fired or not response.events:
            return
        interest.start = max(event.kv.mod_revision for event in response.events) + 1
        if not interest.once or any(event.type == messages.DELETE for event in response.events):
            interest.fired = interest.once  # and is cancelled by whoever goes on: he is in a hurry now
            self._report(topic, b"" if interest.once else self._stored(response.events[-1]))
            if interest.then:
                self._interests[topic] = following = Interest(interest.then, b"", interest.start, once=True)
                self._ask(topic, following)
                self._cancel(interest)

    def _stored(self, event: Message) -> bytes:
        """Return the record that a change has stored."""
        marker = event.type != messages.DELETE and self._keys.is_marker(bytes(event.kv.key))
        return bytes(event.kv.value) if marker else b""

    def _created(self, response: Message) -> None:
        if not self._unanswered:
            return
        topic, interest = self._unanswered.popleft()
        if response.canceled:
            if self._interests.get(topic) is interest and not response.compact_revision:
                self._refuse(response)
            return
        if self._interests.get(topic) is not interest:
            self._end(response.watch_id)
            return
        interest.number = response.watch_id
        self._numbers[response.watch_id] = (topic, interest)
        fresh, interest.fresh = interest.fresh, False
        if response.header.revision + 1 < interest.start:
            # This member knows less than we have seen: it lags behind, or the store has lost its memory.
            self._start_again(topic, interest, response.header.revision + 1)
        elif fresh and response.header.revision >= interest.start:
            # Something was written after we had looked, by anybody: whoever waits looks once more.
            interest.start = response.header.revision + 1
            self._report(topic)

    def _canceled(self, response: Message) -> None:
        topic, interest = self._numbers.pop(response.watch_id, (None, None))
        if topic is None or interest is None:
            return
        interest.number = None
        if response.compact_revision:
            self._start_again(topic, interest, response.compact_revision)
        elif not response.created:
            self._refuse(response)

    def _start_again(self, topic: Topic, interest: Interest, revision: int) -> None:
        """Watch from another revision; what happened before it may be unknown, so whoever waits has to look."""
        self._cancel(interest)
        interest.number = None
        interest.start = revision
        self._report(topic)
        if interest.once:
            interest.fired = True
        else:
            self._ask(topic, interest)

    def _refuse(self, response: Message) -> None:
        """Break the channel: the core opens another, and meanwhile everybody looks for himself."""
        if self._ensemble.token_is_old(response.cancel_reason):
            self._ensemble.forget_token()
            self._hang_up()  # and go on with a new one
            return
        self._refused = response.cancel_reason or "the server has ended it"
        for topic in self._interests:
            self._report(topic)
