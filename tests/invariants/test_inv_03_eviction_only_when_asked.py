"""INV-3: eviction happens only inside an evict or a create request."""

from __future__ import annotations

from pathlib import Path

import pytest
from every_call import CALLS, fill, furnish

import flightstore as fs
from flightstore.testing.children import child, start
from flightstore.testing.events import Gate

pytestmark = pytest.mark.req("INV-3")

EVICTING = {
    "create",
    "create_now",
    "create_stream",
    "create_table",
    "evict",
    "put",
    "put_many",
    "with_columns",
}
"""What evicts on a full store: `evict`, and the creates that ask for more than there is."""


def evictables(store: fs.Store) -> set[str | None]:
    return {info.name for info in store.list("piece*")}


@pytest.mark.parametrize("with_spilling", [False, True])
def test_no_other_call_evicts(store: fs.Store, tmp_path: Path, with_spilling: bool) -> None:
    """On a full store of objects that may all go, they stay, whatever is called, here or elsewhere."""
    furnish(store)
    pieces = fill(store, evictable=True)
    if with_spilling:
        store.set_spill(str(tmp_path))

    def none_evicts() -> None:
        for name in CALLS.keys() - EVICTING:
            result = CALLS[name](store)
            del result
            assert evictables(store) == pieces, f"{name} evicted"

    none_evicts()
    child(none_evicts)


@pytest.mark.parametrize("name", sorted(EVICTING))
def test_these_evict(store: fs.Store, name: str) -> None:
    furnish(store)
    pieces = fill(store, evictable=True)
    result = CALLS[name](store)
    assert evictables(store) < pieces
    del result


def test_a_get_makes_no_room(store: fs.Store, tmp_path: Path) -> None:
    """What was spilled is read from its file while the store is full of what could be dropped."""
    store.set_spill(str(tmp_path))
    store.put(bytes(1 << 20), "large")
    store.spill()
    pieces = fill(store, evictable=True)
    obj = store.get("large")
    assert obj.nbytes == 1 << 20
    assert evictables(store) == pieces
    assert store.stat("large").state == "spilled"


def test_no_death_and_no_recovery_evicts(store: fs.Store) -> None:
    pieces = fill(store, evictable=True)
    with Gate("held") as held:

        def holds() -> None:
            kept = store.get_many(sorted(pieces))
            held.open()
            Gate("never").wait()
            assert kept

        with start(holds) as process:
            held.wait()
            process.kill()
    assert store.recover().dead_clients == 1
    assert evictables(store) == pieces
