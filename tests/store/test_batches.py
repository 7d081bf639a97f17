"""Batches in one process: what goes, what is kept, nesting, the explicit form."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import msgspec
import numpy as np
import pyarrow as pa
import pytest

import flightstore as fs
from flightstore.catalog.transaction import WriteTransaction
from flightstore.testing.events import wait_until

TABLE = pa.table({"n": range(100), "s": [str(i) for i in range(100)]})


def names(store: fs.Store) -> list[str | None]:
    return [info.name for info in store.list()]


def is_empty(store: fs.Store) -> bool:
    """Whether all memory came back, and nothing is left of any batch."""
    store.recover()
    stats = store.stats()
    return (stats.objects, stats.used_bytes, stats.dying, store.batches()) == (0, 0, 0, [])


@pytest.mark.req("BAT-1")
def test_everything_made_inside_goes(store: fs.Store) -> None:
    before = store.put(b"before", "before")
    with store.batch() as batch:
        store.put(b"small", "put")
        store.put(bytes(200_000), "large")
        store.put_many({"one": b"1", "two": bytes(100_000)})
        with store.create(10, "built") as blob:
            blob.buffer[:5] = b"built"
        with store.create_table(TABLE.schema, 100, "built table") as builder:
            builder["n"][:] = np.arange(100)
            builder["s"] = TABLE["s"]
        store.put(TABLE, "table")
        store.with_columns("table", {"x": range(100)}, "wider")
        store.select("wider", ["x"], "narrow")
        store.put(b"id", object_id=fs.ObjectID(b"chosen"))
        assert store.current_batch() is batch
        assert batch.status().objects == len(store.list()) - 1
    assert names(store) == ["before"]
    assert not store.contains("put")
    with pytest.raises(fs.ObjectNotFound):
        store.get("table")
    with pytest.raises(fs.ObjectNotFound):
        store.stat("table")
    with pytest.raises(fs.ObjectNotFound):
        store.get_many(["before", "large"])
    assert store.wait(["before", "put"], timeout=0) == (["before"], ["put"])
    assert store.delete(["put", "large"]) == store.delete("two", if_unused=True) == 0
    assert store.stats().objects == 1
    store.delete(before)
    assert is_empty(store)


@pytest.mark.req("BAT-1")
def test_an_exception_ends_it_too(store: fs.Store) -> None:
    batch = store.batch()

    def fail() -> None:
        with batch:
            store.put(b"x", "x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert batch.status().state == "ended"
    assert store.current_batch() is None
    assert is_empty(store)


@pytest.mark.req("BAT-1")
def test_what_is_held_reads_on(store: fs.Store) -> None:
    with store.batch():
        store.put(TABLE, "t")
        held = store.get("t")
        view = store.get(store.put(b"v" * 100_000)).value()
    store.recover()
    for _ in range(30):
        store.put(bytes(300_000), "churn")
    assert held.to_arrow().equals(TABLE)
    assert bytes(view) == b"v" * 100_000
    del held, view
    store.delete("churn")
    assert is_empty(store)


@pytest.mark.req("BAT-1")
def test_kept_objects_stay(store: fs.Store) -> None:
    with store.batch() as batch:
        first = store.put(b"1", "first")
        obj = store.get(store.put(TABLE, "second"))
        store.put(b"3", "third")
        store.put(b"4", "fourth")
        batch.keep(first)
        batch.keep([obj, "third"])
        batch.keep("third")
        batch.keep([])
        assert batch.status().objects == 1
    assert names(store) == ["first", "second", "third"]
    store.put(b"new", "first")
    assert bytes(store.get(first).value()) == b"1", "it outlives its name"
    obj.release()
    store.delete([first, "first", "second", "third"])
    assert is_empty(store)


@pytest.mark.req("BAT-1")
def test_keeping_what_cannot_be_kept(store: fs.Store, another: Callable[[], fs.Store]) -> None:
    other = store.new_batch("other")
    with other.activate():
        store.put(b"o", "others")
    outside = store.put(b"x", "outside")
    with store.batch() as batch:
        with pytest.raises(fs.ObjectNotFound, match="nothing"):
            batch.keep("nothing")
        with pytest.raises(fs.InvalidArgument, match=f"goes with batch {other.number}"):
            batch.keep("others")
        batch.keep(outside)
        store.put(b"y", "y")
    with pytest.raises(fs.BatchEnded, match=f"batch {batch.number} was ended"):
        batch.keep("outside")
    assert names(store) == ["others", "outside"]
    other.end()
    assert names(store) == ["outside"]


@pytest.mark.req("BAT-2")
def test_nested_batches(store: fs.Store) -> None:
    with store.batch("outer") as outer:
        store.put(b"o", "o")
        with store.batch("inner") as inner:
            assert inner.status().parent == outer.number
            with store.batch("innermost") as innermost:
                store.put_many({"a": b"a", "b": b"b", "c": b"c"})
                innermost.keep(["a", "b"])
            assert names(store) == ["a", "b", "o"]
            inner.keep("a")
        assert names(store) == ["a", "o"]
        assert store.current_batch() is outer
    assert is_empty(store)


@pytest.mark.req("BAT-2")
def test_keeping_passes_over_batches_that_are_gone(store: fs.Store) -> None:
    outer = store.new_batch()
    with outer.activate():
        middle = store.new_batch()
        with middle.activate():
            inner = store.new_batch()
    with inner.activate():
        kept, kept_for_good = store.put(b"k"), store.put(b"g")
    middle.end()
    store.recover()
    inner.keep(kept)
    outer.end()
    assert not store.contains(kept)
    store.recover()
    inner.keep(kept_for_good)
    inner.end()
    assert [info.id for info in store.list()] == [kept_for_good]


@pytest.mark.req("BAT-2")
def test_an_outer_batch_keeps_what_an_inner_one_made(store: fs.Store) -> None:
    with store.batch() as outer:
        with store.batch():
            kept = store.put(b"k", "k")
            outer.keep(kept)
        assert store.contains(kept)
    assert names(store) == ["k"]


@pytest.mark.req("BAT-3")
def test_the_explicit_form(store: fs.Store) -> None:
    assert store.current_batch() is None
    batch = store.new_batch("job")
    assert store.current_batch() is None
    store.put(b"outside", "outside")
    with batch.activate() as same:
        assert same is batch is store.current_batch()
        store.put(b"1", "inside")
    with batch.activate():
        store.put(b"2", "inside too")
    assert batch.status().state == "active"
    store.transfer_ownership("outside", batch)
    store.transfer_ownership(["inside"], None)
    store.end_batch(batch)
    assert names(store) == ["inside"]
    for again in (batch.end, batch.leave, batch.delete, lambda: store.end_batch(batch.token)):
        with pytest.raises(fs.BatchEnded, match="was ended"):
            again()
    with pytest.raises(fs.BatchEnded):
        store.join_batch(batch.token)
    with pytest.raises(fs.BatchEnded):
        store.transfer_ownership("inside", batch)
    store.delete("inside")
    assert is_empty(store)


@pytest.mark.req("BAT-3")
def test_ending_it_within_its_block_is_no_error(store: fs.Store) -> None:
    with store.batch() as batch:
        store.put(b"x", "x")
        batch.end()
        with pytest.raises(fs.BatchEnded, match=f"batch {batch.number}"):
            store.put(b"y", "y")
        with pytest.raises(fs.BatchEnded):
            store.put(bytes(300_000), "y")
    store.put(b"after", "after")
    assert names(store) == ["after"]
    assert store.stats().pending == 0


@pytest.mark.req("BAT-3")
def test_destroying_takes_what_was_passed_on(store: fs.Store) -> None:
    other = store.new_batch()
    with store.batch() as batch:
        store.put_many({"a": b"a", "b": b"b", "c": b"c"})
        held = store.get("b")
        batch.keep("a")
        store.transfer_ownership("b", other)
        store.destroy_batch(batch)
        assert store.list() == []
    assert bytes(held.value()) == b"b"
    assert other.status().objects == 0
    del held
    other.end()
    assert is_empty(store)


@pytest.mark.req("BAT-4")
def test_without_cleanup_objects_stay_until_it_is_deleted(store: fs.Store) -> None:
    with store.batch("results", cleanup=False) as batch:
        store.put_many({"a": b"a", "b": b"b"})
        batch.keep("a")
    assert names(store) == ["a", "b"]
    assert (batch.status().state, batch.status().objects) == ("closed", 1)
    with pytest.raises(fs.BatchEnded, match="until it is deleted"):
        batch.end()
    with batch.activate(), pytest.raises(fs.BatchEnded):
        store.put(b"c")
    store.recover()
    batch.delete()
    assert store.list() == []
    with pytest.raises(fs.BatchEnded):
        batch.delete()
    assert is_empty(store)


def timed_batch(store: fs.Store, value: bytes, name: str) -> fs.Batch:
    """A batch, current nowhere, that got an object within its time; that passes soon.

    A process can get no processor for longer than the time is: then the batch was given too little.
    """
    for timeout in (0.2, 2, 20):
        batch = store.new_batch(timeout=timeout)
        with batch.activate(), contextlib.suppress(fs.BatchEnded):
            store.put(value, name)
            return batch
        store.recover()
    raise AssertionError("its time was over at once")


@pytest.mark.req("BAT-6")
def test_a_timed_batch_is_over_when_its_time_is(store: fs.Store) -> None:
    with store.batch(timeout=1000) as lasting:
        store.put(b"x", "x")
        left = lasting.status().expires_s
        assert left is not None
        assert 0 < left <= 1000
        assert store.contains("x")
    batch = timed_batch(store, b"x", "x")
    with batch:
        wait_until(lambda: not store.contains("x"), what="its time passes")
        assert batch.status().state == "ended"
        with pytest.raises(fs.BatchEnded, match="its time has passed"):
            store.put(b"y", "y")
        with pytest.raises(fs.BatchEnded, match="its time has passed"):
            batch.keep("x")
    assert is_empty(store)
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(fs.InvalidArgument, match="timeout"):
            store.batch(timeout=wrong)


@pytest.mark.req("BAT-6")
def test_memory_of_a_timed_batch_serves_the_next_create(store: fs.Store) -> None:
    timed_batch(store, bytes(12 << 20), "large")
    wait_until(lambda: not store.contains("large"), what="its time passes")
    store.put(bytes(12 << 20), "next")
    assert store.batches() == []


def pin(store: fs.Store, object_id: fs.ObjectID) -> None:
    """What pinning writes."""

    def work(tx: WriteTransaction) -> None:
        record = tx.sealed(0, object_id)
        assert record is not None
        tx.rewrite_sealed(0, object_id, msgspec.structs.replace(record, pins=1))

    store._conn.write(work)


@pytest.mark.req("BAT-1")
@pytest.mark.parametrize("delete", [False, True])
def test_pinned_objects_stay_and_never_vanish_in_between(store: fs.Store, delete: bool) -> None:
    with store.batch() as batch:
        pinned = store.put(b"pinned", "pinned")
        store.put(b"x", "x")
        pin(store, pinned)
        if delete:
            batch.delete()
    assert names(store) == ["pinned"]
    assert bytes(store.get(pinned).value()) == b"pinned"
    store.recover()
    assert names(store) == ["pinned"]
    assert store.batches() == []


@pytest.mark.req("BAT-7")
def test_a_composed_table_keeps_what_it_is_made_of(store: fs.Store) -> None:
    one, two = store.new_batch("one"), store.new_batch("two")
    with one.activate():
        store.put(TABLE, "base")
    with two.activate():
        made = store.with_columns("base", {"x": range(100)}, "made")
        store.put(TABLE, "base two")
    with one.activate():
        again = store.with_columns("base two", {"y": range(100)}, "again")
    expected, expected_again = made.to_arrow(), again.to_arrow()
    del made, again
    one.end()
    store.recover()
    assert names(store) == ["base two", "made"]
    for _ in range(20):
        store.put(bytes(1 << 20), "churn")
    made = store.get("made")
    assert made.to_arrow().equals(expected)
    assert expected_again["y"].to_pylist() == list(range(100))
    del made, expected, expected_again
    two.end()
    store.delete("churn")
    assert is_empty(store)


@pytest.mark.req("BAT-7")
def test_what_was_overwritten_goes_with_the_batch_that_uses_it(store: fs.Store) -> None:
    """A member left to its user, both in one batch: whichever goes first."""
    with store.batch():
        for _ in range(5):
            store.put(TABLE, "t", object_id=None)
            store.with_columns("t", {"x": range(100)}, "t")
    assert is_empty(store)


@pytest.mark.req("BAT-1", "BAT-7")
def test_what_was_left_to_its_user_and_then_kept_stays(store: fs.Store) -> None:
    with store.batch() as batch:
        base = store.put(TABLE, "t")
        store.with_columns("t", {"x": range(100)}, "t").release()
        batch.keep(base)
    store.recover()
    assert [info.id for info in store.list()] == [base]
    assert store.get(base).to_arrow().equals(TABLE)
    store.delete(base)
    assert is_empty(store)


@pytest.mark.req("BAT-8")
def test_status(store: fs.Store) -> None:
    assert store.batches() == []
    with store.batch("job", timeout=1000) as job:
        store.put(bytes(1000))
        store.put(bytes(100_000), "k")
        with store.batch(cleanup=False) as part:
            store.put(bytes(5))
        job.keep("k")
        shown = job.status()
        assert (shown.id, shown.name, shown.state, shown.session) == (job.number, "job", "active", 0)
        assert (shown.objects, shown.nbytes, shown.parent) == (1, 1000, None)
        assert shown.expires_s is not None
        assert 900 < shown.expires_s <= 1000
        assert len(shown.owner_pids) == 1
        other = store.batches()[1]
        assert (other.id, other.name, other.state, other.parent) == (part.number, None, "closed", job.number)
        assert (other.objects, other.nbytes, other.expires_s) == (1, 5, None)
    part.delete()
    assert (job.status().state, job.status().objects) == ("ended", 1)
    store.recover()
    assert (job.status().state, job.status().objects) == ("ended", 0)


@pytest.mark.req("BAT-3")
def test_ids_and_names_of_what_is_over_are_free(store: fs.Store) -> None:
    fixed = fs.ObjectID(b"fixed")
    with store.batch():
        store.put(b"old", "name", object_id=fixed)
        held = store.get(fixed)
    assert store.put(b"new", "name", object_id=fixed) == fixed
    assert bytes(store.get("name").value()) == b"new"
    assert bytes(held.value()) == b"old"
    with pytest.raises(fs.ObjectExists):
        store.put(b"newer", object_id=fixed)
    with store.batch():
        store.put(b"old", object_id=fs.ObjectID(b"large"))
    store.put(bytes(300_000), object_id=fs.ObjectID(b"large"))
    assert store.fsck() == []


@pytest.mark.req("BAT-1")
def test_builders_of_a_batch_that_ended(store: fs.Store) -> None:
    batch = store.new_batch()
    with batch.activate():
        blob = store.create(1000, "blob")
        table = store.create_table(TABLE.schema, 100, "table")
    table["s"] = TABLE["s"]
    batch.end()
    for builder in (blob, table):
        with pytest.raises(fs.BatchEnded):
            builder.seal()
        with pytest.raises(fs.StoreClosed, match="aborted"):
            builder.seal()
    del blob, table, builder
    assert store.stats().pending == 0
    assert is_empty(store)


@pytest.mark.req("BAT-1")
def test_a_builder_goes_with_the_batch_in_which_it_was_created(store: fs.Store) -> None:
    with store.batch() as batch:
        builder = store.create(10, "early")
        with store.batch():
            builder.seal()
        assert store.contains("early")
        assert batch.status().objects == 1
    assert not store.contains("early")


@pytest.mark.req("BAT-3")
def test_what_is_no_batch(store: fs.Store) -> None:
    for wrong in ("nonsense", "ab:cd", "zz:1", 0, -1, 1 << 64, None, True):
        with pytest.raises(fs.InvalidArgument):
            store.end_batch(wrong)  # type: ignore[arg-type]
    with pytest.raises(fs.BatchEnded):
        store.end_batch(12345)
    with pytest.raises(fs.InvalidArgument):
        store.batch("")


@pytest.mark.req("BAT-3")
def test_folded_records_are_passed_on_and_reclaimed_whole(store: fs.Store) -> None:
    with store.batch() as batch:
        parts = [store.put(pa.table({"n": [index]})) for index in range(60)]
        kept, gone = store.concat(parts, "kept"), store.concat(parts, "gone")
        batch.keep("kept")
        del kept, gone
    store.recover()
    assert store.fsck() == []
    assert store.get("kept").to_arrow()["n"].to_pylist() == list(range(60))
    store.delete("kept")
    assert is_empty(store)
