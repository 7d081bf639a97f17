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
from collections.abc import Sequence

from flightstore.testing.killpoints import KillPointFailure, KillReport, OperationFailed
from flightstore.testing.operations import OPERATIONS

__all__ = ["main"]

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
    reports, failures = [], []
    for name in names:
        try:
            reports.append(OPERATIONS[name].check(exhaustive=options.exhaustive))
        except (KillPointFailure, OperationFailed) as error:
            failures.append(f"{name}: {error}")
    _print_json(reports, failures) if options.json else _print_table(reports)
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flightstore.testing.killpoints",
        description="Kill operations at every line of flightstore that they execute, and check what is left.",
    )
    parser.add_argument(
        "--exhaustive", action="store_true", help="every execution of a line, not only the first"
    )
    parser.add_argument("--operation", nargs="+", metavar="NAME", help="only these (default: all)")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    return parser


def _print_json(reports: list[KillReport], failures: list[str]) -> None:
    print(json.dumps({"reports": [dataclasses.asdict(report) for report in reports], "failures": failures}))


def _print_table(reports: list[KillReport]) -> None:
    print("  ".join(f"{column:>15}" for column in COLUMNS))
    for report in reports:
        row = [getattr(report, column) for column in COLUMNS]
        print("  ".join(f"{value:>15.1f}" if isinstance(value, float) else f"{value:>15}" for value in row))
