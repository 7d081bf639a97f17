"""What a destroyed store is to those who were connected, and a store made anew at its path to those who
destroyed the first one.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import flightstore
from flightstore.errors import StoreClosed
from flightstore.lifecycle import layout
from flightstore.testing.children import child
from flightstore.testing.crashscenes import CAPACITY_BYTES, fresh_path, plain


@pytest.fixture
def path() -> Iterator[str]:
    where = fresh_path()
    yield where
    flightstore.connect(where, capacity=CAPACITY_BYTES).destroy()


def make_anew(path: str) -> None:
    """In a process of its own: destroy the store, make another one at its path."""
    flightstore.connect(path).destroy()
    flightstore.connect(path, capacity=CAPACITY_BYTES).put(b"another", "name")


@pytest.mark.req("FAIL-2", "FAIL-4")
def test_a_fork_does_not_lead_into_the_store_made_anew(path: str) -> None:
    """Forking closes the catalog; opening it again by its path would give another store's records."""
    store = flightstore.connect(path, capacity=CAPACITY_BYTES)
    store.put(b"first", "name")
    view = store.get("name")
    child(make_anew, path)
    child(int)  # forks
    with pytest.raises(StoreClosed, match="destroyed"):
        store.get("name")
    with pytest.raises(StoreClosed, match="destroyed"):
        child(lambda: bytes(store.get("name").value()))
    assert plain(view) == b"first"
    del view
    store.close()
    assert plain(flightstore.connect(path).get("name")) == b"another"


@pytest.mark.req("FAIL-2")
def test_a_late_remover_spares_the_store_made_anew(path: str) -> None:
    store = flightstore.connect(path, capacity=CAPACITY_BYTES)
    store._conn.exclusive(store._conn.control.mark_destroyed)  # as far as destroy() got
    store.close()
    other = flightstore.connect(path, capacity=CAPACITY_BYTES)
    other.put(b"another", "name")
    layout.remove_store(path)  # and now the rest
    assert plain(other.get("name")) == b"another"
    other.close()


@pytest.mark.req("FAIL-2")
def test_a_destroyed_store_is_no_store(path: str) -> None:
    store = flightstore.connect(path, capacity=CAPACITY_BYTES)
    store._conn.exclusive(store._conn.control.mark_destroyed)
    store.close()
    with pytest.raises(flightstore.NotAStore):
        flightstore.connect(path, create=False)
