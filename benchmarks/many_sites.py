"""How much faster four replicas migrate many sites than one: the stand-in bench, whose migration only sleeps.

usage: python benchmarks/many_sites.py [--sites 50] [--scale 60]

Each site has a lease of its own, so replicas take different sites. SCALE stretches the sleeps of a migration: the more
it takes, the less do the starts of programs count, which all replicas of this one machine share. Run from the
repository's root.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.frappe.conftest import Fleet, new_fleet, tiny_redis

REPLICAS = (1, 4)


def boot(fleet: Fleet, replicas: int, **environ: str) -> float:
    """Boot replicas to their ends and return the seconds that all of them took."""
    started = time.monotonic()
    children = [fleet.start(**environ) for _ in range(replicas)]
    with ThreadPoolExecutor(replicas) as pool:
        # All at once: whoever has filled the pipe of its log stands still, and others may wait for it.
        told = list(pool.map(lambda child: child.communicate()[1], children))
    for child, log in zip(children, told, strict=True):
        if child.returncode:
            sys.exit(log)
    return time.monotonic() - started


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, default=50)
    parser.add_argument("--scale", type=float, default=60.0)
    wanted = parser.parse_args()
    names = " ".join(f"s{number}" for number in range(wanted.sites))
    several = {"SITE": "", "SITES": names, "MIGRATE_PARALLEL": str(max(REPLICAS)), "APPS": "", "BOOT_TIMEOUT": "3600"}
    with tempfile.TemporaryDirectory() as name, tiny_redis(Path(name)) as port:
        fleet = new_fleet(Path(name), port)
        try:
            boot(fleet, max(REPLICAS), **several)
            took = {
                count: boot(fleet, count, **several, IMAGE_REV=f"for-{count}", STANDIN_SCALE=str(wanted.scale))
                for count in REPLICAS
            }
        finally:
            fleet.close()
    for count, seconds in took.items():
        print(f"{wanted.sites} sites on {count}: {seconds:.1f} s, {took[REPLICAS[0]] / seconds:.2f} times as fast")


if __name__ == "__main__":
    main()
