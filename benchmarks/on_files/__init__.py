"""Benchmarks of ``file://``: hand-over, uncontended pairs, takeover, idle cost, markers and many leases."""
