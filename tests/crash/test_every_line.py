"""Every operation, killed at the first hit of each line that it executes.

The rows, and what is checked after each death, are in flightstore.testing.crashtable, crashspecial and
crashscenes; docs/crash-tests.md tells the counts of the exhaustive form. Rows whose victim connects by itself
differ from the others in few lines: the suite takes those of them where that matters.
"""

from __future__ import annotations

import pytest

from flightstore.testing import killcommand
from flightstore.testing.crashtable import NEWCOMER
from flightstore.testing.killapart import check_apart
from flightstore.testing.operations import OPERATIONS

assert killcommand  # imports what fills OPERATIONS

NEWCOMERS_IN_SUITE = ("close", "destroy", "get")
LEFT_TO_THE_COMMAND = (
    "batch-put-staying",
    "create-overwrite",
    "create-table",
    "create-table-abort",
    "overwrite-many",
    "put-metadata",
    "put-small-growing",
    "select",
    "session-put-ephemeral",
    "sources-partition",
    "sources-read",
    "split",
    "stream",
    "stream-delete",
    "stream-forget",
    "subscribe-missed",
    "with-columns",
    "with-columns-large",
)
"""Rows that execute hardly a line which others do not: only the command takes them, to save a minute."""


def rows() -> list[str]:
    chosen = [name for name in OPERATIONS if not name.endswith(NEWCOMER) and name not in LEFT_TO_THE_COMMAND]
    return chosen + [name + NEWCOMER for name in NEWCOMERS_IN_SUITE]


@pytest.mark.slow
@pytest.mark.req(
    "FAIL-2", "FAIL-3", "FAIL-4", "INV-2", "INV-9", "API-1", "API-6", "API-7", "API-8", "API-13", "INV-11"
)
@pytest.mark.parametrize("name", rows())
def test_killed_at_every_line(name: str) -> None:
    report = check_apart(name, deadline_s=120)
    assert report.points >= 20
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
