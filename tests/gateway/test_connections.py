"""How a gateway finds the connections of a library that hides them: other descriptors stay as they are."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import flightstore as fs
from flightstore.gateway.connections import Connections
from flightstore.gateway.flight import FlightServer
from flightstore.gateway.limits import Limits
from flightstore.gateway.service import Service
from flightstore.testing.children import child

from .conftest import Everybody

pytestmark = pytest.mark.req("GW-6", "INV-2")


def locks_on(path: Path) -> list[str]:
    """This process's record locks on a file, as the kernel lists them."""
    status = os.stat(path)
    where = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return sorted(
        " ".join(words[1:]) for words in lines if where in words and str(os.getpid()) in (words[4], words[3])
    )


def catalog_locks(store: fs.Store) -> list[str]:
    store.list()  # it has been read: there is the lock by which others know that its readers live
    return locks_on(Path(store.path, "catalog/lock.mdb"))


def test_all_are_found(store: fs.Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client, server.accept()[0]:
            found = [connection.peer for connection in Connections(port, None)]
            assert found == [f"ipv4:127.0.0.1:{client.getsockname()[1]}"]


def test_looking_at_them_drops_no_lock(store: fs.Store) -> None:
    before = catalog_locks(store)
    assert len(before) == 2, "that the catalog is open, and that this process lives"
    assert list(Connections(1, None)) == []
    assert locks_on(Path(store.path, "catalog/lock.mdb")) == before


def test_nor_when_a_file_takes_a_sockets_number(store: fs.Store) -> None:
    """Between the look at a descriptor and its duplication."""

    def look() -> bool:
        with fs.connect(store.path) as own:
            before = catalog_locks(own)
            os.readlink = lambda path: "socket:[1]"  # type: ignore[assignment]
            assert list(Connections(1, None)) == []
            return len(before) == 2 and locks_on(Path(own.path, "catalog/lock.mdb")) == before

    assert child(look)


def test_a_gateway_that_watches_its_clients_keeps_its_readers(
    store: fs.Store, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that clears the slots of dead readers leaves this one's alone."""
    looks = 0
    plain = Connections.__iter__

    def counted(self: Connections) -> object:
        nonlocal looks
        looks += 1
        return plain(self)

    monkeypatch.setattr(Connections, "__iter__", counted)
    before = catalog_locks(store)
    server = FlightServer(service, Everybody(), "grpc://127.0.0.1:0", limits=Limits(idle_timeout_s=0.04))
    while looks < 5:
        store.list()
    cleared = subprocess.run(
        [sys.executable, "-c", CLEARING, store.path], capture_output=True, text=True, check=True, timeout=60
    )
    assert cleared.stdout == "0\n"
    assert locks_on(Path(store.path, "catalog/lock.mdb")) == before
    assert store.list() == []
    assert server.stop(10)


CLEARING = """
import sys, flightstore
with flightstore.connect(sys.argv[1]) as store:
    print(store._conn.catalog.clear_stale_readers())
"""
