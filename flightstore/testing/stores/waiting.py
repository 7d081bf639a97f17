"""Tests of a store: timeouts, wait, the forms for asyncio, and no room."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from flightstore.abc import AbstractStore
from flightstore.errors import GetTimeout, InvalidArgument, ObjectNotFound, StoreFull
from flightstore.testing.stores.backend import CAPACITY_BYTES, Backend, Capability, needs, value_of
from flightstore.types import ObjectID, Ref

__all__ = ["Waiting"]

LONG_S = 30
"""More than any wait here should take."""


@contextmanager
def meanwhile(function: Callable[[], Any]) -> Iterator[None]:
    """Run `function` in another thread while the block runs; raises what it raised."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield
    thread.join(LONG_S)
    assert not thread.is_alive()
    if failures:
        raise failures[0]


class Waiting(Backend):
    """Timeouts, wait, asyncio, no room."""

    @needs(Capability.WAITING)
    @pytest.mark.parametrize("many", [False, True], ids=["get", "get_many"])
    def test_a_get_that_waits_in_vain(self, store: AbstractStore, many: bool) -> None:
        """Is both a KeyError and a TimeoutError."""
        store.put(b"", "there")

        def get() -> object:
            if many:
                return store.get_many(["there", "never"], timeout=0.05)
            return store.get("never", timeout=0.05)

        with pytest.raises(GetTimeout, match="'never'") as failure:
            get()
        assert isinstance(failure.value, KeyError)
        assert isinstance(failure.value, TimeoutError)
        assert isinstance(failure.value, ObjectNotFound)

    @needs(Capability.WAITING)
    @pytest.mark.parametrize("timeout", [LONG_S, None])
    @pytest.mark.parametrize("ref", ["later", ObjectID(b"later")])
    def test_a_get_waits(
        self, store: AbstractStore, second: AbstractStore, ref: Ref, timeout: float | None
    ) -> None:
        """Until somebody puts the object, through whichever handle."""

        def put() -> None:
            if isinstance(ref, ObjectID):
                second.put(b"here", object_id=ref)
            else:
                second.put(b"here", ref)

        with meanwhile(put):
            assert value_of(store.get(ref, timeout=timeout)) == b"here"

    @needs(Capability.WAITING)
    def test_a_get_of_many_waits_for_the_last(self, store: AbstractStore, second: AbstractStore) -> None:
        """Whatever is there already."""
        store.put(b"1", "a")
        with meanwhile(lambda: second.put(b"2", "b")):
            assert [value_of(obj) for obj in store.get_many(["b", "a"], timeout=LONG_S)] == [b"2", b"1"]

    @needs(Capability.WAITING, Capability.IN_PLACE)
    def test_nobody_is_woken_before_the_seal(self, store: AbstractStore) -> None:
        """A pending object is not there yet."""
        with store.create(3, "slow") as builder:
            with pytest.raises(GetTimeout):
                store.get("slow", timeout=0.02)
            assert store.wait(["slow"], timeout=0.02) == ([], ["slow"])
            builder.buffer[:] = b"now"
        assert value_of(store.get("slow", timeout=LONG_S)) == b"now"

    @needs(Capability.WAITING)
    @pytest.mark.parametrize("timeout", [-1, math.nan])
    def test_a_timeout_is_not_negative(self, store: AbstractStore, timeout: float) -> None:
        """Nor not a number."""
        with pytest.raises(InvalidArgument, match="timeout"):
            store.get("nothing", timeout=timeout)
        with pytest.raises(InvalidArgument, match="timeout"):
            store.put(b"", "nothing", timeout=timeout)
        assert "nothing" not in store

    @needs(Capability.WAITING)
    def test_wait(self, store: AbstractStore, second: AbstractStore) -> None:
        """Ready ones and others, each in the order given; no error when the time is up."""
        object_id = store.put(b"", "b")
        assert second.wait(["a", object_id, "b", "c"], num_ready=1) == ([object_id, "b"], ["a", "c"])
        for timeout in (0, 0.02):
            assert store.wait(["a", "b"], timeout=timeout) == (["b"], ["a"])
        assert store.wait(["b"]) == (["b"], [])
        assert store.wait([]) == ([], [])
        assert store.wait(["a"], num_ready=0) == ([], ["a"])
        with meanwhile(lambda: second.put_many({"x": b"", "y": b""})):
            assert store.wait(["x", "never", "y"], num_ready=2, timeout=LONG_S) == (["x", "y"], ["never"])
        for impossible in (-1, 2):
            with pytest.raises(InvalidArgument, match="num_ready"):
                store.wait(["a"], num_ready=impossible)
        with pytest.raises(InvalidArgument):
            store.wait(["{"], timeout=0)

    @needs(Capability.WAITING)
    def test_asyncio(self, store: AbstractStore, second: AbstractStore) -> None:
        """Others run while one waits, and a wait can be cancelled."""

        async def main() -> None:
            get = asyncio.create_task(store.get_async("later", timeout=LONG_S))
            wait = asyncio.create_task(store.wait_async(["later", "b"], num_ready=1, timeout=LONG_S))
            await asyncio.sleep(0)
            second.put(b"here", "later")
            assert value_of(await get) == b"here"
            assert await wait == (["later"], ["b"])
            assert value_of(await store.get_async("later")) == b"here"
            with pytest.raises(GetTimeout):
                await store.get_async("never", timeout=0.02)
            assert await store.wait_async(["never", "later"], timeout=0.02) == (["later"], ["never"])
            task = asyncio.create_task(store.get_async("never"))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())

    @needs(Capability.CAPACITY)
    def test_what_does_not_fit(self, store: AbstractStore, second: AbstractStore) -> None:
        """Is a MemoryError with figures, and nothing happens."""
        store.put(b"old", "name")
        with pytest.raises(StoreFull) as failure:
            second.put(bytes(CAPACITY_BYTES + 1), "name")
        error = failure.value
        assert isinstance(error, MemoryError)
        assert error.asked_bytes > CAPACITY_BYTES
        assert error.capacity_bytes == CAPACITY_BYTES
        with pytest.raises(StoreFull):
            store.put_many({"name": b"new", "large": bytes(CAPACITY_BYTES + 1)})
        assert value_of(store.get("name")) == b"old"
        assert len(store.list()) == 1

    @needs(Capability.CAPACITY)
    def test_a_full_store_loses_nothing_and_works_again(self, store: AbstractStore) -> None:
        """Once something is deleted."""
        share = CAPACITY_BYTES // 16
        names = [f"{number}" for number in range(17)]

        def fill() -> None:
            for number, name in enumerate(names):
                store.put(bytes([number]) * share, name)

        with pytest.raises(StoreFull):
            fill()
        put = [name for name in names if name in store]
        assert len(put) >= 8
        for number, name in enumerate(put):
            assert value_of(store.get(name)) == bytes([number]) * share
        assert store.delete(put[:2]) == 2
        store.put(b"x" * share, "more")
        assert value_of(store.get("more")) == b"x" * share

    @needs(Capability.CAPACITY, Capability.WAITING)
    def test_a_put_waits_for_room(self, store: AbstractStore, second: AbstractStore) -> None:
        """As long as it may."""
        large = CAPACITY_BYTES * 5 // 8
        store.put(bytes(large), "first")
        with pytest.raises(StoreFull):
            store.put(bytes(large), "second", timeout=0.05)
        with meanwhile(lambda: second.delete("first")):
            store.put(bytes(large), "second", timeout=LONG_S)
        assert "second" in store
