"""Guests: references for processes that are no clients, protected by a lock that travels."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import flightstore as fs
from flightstore.lifecycle.guests import Guest

SIZE = 1 << 20


def put(store: fs.Store, byte: int, name: str = "x") -> None:
    store.put(bytes([byte]) * SIZE, name)


def churn(store: fs.Store) -> None:
    """Use all memory again that is free."""
    for byte in range(100, 140):
        put(store, byte, f"churn{byte % 8}")
    store.recover()


@pytest.fixture
def store(store_dir: Path) -> fs.Store:
    return fs.connect(store_dir, capacity="16MiB")


@pytest.mark.req("FAIL-1", "INV-1")
def test_what_a_guest_holds_stays_until_it_is_dropped(store: fs.Store) -> None:
    put(store, 1)
    guest = Guest(store._conn)
    held = store.get("x")
    address, number = held._live.payload.address, guest.hold(held)
    held.release()
    store.delete("x")
    churn(store)
    assert bytes(store._conn.arena.readable(address - store._conn.arena.address, SIZE)) == b"\1" * SIZE
    assert store.stats().dying == 1
    guest.drop(number)
    store.recover()
    assert store.stats().dying == 0
    guest.end()
    assert store.fsck() == []


@pytest.mark.req("FAIL-1")
def test_the_end_of_a_guest_gives_everything_back(store: fs.Store) -> None:
    put(store, 1)
    guest = Guest(store._conn)
    guest.hold(store.get("x"))
    store.delete("x")
    clients = store.stats().clients
    guest.end()
    guest.end()
    store.recover()
    assert store.stats().dying == 0
    assert store.stats().clients == clients - 1
    with pytest.raises(fs.StoreClosed):
        guest.hold(fs.connect(store.path).get(store.put(b"y")))


HOST = """
import sys, flightstore as fs
from flightstore.lifecycle.guests import Guest
store = fs.connect(sys.argv[1])
guest = Guest(store._conn)
guest.hold(store.get("x"))
print(guest.shared.name, flush=True)
sys.stdin.read()
"""


@pytest.mark.req("FAIL-1", "INV-1")
def test_a_guest_is_protected_when_its_host_is_killed(store: fs.Store) -> None:
    put(store, 1)
    address = store.get("x")._live.payload.address - store._conn.arena.address
    host = subprocess.Popen(
        [sys.executable, "-c", HOST, store.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert host.stdin is not None
    assert host.stdout is not None
    path = host.stdout.readline().strip()
    # As the guest does with the descriptor that it is sent: the lock is that of the open file.
    ours = os.open(f"/proc/{host.pid}/fd/{shared_descriptor(host.pid, path)}", os.O_RDONLY)
    import fcntl

    fcntl.flock(ours, fcntl.LOCK_SH)
    host.kill()
    host.communicate()
    store.delete("x")
    store.recover()
    churn(store)
    assert store.stats().dying == 1
    assert bytes(store._conn.arena.readable(address, SIZE)) == b"\1" * SIZE
    os.close(ours)
    store.recover()
    assert store.stats().dying == 0
    assert store.fsck() == []


def shared_descriptor(pid: int, path: str) -> int:
    """A read-only descriptor of another process on its guest's file."""
    name = os.path.basename(path)
    for fd in os.listdir(f"/proc/{pid}/fd"):
        if os.path.basename(os.readlink(f"/proc/{pid}/fd/{fd}")) == name:
            return int(fd)
    raise AssertionError(f"{pid} has {path} not open")


@pytest.mark.req("FAIL-1")
def test_a_host_that_leaves_keeps_its_guests_protected(store: fs.Store) -> None:
    put(store, 1)
    guest = Guest(store._conn)
    guest.hold(store.get("x"))
    ours = os.dup(guest.shared.fileno())
    guest.leave()
    store.delete("x")
    store.recover()
    assert store.stats().dying == 1
    os.close(ours)
    del guest
    store.recover()
    assert store.stats().dying == 0
