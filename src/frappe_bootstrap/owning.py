"""Leases on a site for what is no step: a change that has to come after everything of earlier leaders.

A lease store that was emptied begins to count anew, while the volume still carries tokens of leaders that counted
further: in the claim of the scope, and in the journal of a site that was closed. A lease with a token below these would
be believed by nobody, so none is asked for. Not promised: a claim; what may be recorded is the steps engine's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from frappe_bootstrap.maintenance import Maintenance

if TYPE_CHECKING:
    from coordinate import Coordinator, Lease
    from frappe_bootstrap.work import Work


def own(work: Work, coordinator: Coordinator, timeout: float, *, scope: str = "", blocking: bool = True) -> Lease:
    """Return a lease that is held, with a token above every one that the volume knows.

    Args:
        work: on the site.
        coordinator: leases and markers.
        timeout: longest wait in seconds.
        scope: what is to be owned, if it is not the site.
        blocking: False: never wait for another holder.

    Raises:
        AcquireTimeout: somebody else held it all the time.
        Contended: somebody else holds it, and we were told not to wait.
        BackendUnavailable: a store gave no usable answer.
        Interrupted: a signal asked this process to stop.
    """
    name = scope or work.scope
    claim = coordinator.markers(name).view().claim
    highest = max(floor(work), 0 if claim is None else claim.token)
    return coordinator.lease(name).acquire(timeout, floor=highest, blocking=blocking)


def floor(work: Work) -> int:
    """Return the token that a leader of the site needs more than, whatever is claimed: its journal's."""
    return Maintenance(work).token()
