"""Tests of a store: batches."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import pyarrow as pa
import pytest

from flightstore.errors import ObjectNotFound
from flightstore.testing.stores.backend import Backend, Capability, needs, value_of

__all__ = ["Batches"]


def batch_and_wait(store: Any) -> None:
    """Put something in a batch, and go on until killed."""
    with store.batch("theirs"):
        store.put(b"", "in batch")
        store.wait(["never"], timeout=60)


def end_it(store: Any, token: str) -> None:
    store.end_batch(token)


def ended(call: Any) -> None:
    """Fail unless a call says that the batch is over."""
    with pytest.raises(RuntimeError) as failure:
        call()
    assert type(failure.value).__name__ == "BatchEnded"


class Batches(Backend):
    """batch, and what belongs to it."""

    @needs(Capability.BATCHES)
    def test_objects_go_with_their_batch(self, store: Any, second: Any) -> None:
        """All but those that are kept; the others that were there stay."""
        store.put(b"before", "before")
        with store.batch("work") as batch:
            ids = [store.put(b"1", "a"), *store.put_many({"b": b"2", "c": bytes(100_000)})]
            batch.keep(["b"])
            assert store.current_batch().number == batch.number
            assert value_of(second.get("c")) == bytes(100_000)
            view = store.get("c").value()
        assert store.current_batch() is None
        for client in (store, second):
            assert [info.name for info in client.list()] == ["b", "before"]
            for ref in ("a", "c", ids[0], ids[2]):
                assert ref not in client
                with pytest.raises(ObjectNotFound):
                    client.get(ref)
        store.recover()
        assert bytes(view) == bytes(100_000), "who holds it reads on"
        assert value_of(store.get(ids[1])) == b"2"
        store.put(b"again", "a")

    @needs(Capability.BATCHES)
    def test_an_exception_ends_it(self, store: Any) -> None:
        """As leaving the block does."""

        def fail() -> None:
            with store.batch():
                store.put(b"", "a")
                _ = 1 // 0

        with pytest.raises(ZeroDivisionError):
            fail()
        assert store.list() == []

    @needs(Capability.BATCHES)
    def test_nested_batches(self, store: Any) -> None:
        """What the inner one keeps goes with the outer one."""
        with store.batch("outer") as outer:
            with store.batch("inner") as inner:
                store.put(b"", "gone")
                store.put(b"", "kept")
                store.put(b"", "kept twice")
                inner.keep(["kept", store.get("kept twice")])
            assert [info.name for info in store.list()] == ["kept", "kept twice"]
            outer.keep("kept twice")
        assert [info.name for info in store.list()] == ["kept twice"]

    @needs(Capability.BATCHES)
    def test_the_explicit_form(self, store: Any, second: Any) -> None:
        """Begun here, ended there, once."""
        batch = store.new_batch("explicit")
        store.put(b"", "outside")
        with batch.activate():
            store.put(b"", "inside")
        assert "inside" in store
        second.end_batch(batch.token)
        assert [info.name for info in store.list()] == ["outside"]
        for end in (batch.end, lambda: second.end_batch(batch.number), lambda: store.end_batch(batch)):
            ended(end)

    @needs(Capability.BATCHES)
    def test_a_batch_without_clean_up(self, store: Any) -> None:
        """Ends, and lets its objects stay until it is deleted, with those that were kept."""
        with store.batch(cleanup=False) as batch:
            store.put(b"", "a")
            store.put(b"", "b")
            batch.keep("b")
        assert [info.name for info in store.list()] == ["a", "b"]
        assert batch.status().state == "closed"
        store.destroy_batch(batch.token)
        assert store.list() == []

    @needs(Capability.BATCHES)
    def test_its_time_is_over(self, store: Any) -> None:
        """Whether or not anybody ends it."""
        for timeout in (0.05, 0.5, 5, 50):
            batch = store.new_batch(timeout=timeout)
            with batch.activate(), contextlib.suppress(RuntimeError):  # BatchEnded: not run for so long
                store.put(b"", "a")
                break
        else:
            pytest.fail("its time was over at once")
        running_out = threading.Event()
        while "a" in store:
            assert not running_out.wait(0.01)
        assert batch.status().state == "ended"
        ended(batch.end)

    @needs(Capability.BATCHES)
    def test_passing_objects_on(self, store: Any) -> None:
        """To another batch, or to none."""
        one, two = store.new_batch("one"), store.new_batch("two")
        with one.activate():
            store.put_many({"a": b"", "b": b"", "c": b""})
        store.transfer_ownership("a", two)
        store.transfer_ownership(["b"], None)
        one.end()
        assert [info.name for info in store.list()] == ["a", "b"]
        two.end()
        assert [info.name for info in store.list()] == ["b"]

    @needs(Capability.BATCHES)
    def test_what_is_known_of_it(self, store: Any) -> None:
        """Its number, name, state, objects and bytes."""
        with store.batch("work") as outer:
            with store.batch() as inner:
                store.put(bytes(1000), "a")
                status = inner.status()
                assert (status.id, status.name, status.state) == (inner.number, None, "active")
                assert (status.objects, status.nbytes, status.parent) == (1, 1000, outer.number)
                assert [info.id for info in store.batches()] == [outer.number, inner.number]
            assert (outer.status().name, outer.status().objects) == ("work", 0)

    @needs(Capability.BATCHES)
    def test_threads_have_batches_of_their_own(self, store: Any) -> None:
        """One that is begun outside is in none."""
        with store.batch():
            thread = threading.Thread(target=lambda: store.put(b"", "outside"))
            thread.start()
            thread.join()
            store.put(b"", "inside")
        assert [info.name for info in store.list()] == ["outside"]

    @needs(Capability.BATCHES, Capability.COMPOSITION)
    def test_what_was_composed_stays_whole(self, store: Any) -> None:
        """When the batch of its members is over."""
        with store.batch() as batch:
            store.put(pa.table({"n": range(10_000)}), "part")
            batch.keep(store.with_columns("part", {"m": list(range(10_000))}, "whole"))
        store.recover()
        store.put(bytes(1 << 20), "other")
        assert "part" not in store
        assert store.get("whole").to_arrow()["n"].to_pylist() == list(range(10_000))

    @needs(Capability.BATCHES, Capability.PROCESSES, Capability.WAITING)
    def test_its_process_is_killed(self, store: Any) -> None:
        """Then it is over at that instant."""
        running = self.start_in_client(store, batch_and_wait)
        try:
            store.get("in batch", timeout=30)
        finally:
            running.kill()
        assert "in batch" not in store
        assert store.list() == []

    @needs(Capability.BATCHES, Capability.PROCESSES)
    def test_another_process_ends_it(self, store: Any) -> None:
        """By its token."""
        batch = store.new_batch()
        with batch.activate():
            store.put(b"", "a")
        self.run_in_client(store, end_it, batch.token)
        assert "a" not in store
        ended(batch.end)
