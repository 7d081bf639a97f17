"""A gateway's HTTP server for tests, and a client that reads answers whole."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import flightstore
from flightstore.errors import NotAuthenticated
from flightstore.gateway.access import ADMIN, Caller
from flightstore.gateway.http import HttpServer
from flightstore.gateway.limits import Limits
from flightstore.gateway.metrics import Metrics
from flightstore.gateway.service import Service
from flightstore.store.local import Store

__all__ = ["Answer", "Callers", "HttpClient", "HttpGateway", "http_gateway"]


@dataclass
class Callers:
    """Knows callers by their whole Authorization header; everybody, when it knows nobody."""

    known: Mapping[str, Caller] | None = None

    def caller_of(self, authorization: str | None, *, local: bool, certificate: str | None = None) -> Caller:
        """Who calls."""
        if self.known is None:
            return Caller("local", ADMIN)
        if authorization is None or authorization not in self.known:
            raise NotAuthenticated("this gateway wants a token")
        return self.known[authorization]


@dataclass
class Answer:
    """One answer, read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class HttpClient:
    """One connection at a time, kept open as long as both want."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self.connection = connection

    def __call__(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, **more: Any
    ) -> Answer:
        """Ask, and read the answer."""
        self.connection.request(method, path, body, dict(headers or {}), **more)
        response = self.connection.getresponse()
        return Answer(response.status, dict(response.headers.items()), response.read())

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


@dataclass
class HttpGateway:
    """A running server."""

    store: Store
    service: Service
    server: HttpServer
    metrics: Metrics
    port: int
    clients: list[HttpClient] = field(default_factory=list)

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """The server does nothing while the block runs, so that no time is over for a client that is slow.
        Connecting and sending 1 MiB need no server, only the kernel.
        """
        go_on = threading.Event()
        self.server._loop.call_soon_threadsafe(go_on.wait)
        try:
            yield
        finally:
            go_on.set()

    def client(self, timeout_s: float = 30) -> HttpClient:
        """A client of its own connection, closed at the end at the latest."""
        client = HttpClient(http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s))
        self.clients.append(client)
        return client

    def socket(self, timeout_s: float = 30, *, receive_bytes: int | None = None) -> socket.socket:
        """A bare connection; with a receive buffer of about that size."""
        sock = socket.socket()
        if receive_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        sock.settimeout(timeout_s)
        sock.connect(("127.0.0.1", self.port))
        return sock


@contextlib.contextmanager
def http_gateway(
    store_dir: Any,
    *,
    capacity: int | str = "64MiB",
    limits: Limits | None = None,
    callers: Callers | None = None,
    **listen: Any,
) -> Iterator[HttpGateway]:
    """A store at `store_dir` and a server of it on 127.0.0.1, both gone afterwards."""
    store = flightstore.connect(store_dir, capacity=capacity)
    service = Service(store)
    metrics = Metrics()
    server = HttpServer(service, callers or Callers(), limits or Limits(), metrics, by_reference=True)
    try:
        server.start(**(listen or {"host": "127.0.0.1"}))
        gateway = HttpGateway(store, service, server, metrics, server.port)
        yield gateway
        for client in gateway.clients:
            client.close()
    finally:
        server.stop(1)
        service.close()
        store.destroy()
