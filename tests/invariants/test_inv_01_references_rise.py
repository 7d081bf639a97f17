"""INV-1: a count of references rises if and only if get or create is called."""

from __future__ import annotations

import pickle

import pytest
from every_call import CALLS, ENDING, furnish, public_names

import flightstore as fs
from flightstore.testing.children import child, start
from flightstore.testing.events import Gate

pytestmark = pytest.mark.req("INV-1")

RISING = {"get": 1, "get_async": 1, "get_many": 3, "create": 1, "create_now": 1, "create_table": 1}
"""How many references a call takes, as long as its user holds what it returns."""
GIVING = {"concat": 1, "drop": 1, "rename": 1, "select": 1, "split": 2, "with_columns": 1}
"""Composing makes an object and gets it: one reference on each new object, none on its members."""


def refs(store: fs.Store) -> dict[str | None, int]:
    """The references on each object."""
    return {info.name: info.refs for info in store.list()}


def test_every_call_is_listed() -> None:
    assert CALLS.keys() | ENDING == public_names()
    assert list(CALLS) == sorted(CALLS)


def test_only_get_and_create_take_references(store: fs.Store) -> None:
    risen = {}
    for name, call in CALLS.items():
        furnish(store)
        before = store.stats().leases
        held = call(store)
        risen[name] = store.stats().leases - before
        del held
        store.delete([info.id for info in store.list()])
        store.recover()
    assert {name: count for name, count in risen.items() if count} == RISING | GIVING


def test_the_count_is_the_objects_own(store: fs.Store) -> None:
    """It is the object got or made that counts, by name or id, and no other: members are counted apart."""
    furnish(store)
    held = [store.get("watched"), store.get(store.stat("watched").id), *store.get_many(["watched", "long"])]
    assert refs(store) == {"watched": 3, "long": 1, "victim": 0}
    held.append(store.concat(["watched", "victim"], "made"))
    assert refs(store) == {"watched": 3, "long": 1, "victim": 0, "made": 1}
    held.append(pickle.loads(pickle.dumps(held[0])))  # arriving is getting
    assert refs(store)["watched"] == 4
    store.put(b"another", "watched")
    assert refs(store)["watched"] == 0, "the new object of that name is another"
    assert store.stats().leases == 6


def test_using_an_object_takes_none(store: fs.Store) -> None:
    """What is made of an object shares its reference, however much of it there is."""
    furnish(store)
    held = store.get("watched")
    made = [held.value(), held.value(), held.to_arrow(), held.to_pandas(), held.to("polars")]
    assert held.holders()[0].refs == 1
    held.conversion_report("pandas")
    assert (held.metadata, held.name, held.kind) == (None, "watched", "table")
    assert refs(store)["watched"] == 1
    held.release()
    assert refs(store)["watched"] == 1, "they hold it together"
    del made
    assert store.stats().leases == 0


def test_a_builder_holds_its_object_once(store: fs.Store) -> None:
    builder = store.create(10, "built")
    assert store.stats().leases == 1
    view = builder.buffer
    builder.seal()
    assert refs(store) == {"built": 1}
    del builder, view
    assert refs(store) == {"built": 0}


def test_others_count_and_a_forked_child_has_its_own(store: fs.Store) -> None:
    furnish(store)
    held = store.get("watched")
    with Gate("counted") as counted, Gate("held twice") as twice:

        def holds() -> int:
            inherited = store.stat("watched").refs  # the parent's and mine
            with store.get("watched"):
                twice.open()
                counted.wait()
            return inherited

        with start(holds) as process:
            twice.wait()
            assert store.stat("watched").refs == 3
            holders = {one.pid: one.refs for one in store.holders("watched")}
            assert sorted(holders.values()) == [1, 2]
            counted.open()
            assert process.result() == 2
    assert store.stat("watched").refs == 1
    assert child(lambda: store.stat("victim").refs) == 0
    held.release()
