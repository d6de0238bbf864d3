"""Several sites: the containers of a fleet take different ones, each container one at a time, not too many at once.

A site has a lease, a claim and records of its own, so one that fails stops no other one. How many are worked on at
once is bounded by slots, leases of their own (``frappe/.slots/<n>``). A slot is taken before a site's lease and never
waited for while a site is held, so nobody can wait in a circle. It bounds the load and protects nothing: what a site's
work may do is decided by the site's lease alone, also if a slot is lost in the middle. A dead holder's slot lapses.
Nobody stands in line for a site either: one that another container got an instant earlier is left, and its turn comes
again; meanwhile others may be free.
"""

from __future__ import annotations

import contextlib
import random
import time
from typing import TYPE_CHECKING, NamedTuple

from coordinate.errors import (
    BackendUnavailable,
    Contended,
    CoordinateError,
    Interrupted,
    StepDeclined,
    StepFailed,
    WaitTimeout,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from coordinate import Coordinator, Lease
    from coordinate.types import MarkerRecord
    from frappe_bootstrap.one_site import Site
    from frappe_bootstrap.settings import Settings
    from frappe_bootstrap.waiting import Stop

_PAUSE = 0.3
_COME_BACK = 1.0
"""Seconds until another look at a site that was somebody else's when we asked for it."""


class Declined(NamedTuple):
    """A site that this member has left to another one."""

    error: StepDeclined
    patience: float
    seen: MarkerRecord | None
    since: float


class Sites:
    """Brings several sites about.

    Args:
        several: the sites.
        coordinator: leases and markers.
        stop: a request to stop.
        settings: how many at once, how long to wait.
    """

    def __init__(self, several: Sequence[Site], coordinator: Coordinator, stop: Stop, settings: Settings) -> None:
        # Containers that start together meet at no site, or at few.
        self._pending = random.sample(list(several), len(several))
        self._order = [site.name for site in several]
        self._coordinator = coordinator
        self._stop = stop
        self._settings = settings
        self._failed: dict[str, CoordinateError] = {}
        self._declined: dict[str, Declined] = {}
        self._waited_for: set[str] = set()
        self._not_before: dict[str, float] = {}
        """When to come back to a site that was somebody else's."""
        self._restored: set[str] = set()
        """Sites with a given-up step whose database is from before what is recorded as done."""
        self._slot: Lease | None = None
        self._born = time.time()
        """By the clock that others record by: it is compared with their records, as a budget does."""
        self._progress_at = time.monotonic()

    def run(self) -> dict[str, CoordinateError]:
        """Return when each site is ready or given up: the reasons of those that are not, in the order of SITES.

        Raises:
            Interrupted: asked to stop.
            BackendUnavailable: the lease store does not answer.
        """
        for each in self._pending:
            each.work.alone = False
        try:
            while self._pending:
                self._stop.check()
                self._step()
        finally:
            self._give_slot_back()
        return {name: self._failed[name] for name in self._order if name in self._failed}

    def _step(self) -> None:
        """Work on a site, if there is one and a slot for it; else wait a little."""
        site = self._next()
        if site is not None and self._take_slot():
            self._attempt(site)
        elif self._pending:
            if site is None:
                self._give_slot_back()
            self._stop.sleep(_PAUSE)
            self._bear_standstill()

    def _next(self) -> Site | None:
        """Return a site that can be worked on now; those that are done or given up are pending no more."""
        for site in self._due():
            done, undone = site.records()
            if done:
                self._finish(site)
            elif undone is not None and not site.allows(undone, self._born):
                if self._is_to_do_again(site, undone):
                    return site
            elif site.name in self._declined:
                self._bear_decline(site, undone)
            elif site.is_free():
                return site
            else:
                self._waited_for.add(site.name)
        return None

    def _due(self) -> list[Site]:
        """Return the pending sites but those that were somebody else's a moment ago."""
        now = time.monotonic()
        return [site for site in self._pending if now >= self._not_before.get(site.name, 0.0)]

    def _finish(self, site: Site) -> None:
        """Look at a site that is done, unless it was done since we came, and by an image like ours."""
        self._attempt(site, believe=site.name in self._waited_for and site.is_of_this_schema())

    def _is_to_do_again(self, site: Site, undone: MarkerRecord) -> bool:
        """Give a site up, unless a backup was restored since: then what comes before the given-up step is undone."""
        if site.name not in self._restored:
            with self._bearing(site):
                if not site.is_restored():
                    self._give_up(site, StepFailed(f"step {undone.step} was given up:\n{undone.detail}", undone))
                else:
                    # The look is not repeated while others have the slots.
                    self._restored.add(site.name)
        return site.name in self._restored

    @contextlib.contextmanager
    def _bearing(self, site: Site) -> Iterator[None]:
        """Give a site up for whatever its look or its attempt raises, unless that is everybody's end."""
        try:
            yield
        except Interrupted:
            raise
        except BackendUnavailable as error:
            # Of the lease store it is everybody's end; of one site's database it is that site's.
            self._coordinator.backend.ping()
            self._give_up(site, error)
        except CoordinateError as error:
            self._give_up(site, error)

    def _attempt(self, site: Site, *, believe: bool = False) -> None:
        self._restored.discard(site.name)
        with self._bearing(site):
            try:
                site.bring_about(self._settings.boot_timeout, believe=believe, blocking=False)
            except Contended as contended:
                # No failure; whoever has it may well be ready with it when we come back.
                self._not_before[site.name] = time.monotonic() + max(_COME_BACK, contended.retry_after)
            except StepDeclined as declined:
                self._decline(site, declined)
            else:
                self._done_with(site)

    def _done_with(self, site: Site) -> None:
        self._pending.remove(site)
        self._progress_at = time.monotonic()

    def _give_up(self, site: Site, error: CoordinateError) -> None:
        self._failed[site.name] = error
        self._done_with(site)

    # Sites that this member cannot do

    def _decline(self, site: Site, error: StepDeclined) -> None:
        """Leave a site to others, for as long as it would be waited for alone, and go on with the next one."""
        patience = site.work.patience
        if patience <= 0:
            self._give_up(site, error)
        else:
            self._declined[site.name] = Declined(error, patience, None, time.monotonic())

    def _bear_decline(self, site: Site, seen: MarkerRecord | None) -> None:
        """Give a site up when nobody has been at work on it for as long as its patience."""
        declined, now = self._declined[site.name], time.monotonic()
        if seen != declined.seen or not site.is_free():
            self._declined[site.name] = declined._replace(seen=seen, since=now)
        elif now - declined.since >= declined.patience:
            self._give_up(site, declined.error)

    def _bear_standstill(self) -> None:
        """Give up what is left when nothing was done or given up for the longest wait."""
        limit = self._settings.boot_timeout
        if time.monotonic() - self._progress_at < limit:
            return
        for site in list(self._pending):
            message = f"site {site.name} not done within {limit:g} s (BOOT_TIMEOUT) although somebody leads"
            self._give_up(site, WaitTimeout(message))

    # Slots

    def _take_slot(self) -> bool:
        """Return whether this member may work on a site now."""
        if self._slot is not None and self._slot.held:
            return True
        self._give_slot_back()
        numbers = range(1, self._settings.parallel + 1)
        for number in random.sample(numbers, len(numbers)):
            lease = self._coordinator.lease(f"frappe/.slots/{number}")
            if lease.try_acquire():
                self._slot = lease
                return True
        return False

    def _give_slot_back(self) -> None:
        slot, self._slot = self._slot, None
        if slot is not None:
            try:
                slot.release()
            except BackendUnavailable:
                slot.abandon()


__all__ = ["Sites"]
