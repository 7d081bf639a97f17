"""INV-5: spilling happens only inside a create, or when asked for by `spill`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from every_call import ASKED, CALLS, fill, furnish

import flightstore as fs
from flightstore.testing.children import child, start
from flightstore.testing.events import Gate

pytestmark = pytest.mark.req("INV-5")

SPILLING = {"create", "create_stream", "create_table", "put", "put_many", "spill", "with_columns"}
"""What spills on a full store: `spill`, and the creates that may wait for a disk."""
REFUSED = {"create_now"}
"""A create that may not: it says StoreFull."""


def spilled_objects(store: fs.Store, directory: Path) -> int:
    """How many objects were ever spilled, by the events; none without a file and without a state that says
    so.
    """
    with store.subscribe(since=0, kinds="spilled") as subscription:
        count = len(list(iter(subscription.poll, None)))
    states = [info.state for info in store.list()]
    assert (count > 0) == ("spilled" in states) == (directory.exists() and os.listdir(directory) != [])
    return count


def test_no_other_call_spills(store: fs.Store, spilled: Path) -> None:
    furnish(store)
    fill(store, evictable=False)

    def none_spills() -> None:
        for name in CALLS.keys() - SPILLING - REFUSED:
            result = CALLS[name](store)
            del result
            assert spilled_objects(store, spilled) == 0, f"{name} spilled"

    none_spills()
    child(none_spills)
    with pytest.raises(fs.StoreFull):
        store.create_now(ASKED)
    assert spilled_objects(store, spilled) == 0


@pytest.mark.parametrize("name", sorted(SPILLING))
def test_these_spill(store: fs.Store, spilled: Path, name: str) -> None:
    furnish(store)
    fill(store, evictable=False)
    result = CALLS[name](store)
    assert spilled_objects(store, spilled) > 0
    del result


def test_no_death_and_no_recovery_spills(store: fs.Store, spilled: Path) -> None:
    furnish(store)
    pieces = fill(store, evictable=False)
    with Gate("held") as held:

        def holds() -> None:
            kept = store.get_many(sorted(pieces))
            builder = store.create(10)
            held.open()
            Gate("never").wait()
            assert kept
            assert builder

        with start(holds) as process:
            held.wait()
            process.kill()
    assert store.recover().dead_clients == 1
    assert spilled_objects(store, spilled) == 0
