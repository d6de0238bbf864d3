"""Waiting for a site's background jobs: those in the queues and those that run, of this very site, for a bounded time.

Job ids begin with ``SITE::``. A running job whose worker is gone stays registered until its own time limit; it counts
until then. Where no worker is registered nobody would ever empty a queue: that is said, and not waited for.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from coordinate.errors import CommandFailed
from frappe_bootstrap.codes import EXIT_UNSETTLED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from redis import Redis

    from coordinate.steps import StepContext
    from frappe_bootstrap.work import Work

_ANSWER_WITHIN = 5.0
_PAUSE = 0.5
_QUIET_LOOKS = 2
"""A job on its way from a queue to its worker is in neither for an instant."""


class Jobs(NamedTuple):
    """What is known about a site's jobs."""

    workers: int
    queued: list[str]
    started: list[str]


def drain(work: Work, context: StepContext) -> None:
    """Return when no job of the site is queued or runs.

    Raises:
        CommandFailed: some still were after DRAIN_TIMEOUT, or the queue's server gave no answer.
        LeaseLost, Interrupted: in the middle.
    """
    limit, step = time.monotonic() + work.settings.drain_timeout, context.record.step
    told, quiet = "", 0
    while work.settings.drain_timeout:
        problem = _problem(work, step)
        quiet = 0 if problem else quiet + 1
        if quiet >= _QUIET_LOOKS or problem is None:
            return
        if time.monotonic() >= limit:
            message = f"not drained within {work.settings.drain_timeout:g} s (DRAIN_TIMEOUT): {problem}"
            raise CommandFailed(message, EXIT_UNSETTLED, message)
        if problem and problem != told:
            told = problem
            work.log(step, f"waiting for background jobs: {problem}")
        work.bench.sleep(context, _PAUSE)


def _problem(work: Work, step: str) -> str | None:
    """Return what there is to wait for, "" if nothing is seen, None if it makes no sense to wait."""
    import redis  # noqa: PLC0415 -- only a migration needs it

    try:
        jobs = look(work.settings.redis.queue, work.settings.site)
    except (redis.RedisError, OSError) as error:
        return f"redis_queue: {error}"
    if not jobs.workers:
        left = len(jobs.queued) + len(jobs.started)
        work.log(step, f"no worker is registered: {left} jobs of the site are not waited for")
        return None
    names = [*jobs.started, *jobs.queued]
    return f"{len(jobs.started)} running, {len(jobs.queued)} queued, such as {names[0]}" if names else ""


def look(url: str, site: str) -> Jobs:
    """Return the jobs of a site and how many workers live.

    Raises:
        redis.RedisError: no usable answer.
    """
    import redis  # noqa: PLC0415 -- as above
    from redis.backoff import NoBackoff  # noqa: PLC0415
    from redis.retry import Retry  # noqa: PLC0415

    with redis.Redis.from_url(
        url,
        protocol=2,
        socket_timeout=_ANSWER_WITHIN,
        socket_connect_timeout=_ANSWER_WITHIN,
        retry=Retry(NoBackoff(), 0),
    ) as client:
        return _look(client, f"{site}::")


def _look(client: Redis, prefix: str) -> Jobs:
    """Read queues first, then what runs: a job moves that way."""
    workers = sum(bool(client.exists(key)) for key in _texts(client.smembers("rq:workers")))
    queues = sorted(_texts(client.smembers("rq:queues")))
    queued = [job for queue in queues for job in _texts(client.lrange(queue, 0, -1))]
    started = []
    for queue in queues:
        registry = f"rq:wip:{queue.removeprefix('rq:queue:')}"
        # What is past its time limit is there until somebody cleans up; -1 has none.
        started += _texts(client.zrangebyscore(registry, f"({time.time()}", "+inf"))
        started += _texts(client.zrangebyscore(registry, -1, -1))
    ours = [[job for job in jobs if job.startswith(prefix)] for jobs in (queued, started)]
    return Jobs(workers, *ours)


def _texts(found: Iterable[object]) -> list[str]:
    return [word.decode(errors="replace") if isinstance(word, bytes) else str(word) for word in found]
