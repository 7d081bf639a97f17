"""Functions that are called for events: which, when, and until when."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

import flightstore
from flightstore import Store
from flightstore.lifecycle.callbacks import Callbacks
from flightstore.lifecycle.events import Selection
from flightstore.testing.events import wait_until
from flightstore.types import Event

pytestmark = pytest.mark.req("INV-11")

LAST = "the last one"


def test_callbacks(store: Store) -> None:
    heard: list[tuple[str, str | None]] = []
    full = threading.Event()
    store.on_added(lambda event: heard.append(("a*", event.name)), "a*")
    all_added = store.on_added(lambda event: heard.append(("all", event.name)))
    store.on_deleted(lambda event: heard.append(("gone", event.name)))
    store.on_full(lambda event: full.set())
    thread_names = [thread.name for thread in threading.enumerate()]
    assert thread_names.count("flightstore-events") == 1
    store.put(b"", "a1")
    store.put(b"", "b1")
    wait_until(lambda: len(heard) >= 3, what="they are called")
    all_added.close()
    all_added.close()
    store.put(b"", "b2")
    store.delete("b1")
    with pytest.raises(flightstore.StoreFull):
        store.put(bytes(17 << 20))
    assert full.wait(20)
    assert heard == [("a*", "a1"), ("all", "a1"), ("all", "b1"), ("gone", "b1")]


def test_a_callback_hears_nothing_from_before_it(store: Store) -> None:
    gate, heard = threading.Event(), []
    done = threading.Event()
    store.on_added(lambda event: gate.wait(20))  # holds the thread up, so that it lags behind
    store.put_many([b"x"] * 3)
    store.on_added(lambda event: (heard.append(event.name), done.set()))
    store.put(b"", "after")
    gate.set()
    assert done.wait(20)
    assert heard == ["after"]


def test_what_a_callback_raises_is_logged(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    called: list[str | None] = []

    def fail(event: Event) -> None:
        raise ValueError(f"no use for {event.name}")

    store.on_added(fail)
    store.on_added(lambda event: called.append(event.name))
    store.put(b"", "a")
    store.put(b"", "b")
    wait_until(lambda: called == ["a", "b"], what="the other is called all the same")
    assert [record.name for record in caplog.records] == ["flightstore"] * 2
    assert "no use for a" in caplog.text


def test_callbacks_that_are_too_slow_are_told_in_the_log(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    gate, last = threading.Event(), threading.Event()
    store.on_added(lambda event: gate.wait(20))
    store.on_added(lambda event: event.name == LAST and last.set())
    store.put(b"", "first")
    for _ in range(3):
        store.put_many([b"x"] * (store._conn.events_kept // 2))
    gate.set()
    store.put(b"", LAST)
    assert last.wait(30)
    assert "callbacks are too slow: you missed" in caplog.text


def test_what_ends_callbacks_is_told_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    class Ended:
        def next(self, deadline: float | None) -> Event | None:
            raise flightstore.SessionEnded("the session is over")

        def close(self) -> None:
            pass

    Callbacks(lambda: 0, lambda after: Ended()).add(print, Selection())
    wait_until(lambda: "no more events for callbacks: the session is over" in caplog.text, what="it is told")


def test_the_thread_ends_with_its_handle_or_its_last_callback(store: Store) -> None:
    def threads() -> int:
        return [thread.name for thread in threading.enumerate()].count("flightstore-events")

    handle = store.on_added(print)
    assert threads() == 1
    handle.close()
    wait_until(lambda: threads() == 0, what="the thread ends with its last callback")
    mine = flightstore.connect(store.path)
    mine.on_added(print)
    assert threads() == 1
    known = weakref.ref(mine)
    del mine
    gc.collect()
    assert known() is None, "the thread does not keep the handle alive"
    wait_until(lambda: threads() == 0, what="the thread ends with the handle")


def test_a_callback_may_close_itself_and_use_the_store(store: Store) -> None:
    done = threading.Event()

    def once(event: Event) -> None:
        handle.close()
        store.delete("a")
        done.set()

    handle = store.on_added(once)
    store.put(b"", "a")
    assert done.wait(20)
    store.put(b"", "a")
    assert "a" in store
