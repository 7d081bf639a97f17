"""A process that serves stores for the tests: one gateway for each store that they ask for."""

from __future__ import annotations

import contextlib
import pickle
import shutil
import tempfile
import threading
from collections.abc import Callable
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

import flightstore as fs
from flightstore.gateway.access import Caller
from flightstore.gateway.flight import FlightServer
from flightstore.gateway.http import HttpServer
from flightstore.gateway.limits import Limits
from flightstore.gateway.metrics import Metrics
from flightstore.gateway.service import Service
from flightstore.testing.children import Child, start_spawned

TOKENS = {
    "Bearer reader": Caller("reader", "read"),
    "Bearer writer": Caller("writer", "write"),
    "Bearer alice": Caller("alice", "write", ("alice", "shared")),
}


class Everybody:
    """Lets everybody in, as whom the token says."""

    def caller_of(self, authorization: str | None, *, local: bool, certificate: str | None = None) -> Caller:
        """Who calls."""
        if authorization is None:
            return Caller("local", "admin")
        if authorization not in TOKENS:
            raise fs.NotAuthenticated("no such token")
        return TOKENS[authorization]


class Served:
    """A store with its gateway."""

    def __init__(self, capacity: int, ways: str, spill: bool, uploads: int) -> None:
        self.folder = tempfile.mkdtemp(dir="/dev/shm", prefix="flightstore-test-")
        self.spill = tempfile.mkdtemp(prefix="flightstore-test-spill-") if spill else None
        self.store = fs.connect(f"{self.folder}/store", capacity=capacity, spill=self.spill)
        self.service = Service(self.store)
        limits, metrics = Limits(max_uploads=uploads), Metrics()
        self.http: HttpServer | None = None
        self.flight: FlightServer | None = None
        if ways != "flight":
            self.http = HttpServer(self.service, Everybody(), limits, metrics)
            if ways == "unix":
                self.http.start(path=f"{self.folder}/socket")
            else:
                self.http.start("127.0.0.1")
            self.service.http_url = self.http.url
        if ways in ("flight", "both"):
            self.flight = FlightServer(self.service, Everybody(), "grpc://127.0.0.1:0", limits=limits)

    @property
    def url(self) -> str:
        """Where it is."""
        if self.flight is not None:
            return f"grpc://127.0.0.1:{self.flight.port}"
        assert self.http is not None
        return self.http.url

    def end(self) -> list[Any]:
        """Remove it all; returns what was wrong."""
        if self.http is not None:
            self.http.stop(1)
        if self.flight is not None:
            self.flight.stop(60)
        self.service.close()
        self.store.recover()
        findings: list[Any] = list(self.store.fsck())
        self.store.destroy()
        if self.spill is not None:
            findings += list(Path(self.spill).iterdir())
            shutil.rmtree(self.spill)
        shutil.rmtree(self.folder)
        return findings


def serve(address: str) -> None:
    """The process."""
    served: dict[str, Served] = {}
    with Client(address) as connection:
        while True:
            try:
                command, *arguments = connection.recv()
            except EOFError:
                break
            if command == "stop":
                break
            try:
                if command == "make":
                    made = Served(*arguments)
                    served[made.url] = made
                    connection.send((made.url, made.store.path))
                else:
                    connection.send([repr(one) for one in served.pop(arguments[0]).end()])
            except Exception as error:
                connection.send(error)
    for left in served.values():
        left.end()


def serve_one(path: str, way: str, port: int) -> None:
    """A gateway for one store at a port that is known, until it is killed."""
    service = Service(fs.connect(path, create=False))
    if way == "http":
        server = HttpServer(service, Everybody(), Limits(), Metrics())
        server.start("127.0.0.1", port)
        threading.Event().wait()
    else:
        FlightServer(service, Everybody(), f"grpc://127.0.0.1:{port}", limits=Limits()).serve()


def total(raw: bytes) -> int:
    """The sum of an array that travelled here."""
    return int(pickle.loads(raw).value().sum())


def connected(url: str, options: dict[str, Any], function: Callable[..., Any], *args: Any) -> Any:
    """Run a function on a handle, in whichever process this is."""
    with fs.connect(url, **options) as store:
        return function(store, *args)


class Host:
    """The process, as tests have it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.paths: dict[str, str] = {}

    def make(self, capacity: int, ways: str = "http", *, spill: bool = False, uploads: int = 32) -> str:
        """Serve a new store by ``http``, ``unix``, ``flight`` or ``both``; returns the URL."""
        self._connection.send(("make", capacity, ways, spill, uploads))
        answer = self._connection.recv()
        if isinstance(answer, Exception):
            raise answer
        url, path = answer
        self.paths[url] = path
        return str(url)

    def end(self, url: str) -> None:
        """Remove it. Nothing may be wrong with it."""
        self._connection.send(("end", url))
        assert self._connection.recv() == []


@contextlib.contextmanager
def hosting() -> Any:
    """A host."""
    with tempfile.TemporaryDirectory() as folder, Listener(f"{folder}/socket") as listener:
        process: Child[None]
        with start_spawned(serve, f"{folder}/socket") as process:
            with listener.accept() as connection:
                yield Host(connection)
                # Its end alone may not be seen: children that were forked meanwhile have it open, too.
                connection.send(("stop",))
            process.result()
