"""Run the benchmarks of ``file://``.

usage: python -m benchmarks.on_files [--quick] [--json FILE] [WORKLOAD ...]

From the repository's root. Exits with 1 if a gate fails. Gates hold on any machine; times are to be compared within one
run only.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.common.plan import FULL, QUICK
from benchmarks.on_files.workloads import ORDER


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.on_files")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that all of it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found there as well")
    parser.add_argument("--folder", help="where to measure; default: the temporary folder's file system")
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD")
    options = parser.parse_args()
    chosen = {one.__name__: one for one in ORDER}
    if set(options.workloads) - chosen.keys():
        parser.error(f"workloads are {', '.join(chosen)}")
    found = []
    for name in options.workloads or chosen:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            table = chosen[name](folder, QUICK if options.quick else FULL)
            print(table.text(), flush=True)
            found.append({"workload": name, **asdict(table)})
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0 if all(all(table["gates"].values()) for table in found) else 1


if __name__ == "__main__":
    sys.exit(main())
