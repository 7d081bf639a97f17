"""INV-7: only primaries are spilled: no replicas, nor what is not sealed any more, or not yet."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pyarrow as pa
import pytest

import flightstore as fs
from flightstore.catalog.records import FLAG_REPLICA
from flightstore.catalog.transaction import WriteTransaction

pytestmark = pytest.mark.req("INV-7")

MIB = 1 << 20


def put_replica(store: fs.Store, value: object, name: str) -> None:
    """An object that is a copy of one elsewhere: no public call makes such."""
    object_id = store.put(value, name)

    def mark(tx: WriteTransaction) -> None:
        record = tx.sealed(0, object_id)
        assert record is not None
        tx.rewrite_sealed(0, object_id, msgspec.structs.replace(record, flags=record.flags | FLAG_REPLICA))

    store._conn.write(mark)


def spilled_names(store: fs.Store) -> list[str | None]:
    """What was ever spilled, by the events."""
    with store.subscribe(since=0, kinds="spilled") as subscription:
        return [event.name for event in iter(subscription.poll, None)]


def mixed(store: fs.Store) -> None:
    """A full store, half of it replicas."""
    for number in range(2):
        put_replica(store, bytes(MIB), f"replica {number}")
        store.put(bytes(MIB), f"primary {number}")


def test_spill_takes_primaries_alone(store: fs.Store, spilled: Path) -> None:
    mixed(store)
    assert store.spill("replica 0") == 0
    assert store.stats().spillable_bytes == 2 * MIB
    assert store.spill() == 2 * MIB
    assert spilled_names(store) == ["primary 0", "primary 1"]
    assert {info.state for info in store.list("replica*")} == {"sealed"}


def test_a_create_drops_replicas_and_spills_primaries(store: fs.Store, spilled: Path) -> None:
    mixed(store)
    store.put(bytes(3 * MIB), "new")
    assert spilled_names(store) == ["primary 0"]
    assert {info.name for info in store.list()} == {"primary 0", "primary 1", "new"}


@pytest.mark.parametrize("protection", ["held", "pinned"])
def test_a_replica_in_use_is_neither_dropped_nor_spilled(
    store: fs.Store, spilled: Path, protection: str
) -> None:
    mixed(store)
    names = ["replica 0", "replica 1"]
    held = store.get_many(names) if protection == "held" else store.pin(names)
    store.put(bytes(2 * MIB), "new")
    with pytest.raises(fs.StoreFull):
        store.put(bytes(3 * MIB))
    assert set(spilled_names(store)) == {"primary 0", "primary 1"}
    assert {info.state for info in store.list("replica*")} == {"sealed"}
    del held


def test_bytes_that_a_replica_uses_stay(store: fs.Store, spilled: Path) -> None:
    """A primary made of a replica's columns is spilled as far as the bytes are its own."""
    put_replica(store, pa.table({"x": range(100_000)}), "replica")
    store.with_columns("replica", {"y": range(100_000)}, "primary").release()
    freed = store.spill()
    assert 800_000 <= freed < 1_000_000
    assert spilled_names(store) == ["primary"]
    assert store.stat("replica").state == "sealed"
    assert store.get("primary").to_arrow()["x"][-1].as_py() == 99_999


def test_neither_pending_nor_dying_objects(store: fs.Store, spilled: Path) -> None:
    builder = store.create(MIB, "pending")
    store.put(bytes(MIB), "dying")
    held = store.get("dying")
    store.delete("dying")
    store.put(bytes(MIB), "sealed")
    assert store.spill() == MIB
    builder.seal()
    del held
    assert spilled_names(store) == ["sealed"]
