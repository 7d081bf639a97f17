"""Tests of a store: pins, eviction, spilling."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from flightstore.errors import ObjectNotFound, StoreFull
from flightstore.testing.stores.backend import CAPACITY_BYTES, Backend, Capability, needs, value_of

__all__ = ["Keeping"]

SHARE = CAPACITY_BYTES // 8


class Keeping(Backend):
    """pin, unpin, free, evict, spill."""

    @pytest.fixture
    def spilling(self, declared_SPILLING: None) -> Iterator[Any]:
        """An empty store that spills."""
        store = self.make_spilling_store(CAPACITY_BYTES)
        yield store
        self.remove_store(store)

    @needs(Capability.PINS)
    def test_pins(self, store: Any, second: Any) -> None:
        """Are counted, and belong to the object."""
        store.put_many({"a": b"1", "b": b"2"})
        assert store.pin(["a", "nothing"]) == second.pin("a") == 1
        assert [store.stat(name).pinned for name in "ab"] == [True, False]
        assert store.unpin("a") == 1
        assert second.stat("a").pinned
        assert store.unpin(["a", "b"]) == 1
        assert not second.stat("a").pinned
        assert store.unpin("a") == 0
        store.pin("b")
        assert store.delete("b") == 1
        assert "b" not in store

    @needs(Capability.PINS)
    def test_a_pinned_object_whose_name_is_put_anew(self, store: Any) -> None:
        """Stays under its id, and goes with its last pin."""
        old = store.put(b"old", "a")
        store.pin("a")
        store.put(b"new", "a")
        assert value_of(store.get(old)) == b"old"
        assert value_of(store.get("a")) == b"new"
        store.unpin(old)
        assert old not in store

    @needs(Capability.EVICTION)
    def test_evict_drops_what_may_be_dropped(self, store: Any) -> None:
        """Evictable or freed, held by nobody; it returns what became free."""
        for name in ("evictable", "held", "plain"):
            store.put(bytes(SHARE), name, evictable=name != "plain")
        held = store.get("held")
        assert store.evict() >= SHARE
        there = ["held", "plain"] if Capability.REFERENCES in self.capabilities else ["plain"]
        assert [info.name for info in store.list()] == there
        assert store.evict() == 0
        assert store.free(["plain", "nothing"]) == 1
        assert store.free("plain") == 0
        assert "plain" in store, "until then everybody can get it"
        assert store.evict() >= SHARE
        assert [info.name for info in store.list()] == there[:-1]
        assert value_of(held) == bytes(SHARE)
        held.release()

    @needs(Capability.EVICTION)
    def test_evict_stops_when_it_has_enough(self, store: Any) -> None:
        """Freed ones go first."""
        for number in range(4):
            store.put(bytes(SHARE), f"{number}", evictable=True)
        store.free("2")
        assert SHARE <= store.evict(1) < 2 * SHARE
        assert [info.name for info in store.list()] == ["0", "1", "3"]

    @needs(Capability.EVICTION, Capability.CAPACITY, Capability.REFERENCES)
    def test_a_create_evicts(self, store: Any) -> None:
        """What is evictable; never what is held, nor what is not."""
        store.put(bytes(SHARE), "plain")
        for number in range(6):
            store.put(bytes(SHARE), f"{number}", evictable=True)
        held = store.get("0")
        store.put(bytes(4 * SHARE), "large")
        names = {info.name for info in store.list()}
        assert {"plain", "large", "0"} <= names
        assert len(names) < 8
        with pytest.raises(StoreFull):
            store.put(bytes(5 * SHARE), "too large")
        assert {"plain", "large", "0"} <= {info.name for info in store.list()}
        assert value_of(held) == bytes(SHARE)

    @needs(Capability.EVICTION, Capability.PINS)
    def test_what_is_pinned_is_not_evicted(self, store: Any) -> None:
        """Until it is unpinned."""
        store.put(bytes(SHARE), "a", evictable=True)
        store.pin("a")
        assert store.evict() == 0
        store.unpin("a")
        assert store.evict() >= SHARE
        with pytest.raises(ObjectNotFound):
            store.get("a")

    @needs(Capability.SPILLING)
    def test_what_is_spilled_comes_back(self, spilling: Any) -> None:
        """Every kind of it, exactly; the object is the same all the while."""
        values = {
            "array": np.arange(200_000),
            "table": pa.table({"n": np.arange(100_000), "s": [f"{number}" for number in range(100_000)]}),
            "bytes": bytes(range(256)) * 4000,
        }
        ids = [spilling.put(value, name, metadata=name) for name, value in values.items()]
        before = [replace(spilling.stat(one), state="") for one in ids]
        assert spilling.spill() > 0
        assert [replace(spilling.stat(one), state="") for one in ids] == before
        assert [info.name for info in spilling.list()] == sorted(values)
        found = {name: spilling.get(name) for name in values}
        assert np.array_equal(found["array"].value(), values["array"])
        assert found["table"].to_arrow().equals(values["table"])
        assert value_of(found["bytes"]) == values["bytes"]
        assert [found[name].metadata for name in values] == list(values)
        assert [found[name].id for name in values] == ids

    @needs(Capability.SPILLING, Capability.CAPACITY)
    def test_a_create_spills(self, spilling: Any) -> None:
        """So that more fits than there is memory, and nothing is lost."""
        for number in range(20):
            spilling.put(bytes([number]) * SHARE, f"{number}")
        for number in range(20):
            assert value_of(spilling.get(f"{number}")) == bytes([number]) * SHARE
        assert len(spilling.list()) == 20

    @needs(Capability.SPILLING, Capability.REFERENCES)
    def test_what_is_held_is_not_spilled(self, spilling: Any) -> None:
        """And a deleted one is gone, spilled or not."""
        spilling.put(b"x" * SHARE, "held")
        spilling.put(b"y" * SHARE, "other")
        held = spilling.get("held")
        view = held.value()
        assert spilling.spill("held") == 0
        assert spilling.spill(["held", "other"]) >= SHARE
        assert bytes(view) == b"x" * SHARE
        assert spilling.delete("other") == 1
        with pytest.raises(ObjectNotFound):
            spilling.get("other")

    @needs(Capability.SPILLING, Capability.PINS)
    def test_what_is_pinned_is_not_spilled(self, spilling: Any) -> None:
        """Until it is unpinned."""
        spilling.put(bytes(SHARE), "a")
        spilling.pin("a")
        assert spilling.spill() == 0
        spilling.unpin("a")
        assert spilling.spill() >= SHARE
        assert value_of(spilling.get("a")) == bytes(SHARE)
