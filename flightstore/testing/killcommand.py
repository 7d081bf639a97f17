"""The command ``python -m flightstore.testing.killpoints``: kill registered operations at every line, print
counts.

Lives here: argument parsing and output. Calls operations.py. Exit status 0 when all held, 1 when one failed,
2 for a wrong name.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence

from flightstore.testing import (  # they fill OPERATIONS
    crashbatches,
    crashevents,
    crashframes,
    crashguests,
    crashloans,
    crashmemory,
    crashsessions,
    crashsources,
    crashspecial,
    crashstreams,
    crashtable,
)
from flightstore.testing.killpoints import KillPointFailure, OperationFailed
from flightstore.testing.operations import OPERATIONS, shared

__all__ = [
    "crashbatches",
    "crashevents",
    "crashframes",
    "crashguests",
    "crashloans",
    "crashmemory",
    "crashsessions",
    "crashspecial",
    "crashsources",
    "crashstreams",
    "crashtable",
    "main",
]

COLUMNS = ("operation", "points", "distinct_lines", "executed_lines", "killed", "finished", "seconds")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    names = options.operation or sorted(OPERATIONS)
    unknown = [name for name in names if name not in OPERATIONS]
    if unknown:
        print(
            f"no operation {', '.join(unknown)}; there are: {', '.join(sorted(OPERATIONS))}", file=sys.stderr
        )
        return 2
    if options.share is not None and options.share < 1:
        print(f"--share {options.share}: a line that no operation dies at is not tested", file=sys.stderr)
        return 2
    plan = shared(names, options.share) if options.share else {}
    reports, failures = [], []
    if not options.json:
        _print_row(COLUMNS)
    for name in names:
        try:
            report = OPERATIONS[name].check(exhaustive=options.exhaustive, only=plan.get(name))
        except (KillPointFailure, OperationFailed) as error:
            failures.append(f"{name}: {error}")
            print(failures[-1], file=sys.stderr, flush=True)
            continue
        reports.append(report)
        if not options.json:
            _print_row([getattr(report, column) for column in COLUMNS])
    if options.json:
        print(
            json.dumps({"reports": [dataclasses.asdict(report) for report in reports], "failures": failures})
        )
    return 1 if failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flightstore.testing.killpoints",
        description="Kill operations at every line of flightstore that they execute, and check what is left.",
    )
    parser.add_argument(
        "--exhaustive", action="store_true", help="every execution of a line, not only the first"
    )
    parser.add_argument(
        "--share",
        type=int,
        metavar="N",
        help="each line in N of these operations only, as in the test suite (which takes 4)",
    )
    parser.add_argument("--operation", nargs="+", metavar="NAME", help="only these (default: all)")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    return parser


def _print_row(values: Iterable[object]) -> None:
    cells = [f"{value:.1f}" if isinstance(value, float) else str(value) for value in values]
    print("  ".join([f"{cells[0]:<24}", *(f"{cell:>14}" for cell in cells[1:])]), flush=True)
