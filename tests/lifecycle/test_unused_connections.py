"""What a process keeps of a store that it has closed or destroyed: no more than its views need."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

import flightstore as fs
from flightstore.lifecycle import registry
from flightstore.lifecycle.connection import Connection
from flightstore.testing.children import child


def open_arenas(store_dir: str) -> list[str]:
    """Those of one store: the test's process may have inherited others."""
    links = (os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd"))
    return [
        target
        for link in links
        if f"{store_dir}/arena" in (target := os.readlink(link) if os.path.islink(link) else "")
    ]


@pytest.mark.req("API-1")
def test_the_memory_of_a_destroyed_store_goes_with_its_last_view(store_dir: str) -> None:
    def work() -> list[int]:
        counts = []
        store = fs.connect(store_dir, capacity="1MiB")
        store.put(b"abc" * 1000, "kept")
        view = store.get("kept").value()
        store.destroy()
        counts.append(len(open_arenas(store_dir)))
        assert bytes(view) == b"abc" * 1000
        del view
        fs.connect(store_dir, capacity="1MiB").destroy()
        counts.append(len(open_arenas(store_dir)))
        return counts

    before, after = child(work)
    assert before > 0
    assert after == 0


@pytest.mark.req("API-1")
def test_a_finalizer_that_closes_a_handle_while_another_is_closed(
    store_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = Connection.close

    def close_twice(conn: Connection) -> bool:
        """As when the collector runs in the middle of it, and finds a forgotten handle."""
        monkeypatch.setattr(Connection, "close", close)
        registry._close_unused()
        return close(conn)

    store = fs.connect(store_dir, capacity="1MiB")
    monkeypatch.setattr(Connection, "close", close_twice)
    store.close()
    with fs.connect(store_dir) as again:
        again.put(b"works", "name")
        again.destroy()


def test_a_thread_that_never_ends_its_transaction_holds_up_no_other_store(store_dir: Path) -> None:
    stuck = fs.connect(store_dir.with_name("stuck"), capacity="4MiB")
    gate = stuck._conn.catalog.gate
    inside, done = threading.Event(), threading.Event()

    def hold() -> None:
        with gate:
            inside.set()
            done.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert inside.wait(20)
        stuck.close()
        other = fs.connect(store_dir, capacity="4MiB")
        other.put(b"x", "x")
        other.destroy()
    finally:
        done.set()
        holder.join()
    fs.connect(store_dir.with_name("stuck")).destroy()
