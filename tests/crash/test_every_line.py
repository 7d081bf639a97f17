"""Every line that an operation executes, killed at its first hit, in a few of the operations that execute it.

The rows, and what is checked after each death, are in flightstore.testing.crashtable, crashspecial and
crashscenes; docs/crash-tests.md tells the counts of the exhaustive form. Most lines are executed by nearly
all rows: flightstore.testing.killplan draws those that die there in the suite, the command takes all. Rows
whose victim connects by itself differ from the others in few lines: the suite takes those where that matters.
"""

from __future__ import annotations

import functools

import pytest

from flightstore.testing import killcommand
from flightstore.testing.crashtable import NEWCOMER
from flightstore.testing.killapart import check_apart, shared_apart
from flightstore.testing.operations import OPERATIONS
from flightstore.testing.tracing import Line

assert killcommand  # imports what fills OPERATIONS

NEWCOMERS_IN_SUITE = ("close", "destroy", "get")
SHARE = 4
"""Rows that die at one line (all rows that execute it, where they are fewer)."""


def rows() -> list[str]:
    chosen = [name for name in OPERATIONS if not name.endswith(NEWCOMER)]
    return chosen + [name + NEWCOMER for name in NEWCOMERS_IN_SUITE]


@functools.cache
def plan() -> dict[str, frozenset[Line]]:
    return shared_apart(rows(), SHARE)


@pytest.mark.slow
@pytest.mark.req(
    "FAIL-2", "FAIL-3", "FAIL-4", "INV-2", "INV-9", "API-1", "API-6", "API-7", "API-8", "API-13", "INV-11"
)
@pytest.mark.parametrize("name", rows())
def test_killed_at_every_line(name: str) -> None:
    report = check_apart(name, deadline_s=120, only=plan()[name])
    assert report.distinct_lines >= 20
    # A busy machine can lead past a point: a wait is skipped, a lock is had at once.
    assert report.killed >= 0.95 * report.points, "hardly any point is missed"


@pytest.mark.req("FAIL-2")
def test_every_operation_has_a_row() -> None:
    required = {
        "batch-begin", "close", "connect", "connect-making", "create-abort", "create-seal", "create-table",
        "create-table-with-text", "delete", "delete-unused",
        "destroy", "fork-child", "fork-parent", "get", "get-many", "overwrite-large", "overwrite-small",
        "create-queued", "create-waiting", "subscribe-next",
        "put-growing", "put-large", "put-many", "put-punching", "put-small", "recover", "select",
        "session-attach", "session-begin", "session-end", "session-put", "session-reclaim", "stream",
        "stream-abort", "stream-delete", "stream-overwrite", "sweep",
        "wait", "with-columns",
    }  # fmt: skip
    upon_anothers = {"batch-delete", "batch-end", "batch-join", "batch-keep", "batch-put", "batch-reclaim"}
    assert required | upon_anothers <= OPERATIONS.keys()
    assert {name + NEWCOMER for name in required - {"connect-making"}} <= OPERATIONS.keys()
