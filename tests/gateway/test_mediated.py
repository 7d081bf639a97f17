"""Mapping the store from where nobody can be its client, through the gateway's socket."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import flightstore as fs
from flightstore.errors import NotAllowed, ObjectNotFound
from flightstore.gateway.access import Caller
from flightstore.gateway.mediated import MediatedServer
from flightstore.gateway.service import Service
from flightstore.objects.registry import open_object
from flightstore.remote.mediated import Mapping
from flightstore.store.view import View

ROWS = 200_000


class Known:
    """An authenticator that knows everybody by the same name."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller

    def caller_of(self, authorization: str | None, *, local: bool, certificate: str | None = None) -> Caller:
        assert local
        return self.caller


def table(seed: int) -> pa.Table:
    return pa.table({"n": np.full(ROWS, seed, np.int64), "s": [f"{seed}-{i % 10}" for i in range(ROWS)]})


@pytest.fixture
def store(store_dir: Path) -> Iterator[fs.Store]:
    with fs.connect(store_dir, capacity="64MiB") as store:
        yield store


@pytest.fixture
def gateway(store: fs.Store, store_dir: Path) -> Iterator[MediatedServer]:
    service = Service(fs.connect(store_dir))
    server = MediatedServer(service, Known(Caller("local", "admin")), f"{store_dir}.map")
    server.start()
    yield server
    server.stop()
    service.close()


def churn(store: fs.Store) -> None:
    for number in range(30):
        store.put(table(1000 + number), f"churn{number % 4}")
    store.recover()


READER = """
import json, os, sys, threading
import pyarrow as pa
from flightstore.objects.registry import open_object
from flightstore.remote.mediated import Mapping

class NoStore:
    def holders_of(self, serial): return []
    def departing(self, object_id): raise NotImplementedError

mapping = Mapping(sys.argv[1])
table = open_object(mapping.get(lambda object_id: NoStore(), "t")).to_arrow()
address = table.column("n").chunk(0).buffers()[1].address
where = [line for line in open("/proc/self/maps")
         if int(line.split("-")[0], 16) <= address < int(line.split()[0].split("-")[1], 16)]
print(json.dumps({"maps": where[0].split(), "pid": os.getpid()}), flush=True)
for line in sys.stdin:  # what it reads, each time it is asked
    print(json.dumps([table.column("n").unique().to_pylist(), table.num_rows]), flush=True)
"""


class Reader:
    """A process that maps the table ``t`` and reads it when it is told to."""

    def __init__(self, path: str, *prefix: str) -> None:
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-c", READER, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the reader did not start"
        self.start = json.loads(line)

    def read(self) -> list[object]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        seen: list[object] = json.loads(self.process.stdout.readline())
        return seen

    def kill(self) -> None:
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as children:
            below = [int(pid) for pid in children.read().split()]
        for pid in (*below, self.process.pid):
            os.kill(pid, signal.SIGKILL)
        self.process.communicate()


UNSHARED_PIDS = ("unshare", "--pid", "--fork", "--mount-proc")


def read_only(store_dir: Path) -> tuple[str, ...]:
    parent = store_dir.parent
    mounting = f'mount --bind {parent} {parent} && mount -o remount,ro,bind {parent} && exec "$@"'
    return ("unshare", "--mount", "sh", "-c", mounting, "reader")


def settled(store: fs.Store, dying: int) -> bool:
    """Whether, once the gateway has noticed what happened, so many deleted objects are still held."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        store.recover()
        if store.stats().dying == dying:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.needs("root", "unshare", "mount")
@pytest.mark.req("GW-4", "FAIL-1")
@pytest.mark.parametrize("how", ["another pid namespace", "a read-only mount"])
def test_tables_are_mapped_and_protected(
    store: fs.Store, gateway: MediatedServer, store_dir: Path, how: str
) -> None:
    store.put(table(1), "t")
    prefix = UNSHARED_PIDS if how == "another pid namespace" else read_only(store_dir)
    reader = Reader(gateway.path, *prefix)
    try:
        assert reader.start["maps"][1] == "r--s"
        assert reader.start["maps"][5].endswith("/arena")
        store.delete("t")
        churn(store)
        assert reader.read() == [[1], ROWS]
        assert settled(store, 1)
    finally:
        reader.kill()
    assert settled(store, 0)
    assert store.fsck() == []


GATEWAY = """
import sys
import flightstore as fs
from flightstore.gateway.access import Caller
from flightstore.gateway.mediated import MediatedServer
from flightstore.gateway.service import Service

class Anybody:
    def caller_of(self, authorization, *, local, certificate=None): return Caller("local", "admin")

MediatedServer(Service(fs.connect(sys.argv[1])), Anybody(), sys.argv[2]).start()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.req("FAIL-1", "INV-1")
def test_a_reader_is_protected_when_the_gateway_is_killed(store: fs.Store, store_dir: Path) -> None:
    store.put(table(1), "t")
    path = f"{store_dir}.map"
    gateway = subprocess.Popen(
        [sys.executable, "-c", GATEWAY, str(store_dir), path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert gateway.stdout is not None
    assert gateway.stdout.readline() == "ready\n"
    reader = Reader(path)
    try:
        gateway.kill()
        gateway.communicate()
        store.delete("t")
        store.recover()
        churn(store)
        assert reader.read() == [[1], ROWS]
        assert store.stats().dying == 1
    finally:
        reader.kill()
    store.recover()
    assert store.stats().dying == 0
    assert store.fsck() == []


@pytest.mark.req("FAIL-1")
def test_a_gateway_that_stops_leaves_its_readers_protected(store: fs.Store, gateway: MediatedServer) -> None:
    store.put(table(1), "t")
    reader = Reader(gateway.path)
    try:
        gateway.stop()
        store.delete("t")
        store.recover()
        churn(store)
        assert reader.read() == [[1], ROWS]
    finally:
        reader.kill()


def opened(store: fs.Store, mapping: Mapping, ref: str) -> fs.Object:
    handle = mapping.get(lambda object_id: View(store._conn, 0), ref)
    assert handle is not None
    return open_object(handle)


@pytest.mark.req("GW-4")
def test_composed_and_empty_objects_and_values_of_all_kinds(store: fs.Store, gateway: MediatedServer) -> None:
    store.put(table(1), "t")
    store.with_columns("t", {"more": np.arange(ROWS)}, "u")
    store.put(np.arange(12).reshape(3, 4), "tensor")
    store.put(b"", "nothing")
    store.put({"any": "thing"}, "object", metadata={"k": 1})
    mapping = Mapping(gateway.path)
    assert opened(store, mapping, "u").value().equals(store.get("u").value())
    assert (opened(store, mapping, "tensor").value() == np.arange(12).reshape(3, 4)).all()
    assert bytes(opened(store, mapping, "nothing").value()) == b""
    assert opened(store, mapping, "object").value() == {"any": "thing"}
    assert opened(store, mapping, "object").metadata == {"k": 1}
    with pytest.raises(ObjectNotFound):
        mapping.get(lambda object_id: View(store._conn, 0), "no such")


@pytest.mark.req("GW-4")
def test_references_are_given_back_one_by_one(store: fs.Store, gateway: MediatedServer) -> None:
    store.put(table(1), "t")
    mapping = Mapping(gateway.path)
    first, second = opened(store, mapping, "t"), opened(store, mapping, "t")
    view = first.value()
    store.delete("t")
    first.release()
    second.release()
    assert settled(store, 1)
    del view
    assert settled(store, 0)


@pytest.mark.req("GW-4", "INV-1")
def test_what_a_forked_child_inherits_stays(store: fs.Store, gateway: MediatedServer) -> None:
    store.put(table(1), "t")
    mapping = Mapping(gateway.path)
    inherited = opened(store, mapping, "t")
    view = inherited.value()
    here, there = socket.socketpair()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            there.recv(1)  # the parent has let go, and the memory would have been used again
            assert view.column("n").unique().to_pylist() == [1]
            assert opened(store, mapping, "churn1").value().num_rows == ROWS  # over its own connection
            status = 0
        finally:
            os._exit(status)
    inherited.release()
    del view
    store.delete("t")
    store.recover()
    churn(store)
    here.send(b"x")
    assert os.waitpid(pid, 0)[1] == 0
    here.close()
    there.close()
    assert opened(store, mapping, "churn1").value().num_rows == ROWS


@pytest.mark.req("GW-5")
def test_callers_of_some_sessions_only_cannot_map(store: fs.Store, store_dir: Path) -> None:
    service = Service(fs.connect(store_dir))
    server = MediatedServer(service, Known(Caller("a", "read", ("A",))), f"{store_dir}.map")
    server.start()
    try:
        with pytest.raises(NotAllowed, match="some sessions only"):
            Mapping(server.path)
    finally:
        server.stop()
        service.close()


@pytest.mark.req("GW-6")
def test_rubbish_on_the_socket_ends_that_connection_only(store: fs.Store, gateway: MediatedServer) -> None:
    store.put(table(1), "t")
    for rubbish in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x05\0\0\0{]{]{", b"\2\0\0\0{}\2\0\0\0{]"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(gateway.path)
            connection.sendall(rubbish)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(60)
            with contextlib.suppress(ConnectionResetError):
                while connection.recv(4096):
                    pass
    assert opened(store, Mapping(gateway.path), "t").value().num_rows == ROWS


def test_the_socket_is_its_owners_alone(gateway: MediatedServer) -> None:
    assert os.stat(gateway.path).st_mode & 0o777 == 0o600


def test_more_clients_than_allowed_are_refused(store: fs.Store, store_dir: Path) -> None:
    service = Service(fs.connect(store_dir))
    server = MediatedServer(service, Known(Caller("local", "admin")), f"{store_dir}.map", max_clients=1)
    server.start()
    try:
        store.put(b"x", "x")
        first = Mapping(server.path)
        with pytest.raises(fs.GatewayBusy):
            Mapping(server.path)
        assert opened(store, first, "x").value() == b"x"
    finally:
        server.stop()
        service.close()
