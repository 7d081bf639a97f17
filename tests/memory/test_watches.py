"""Watches say what the slow question says, whatever becomes of the client."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

import flightstore as fs
from flightstore.testing.children import start
from flightstore.testing.events import Gate, wait_until

pytestmark = pytest.mark.req("BAT-6")


def other_client(store: fs.Store) -> int:
    (other,) = (int(name, 16) for name in store._conn.clients.names() if int(name, 16) != store._conn.client)
    return other


@pytest.mark.parametrize("end", ["kill", "close", "exec", "zombie"])
def test_a_client_that_ends_is_seen_at_once(store_dir: Path, end: str) -> None:
    connected, go, done = Gate(), Gate(), Gate()
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)

    def live() -> None:
        assert store._conn.client, "it has a file of its own"
        connected.open()
        go.wait()
        if end == "close":
            store.close()
            os.write(writer, b"x")
            done.wait()
        elif end == "exec":
            program = f"import os, sys; os.write({writer}, b'x'); sys.stdin.read(1)"
            stdin, _still_open = os.pipe()
            os.dup2(stdin, 0)
            os.set_inheritable(_still_open, True)
            os.execv(sys.executable, [sys.executable, "-S", "-c", program])
        else:
            os.kill(os.getpid(), signal.SIGKILL)

    with fs.connect(store_dir, capacity="1MiB") as store, start(live) as process:
        connected.wait()
        clients, other = store._conn.clients, other_client(store)
        assert clients.lives(other)
        assert clients.lives(other), "by its watch"
        assert clients.lives(store._conn.client)
        go.open()
        if end in ("close", "exec"):
            assert os.read(reader, 1) == b"x"
        else:
            if end == "kill":
                process.kill()
            wait_until(lambda: not clients.alive(f"{other:016x}"), what="it is gone")
        assert not clients.alive(f"{other:016x}")
        assert not clients.lives(other)
        assert clients.lives(store._conn.client)
        done.open()
        process.kill()
        store.recover()
        assert not clients.lives(other)
        store.destroy()
    os.close(reader)
    os.close(writer)


def test_what_is_no_client_does_not_live(store_dir: Path) -> None:
    with fs.connect(store_dir, capacity="1MiB") as store:
        assert not store._conn.clients.lives(12345)
        store.destroy()


def test_a_forked_child_asks_anew(store_dir: Path) -> None:
    with fs.connect(store_dir, capacity="1MiB") as store:
        mine = store._conn.client
        assert store._conn.clients.lives(mine)

        def ask() -> tuple[bool, bool]:
            return bool(store._conn.clients._watches), store._conn.clients.lives(mine)

        with start(ask) as process:
            assert process.result() == (False, True)
        store.destroy()


def test_what_was_opened_of_dead_clients_is_closed(store_dir: Path) -> None:
    """Also of those that nobody asks about again: each would keep two descriptors and a place."""

    def one_that_dies(store: fs.Store) -> None:
        connected, done = Gate(), Gate()

        def live() -> None:
            assert store._conn.client, "it has a file of its own"
            connected.open()
            done.wait()

        with start(live):
            connected.wait()
            assert store._conn.clients.lives(other_client(store))
        store.recover()

    with fs.connect(store_dir, capacity="1MiB") as store:
        one_that_dies(store)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(4):
            one_that_dies(store)
        assert len(os.listdir("/proc/self/fd")) <= before + 1  # the gates are closed with their last users
        assert len(store._conn.clients._watches) == 1
        store.destroy()
