"""create, create_now, seal, abort: raw bytes built in place."""

from __future__ import annotations

import gc
from collections.abc import Callable

import numpy as np
import pytest

import flightstore as fs
from flightstore import ObjectID
from flightstore.testing.children import child, start
from flightstore.testing.events import Gate


@pytest.mark.req("API-2", "API-7", "O-3")
@pytest.mark.parametrize("nbytes", [0, 1, 4096, 100_001])
def test_created_bytes_are_read_back(store: fs.Store, nbytes: int) -> None:
    builder = store.create(nbytes, "a")
    assert len(builder.buffer) == nbytes
    assert not any(builder.buffer)
    builder.buffer[:] = bytes(range(256)) * (nbytes // 256) + bytes(range(nbytes % 256))
    object_id = builder.seal()
    assert object_id == builder.id == store.get("a").id
    assert child(lambda: bytes(store.get("a").value())) == bytes(range(256)) * (nbytes // 256) + bytes(
        range(nbytes % 256)
    )
    assert store.stat("a").nbytes == nbytes


@pytest.mark.req("API-2")
def test_memory_used_before_is_zeroed(store: fs.Store) -> None:
    for _ in range(4):
        store.put(b"\xff" * (12 << 20), "dirt")
        store.delete("dirt")
        with store.create(12 << 20, "clean") as builder:
            assert not np.frombuffer(builder.buffer, "u1").any()
        store.delete("clean")


@pytest.mark.req("API-2")
def test_leaving_the_block_seals(store: fs.Store) -> None:
    with store.create(3, "a") as builder:
        builder.buffer[:] = b"abc"
    assert store.get("a").value() == b"abc"
    assert builder.seal() == store.get("a").id, "idempotent"
    builder.abort()
    assert "a" in store, "abort does nothing once sealed"


@pytest.mark.req("API-6")
def test_an_exception_in_the_block_aborts(store: fs.Store) -> None:
    with pytest.raises(ZeroDivisionError), store.create(3, "a") as builder:
        builder.buffer[0] = 1 // 0
    assert_as_if_never_been(store, "a", builder.id)
    builder.abort()
    with pytest.raises(fs.StoreClosed, match="aborted"):
        builder.seal()
    with pytest.raises(fs.StoreClosed, match="aborted"):
        _ = builder.buffer


def assert_as_if_never_been(store: fs.Store, name: str, object_id: ObjectID) -> None:
    store.recover()
    assert name not in store
    assert object_id not in store
    assert store.list() == []
    stats = store.stats()
    assert (stats.objects, stats.pending, stats.dying, stats.used_bytes, stats.leases) == (0, 0, 0, 0, 0)
    assert store.put(b"", name, object_id=object_id) == object_id


@pytest.mark.req("API-6")
def test_abort_by_id(store: fs.Store) -> None:
    builder = store.create(3, "a")
    assert store.abort(builder.id) is True
    assert store.abort(builder.id) is False
    with pytest.raises(fs.StoreClosed):
        builder.seal()
    object_id = builder.id
    del builder
    assert_as_if_never_been(store, "a", object_id)
    assert store.abort(object_id) is False, "sealed by now"


@pytest.mark.req("API-6")
def test_only_its_own_process_aborts_an_object(store: fs.Store) -> None:
    builder = store.create(3, "a")
    assert child(store.abort, builder.id) is False
    builder.seal()
    assert "a" in store


@pytest.mark.req("API-6")
def test_a_forgotten_builder_leaves_nothing(store: fs.Store) -> None:
    builder = store.create(3, "a")
    object_id = builder.id
    del builder
    gc.collect()
    assert_as_if_never_been(store, "a", object_id)


@pytest.mark.req("FAIL-3")
def test_what_a_dead_process_was_building_goes(store: fs.Store) -> None:
    def build(gate: Gate) -> None:
        kept = store.create(1 << 20, "a", object_id=ObjectID(b"a"))
        gate.open()
        Gate("never").wait(60)
        kept.abort()

    gate = Gate()
    with start(build, gate):
        gate.wait()
        assert store.stats().pending == 1
    assert store.recover().aborted_objects == 1
    assert_as_if_never_been(store, "a", ObjectID(b"a"))


@pytest.mark.req("API-2", "INV-1", "INV-2")
def test_an_open_builder_holds_a_reference(store: fs.Store) -> None:
    builder = store.create(100, "a")
    assert store.stats().leases == 1
    view = builder.buffer
    builder.seal()
    assert store.stat("a").refs == 1, "the view holds it"
    del view
    assert store.stat("a").refs == 0


@pytest.mark.req("API-7", "O-3")
def test_writes_after_the_seal_reach_nobody(store: fs.Store) -> None:
    with store.create(10_000, "a") as builder:
        view = builder.buffer
        view[:] = b"x" * 10_000
    view[:] = b"y" * 10_000
    assert view[0] == ord("y")
    assert store.get("a").value() == b"x" * 10_000
    assert child(lambda: bytes(store.get("a").value())) == b"x" * 10_000
    store.delete("a")
    store.recover()
    for number in range(20):
        store.put(b"z" * 700_000, f"other-{number}")
    view[:] = b"w" * 10_000
    assert all(store.get(f"other-{number}").value() == b"z" * 700_000 for number in range(20))


@pytest.mark.req("API-7")
def test_a_forked_child_does_not_go_on_building(store: fs.Store) -> None:
    builder = store.create(5, "a")
    view = builder.buffer
    view[:] = b"right"

    def meddle() -> str:
        view[:] = b"wrong"
        with pytest.raises(fs.FlightStoreError, match="process") as failure:
            builder.seal()
        builder.abort()
        return str(failure.value)

    assert "create in the child" in child(meddle)
    builder.seal()
    assert store.get("a").value() == b"right"


@pytest.mark.req("API-2", "FAIL-5")
@pytest.mark.parametrize("make", ["create", "create_now"])
def test_no_room_is_said_at_once(store: fs.Store, make: str) -> None:
    create: Callable[..., fs.BlobBuilder] = getattr(store, make)
    with create(10 << 20, "a"):
        pass
    with pytest.raises(fs.StoreFull) as failure:
        create(7 << 20, "b")
    error = failure.value
    assert error.asked_bytes == 7 << 20
    assert error.capacity_bytes == 16 << 20
    assert error.free_bytes == 6 << 20
    assert 0 < error.largest_hole_bytes <= error.free_bytes
    assert error.leased_bytes == error.pinned_bytes == error.spillable_bytes == 0
    assert "7,340,032" in str(error)
    with create(6 << 20, "b"):
        pass


@pytest.mark.parametrize("nbytes", [-1, 1.5, "1", None, True])
def test_a_size_is_a_number_of_bytes(store: fs.Store, nbytes: object) -> None:
    with pytest.raises(fs.InvalidArgument, match="number of bytes"):
        store.create(nbytes)  # type: ignore[arg-type]


@pytest.mark.req("API-2")
def test_building_goes_on_after_the_handle_was_closed(
    store: fs.Store, another: Callable[[], fs.Store]
) -> None:
    handle = another()
    builder = handle.create(3, "a")
    handle.close()
    builder.buffer[:] = b"abc"
    builder.seal()
    assert store.get("a").value() == b"abc"
