"""The command line of the benchmarks of one store."""

from __future__ import annotations

import argparse
import json
import os
import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.common.plan import FULL, QUICK, Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from types import ModuleType


class Suite(NamedTuple):
    """The benchmarks of a store.

    Args:
        prog: how they are called.
        about: what they are, in one line.
        workloads: modules with a function ``measure(running, plan)``, in the order in which they run.
        server: yields the running server that they get.
        called: returns that server's name and version.
        libraries: whose versions are shown.
        quick: sizes that show that everything runs.
    """

    prog: str
    about: str
    workloads: Sequence[ModuleType]
    server: Callable[[], AbstractContextManager[Any]]
    called: Callable[[Any], str]
    libraries: Sequence[str]
    quick: Plan = QUICK


def run(suite: Suite) -> int:
    """Run what the command line asks for, print it, and return the exit code."""
    workloads = {module.__name__.rpartition(".")[2]: module for module in suite.workloads}
    options = _options(suite, list(workloads))
    found = []
    with suite.server() as running:
        print(_where(suite, suite.called(running)), flush=True)
        for name in options.workloads or workloads:
            for table in workloads[name].measure(running, suite.quick if options.quick else FULL):
                print(table.text(), flush=True)
                found.append({"workload": name, **asdict(table)})
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0 if all(all(table["gates"].values()) for table in found) else 1


def _options(suite: Suite, names: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=suite.prog, description=suite.about)
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that all of it runs, within a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found there as well")
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=f"some of: {', '.join(names)}")
    options = parser.parse_args()
    unknown = set(options.workloads) - set(names)
    if unknown:
        parser.error(f"no such workload: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    return options


def _where(suite: Suite, server: str) -> str:
    versions = [f"{name} {_version(name)}" for name in suite.libraries]
    return (
        f"{server}, Python {platform.python_version()}, {os.cpu_count()} processors, load"
        f" {os.getloadavg()[0]:.1f} at the start; {', '.join(versions)}.\n"
        "The machine may be shared: compare within one table only, by ratio.\n"
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
