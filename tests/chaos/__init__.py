"""Real processes, real faults, an independent judge."""
