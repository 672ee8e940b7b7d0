"""Run the benches and put what they measured beside what is promised.

    python -m benchmarks                                 all of them
    python -m benchmarks embed head                      these two
    python -m benchmarks --out records/bench.json        also keep the numbers, with the machine and the versions; what
                                                         that file holds of benches that were not run stays

A bench is a module `bench_NAME` with `main() -> dict[str, float]` and, where something is promised,
`GOALS: dict[str, tuple[str, float]]`, e.g. `{"throughput_ratio": (">=", 0.95)}`. The exit code is 1 if a goal is
missed.
"""

from __future__ import annotations

import argparse
import json
import math
import operator
import shlex
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from foretaste.runtime import machine, versions

BENCHES = (
    *("embed", "head", "certified", "exact", "canceling", "inverse", "matching", "pacl", "bad_encoder", "filters"),
    "scaling",
)
RELATIONS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


def measure(name: str) -> list[dict[str, Any]]:
    """One row per number of a bench: its value, its goal if it has one, and whether the goal is met.

    Raises:
        KeyError: a goal names a number that the bench does not measure, or a relation that does not exist.
    """
    bench = import_module(f"benchmarks.bench_{name}")
    values: dict[str, float] = bench.main()
    goals: dict[str, tuple[str, float]] = getattr(bench, "GOALS", {})
    if unknown := set(goals) - set(values):
        raise KeyError(f"bench_{name}: goals without a measured number: {sorted(unknown)}")
    rows = []
    for key, value in values.items():
        row: dict[str, Any] = {"bench": name, "measure": key, "value": value, "goal": None, "met": None}
        if key in goals:
            relation, bound = goals[key]
            row |= {"goal": f"{relation} {bound:g}", "met": math.isfinite(value) and RELATIONS[relation](value, bound)}
        rows.append(row)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    table = Table("bench", "measure", "value", "goal", "met")
    for row in rows:
        met = {None: "", True: "yes", False: "NO"}[row["met"]]
        table.add_row(row["bench"], row["measure"], f"{row['value']:.4g}", row["goal"] or "", met)
    Console().print(table)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure the promised ratios.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(BENCHES)}; default: all")
    parser.add_argument("--out", type=Path, help="also write the numbers as JSON to this file")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(BENCHES):
        parser.error(f"unknown bench {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}")
    place = {"machine": machine(), "versions": versions()}
    before = json.loads(options.out.read_text()) if options.out and options.out.exists() else {}
    if before and any(before[key] != here for key, here in place.items()):
        parser.error(f"{options.out} holds figures of another machine or other versions; choose another file")
    rows, seconds = [], {}
    for name in options.names or BENCHES:
        print(f"bench {name} ...", file=sys.stderr, flush=True)
        start = time.perf_counter()
        rows += measure(name)
        seconds[name] = round(time.perf_counter() - start, 1)
    show(rows)
    if options.out:
        words = shlex.join(["python", "-m", "benchmarks", *(sys.argv[1:] if arguments is None else arguments)])
        kept = [row for row in before.get("rows", []) if row["bench"] not in seconds]
        command = "; ".join([*([before["command"]] if kept else []), words])
        report = {"command": command, "rows": kept + rows, "seconds": before.get("seconds", {}) | seconds, **place}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    return int(any(row["met"] is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
