"""Tests of a store: events."""

from __future__ import annotations

import asyncio
import queue
from typing import Any

import pytest

from flightstore.errors import InvalidArgument, StoreFull
from flightstore.testing.stores.backend import CAPACITY_BYTES, Backend, Capability, needs

__all__ = ["Events"]

LONG_S = 30


def put_and_delete(store: Any) -> None:
    store.put(b"12345", "theirs")
    store.delete("theirs")


def told(subscription: Any, count: int) -> list[tuple[str, str | None]]:
    """(kind, name) of the next events."""
    found = [subscription.poll(LONG_S) for _ in range(count)]
    return [(event.kind, event.name) for event in found]


class Events(Backend):
    """subscribe, and the callbacks."""

    @needs(Capability.EVENTS)
    def test_what_is_told(self, store: Any, second: Any) -> None:
        """Objects that are sealed and deleted, in order, each once; by whichever handle."""
        with store.subscribe() as subscription:
            assert subscription.poll() is None
            ids = [second.put(b"12345", "a"), *second.put_many({"b": b"", "c": b""})]
            second.delete(["b", "nothing"])
            events = [subscription.poll(LONG_S) for _ in range(4)]
            assert [(event.kind, event.name, event.id) for event in events] == [
                ("added", "a", ids[0]),
                ("added", "b", ids[1]),
                ("added", "c", ids[2]),
                ("deleted", "b", ids[1]),
            ]
            assert events[0].nbytes == 5
            numbers = [event.number for event in events]
            assert numbers == sorted(set(numbers))
            assert subscription.position == numbers[-1]
            assert subscription.poll() is None

    @needs(Capability.EVENTS)
    def test_a_name_put_anew_is_two_events(self, store: Any) -> None:
        """The old object is deleted, the new one added."""
        old = store.put(b"", "a")
        with store.subscribe() as subscription:
            new = store.put(b"", "a")
            events = [subscription.poll(LONG_S), subscription.poll(LONG_S)]
            assert {(event.kind, event.id) for event in events} == {("deleted", old), ("added", new)}

    @needs(Capability.EVENTS, Capability.IN_PLACE)
    def test_nothing_is_told_of_what_was_never_sealed(self, store: Any) -> None:
        """Only of the seal."""
        with store.subscribe() as subscription:
            store.create(3, "aborted").abort()
            builder = store.create(3, "sealed")
            assert subscription.poll() is None
            builder.seal()
            assert told(subscription, 1) == [("added", "sealed")]

    @needs(Capability.EVENTS)
    def test_choosing(self, store: Any) -> None:
        """By pattern, by id, by kind."""
        mine = store.put(b"", "mine")
        some = store.subscribe("a*"), store.subscribe(mine), store.subscribe(kinds=["deleted"])
        store.put_many({"a1": b"", "b1": b""})
        store.put(b"")
        store.delete(["a1", "mine"])
        assert told(some[0], 2) == [("added", "a1"), ("deleted", "a1")]
        assert told(some[1], 1) == [("deleted", "mine")]
        assert told(some[2], 2) == [("deleted", "a1"), ("deleted", "mine")]
        for subscription in some:
            assert subscription.poll() is None
            subscription.close()
        with pytest.raises(InvalidArgument):
            store.subscribe(kinds=["renamed"])

    @needs(Capability.EVENTS)
    def test_going_on(self, store: Any, second: Any) -> None:
        """Where another subscription was, or at the beginning."""
        store.put_many({"a": b"", "b": b"", "c": b""})
        with store.subscribe(since=0) as first:
            assert told(first, 2) == [("added", "a"), ("added", "b")]
            position = first.position
        with second.subscribe(since=position) as later:
            assert told(later, 1) == [("added", "c")]

    @needs(Capability.EVENTS)
    def test_iterating(self, store: Any) -> None:
        """Ends after a while without events, or when it is closed."""
        store.put_many({"a": b"", "b": b""})
        found = [event.name for event in store.subscribe(since=0, timeout=0.05)]
        assert found == ["a", "b"]
        subscription = store.subscribe()
        subscription.close()
        subscription.close()
        assert list(subscription) == []
        assert subscription.poll() is None

    @needs(Capability.EVENTS)
    def test_following_in_asyncio(self, store: Any) -> None:
        """Others run while one waits."""

        async def main() -> list[str | None]:
            subscription = store.subscribe()
            following = asyncio.ensure_future(anext(subscription))
            await asyncio.sleep(0)
            store.put_many({"a": b"", "b": b""})
            found = [(await following).name, (await anext(subscription)).name]
            subscription.close()
            return found

        assert asyncio.run(main()) == ["a", "b"]

    @needs(Capability.EVENTS)
    def test_callbacks(self, store: Any, second: Any) -> None:
        """In order, until they are closed; what they raise stops nothing."""
        heard: queue.Queue[tuple[str, str | None]] = queue.Queue()

        def hear(event: Any) -> None:
            heard.put((event.kind, event.name))
            if event.name == "bad":
                raise ZeroDivisionError

        added, deleted = store.on_added(hear, "[ab]*"), store.on_deleted(hear)
        second.put_many({"a": b"", "bad": b"", "c": b""})
        second.delete(["a", "c"])
        expected = [("added", "a"), ("added", "bad"), ("deleted", "a"), ("deleted", "c")]
        assert [heard.get(timeout=LONG_S) for _ in expected] == expected
        added.close()
        added.close()
        second.put(b"", "a2")
        second.delete("a2")
        assert heard.get(timeout=LONG_S) == ("deleted", "a2")
        deleted.close()

    @needs(Capability.EVENTS, Capability.CAPACITY)
    def test_a_create_that_finds_no_room(self, store: Any) -> None:
        """Is told, with what it asked for."""
        with store.subscribe(kinds=["full"]) as subscription:
            with pytest.raises(StoreFull):
                store.put(bytes(CAPACITY_BYTES + 1), "large")
            event = subscription.poll(LONG_S)
            assert (event.kind, event.id) == ("full", None)
            assert event.nbytes > CAPACITY_BYTES

    @needs(Capability.EVENTS, Capability.PROCESSES)
    def test_what_another_process_does(self, store: Any) -> None:
        """Is told as well."""
        with store.subscribe("theirs") as subscription:
            self.run_in_client(store, put_and_delete)
            assert told(subscription, 2) == [("added", "theirs"), ("deleted", "theirs")]
