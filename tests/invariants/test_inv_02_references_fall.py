"""INV-2: a count of references falls if and only if release or disconnect happens."""

from __future__ import annotations

import pytest
from every_call import CALLS, furnish

import flightstore as fs
from flightstore.testing.children import child, start
from flightstore.testing.events import Gate, wait_until

pytestmark = pytest.mark.req("INV-2")


def leases(store: fs.Store) -> int:
    return store.stats().leases


def no_call_lets_go(store: fs.Store) -> None:
    """What is held before a call is held after it, and nothing else, whatever the call is."""
    others = leases(store)
    for name, call in CALLS.items():
        furnish(store)
        held = store.get_many(["watched", "victim", "long"])
        result = call(store)
        del result
        assert leases(store) == others + 3, f"{name} made it fall, or does not give back what it takes"
        del held
        store.delete([info.id for info in store.list()])
        store.recover()


def test_no_other_call_makes_it_fall(store: fs.Store) -> None:
    """Made here, or in another process, which deletes and evicts and recovers too."""
    no_call_lets_go(store)
    furnish(store)
    held = store.get_many(["watched", "victim", "long"])
    child(no_call_lets_go, store)
    assert leases(store) == 3
    assert [obj.to_arrow().num_rows for obj in held][:2] == [3, 3]


def test_release_counts_once(store: fs.Store) -> None:
    furnish(store)
    one, two = store.get("watched"), store.get("watched")
    one.release()
    assert store.stat("watched").refs == 1
    one.release()
    assert store.stat("watched").refs == 1, "releasing is idempotent"
    two.release()
    assert store.stat("watched").refs == 0


def test_a_view_holds_until_it_is_gone(store: fs.Store) -> None:
    store.put(bytes(100_000), "a")
    held = store.get("a")
    view = memoryview(held.value())
    part = view[10:20]
    held.release()
    del held, view
    assert store.stat("a").refs == 1
    del part
    assert store.stat("a").refs == 0


def test_closing_a_handle_is_not_disconnecting(store: fs.Store) -> None:
    furnish(store)
    with fs.connect(store.path) as other:
        held = other.get("watched")
    assert store.stat("watched").refs == 1
    assert held.value().equals(store.get("victim").value())
    held.release()
    assert store.stat("watched").refs == 0


@pytest.mark.parametrize("ending", ["exit", "kill"])
def test_a_process_that_is_gone_is_disconnected(store: fs.Store, ending: str) -> None:
    """At once, before anybody recovers; a forked child's end takes the child's references alone."""
    furnish(store)
    mine = store.get("watched")
    with Gate("held") as held, Gate("end") as end:

        def holds() -> None:
            store.get_many(["watched", "victim"])
            kept = [mine, *store.get_many(["watched", "victim"])]
            held.open()
            end.wait()
            assert kept

        with start(holds) as process:
            held.wait()
            assert (store.stat("watched").refs, store.stat("victim").refs) == (3, 1)
            if ending == "exit":
                end.open()
                process.result()
            else:
                process.kill()
    wait_until(lambda: store.stat("victim").refs == 0, what="the process is gone")
    assert store.stat("watched").refs == 1
    store.recover()
    assert store.stat("watched").refs == 1
    assert mine.value().equals(store.get("victim").value())
