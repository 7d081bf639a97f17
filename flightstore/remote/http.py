"""The way over HTTP: a few connections that stay open, and payloads received where they will be used.

A connection is used by one request at a time. It goes back to the pool only when the whole answer was read;
after anything else it is closed. A forked child forgets its parent's connections (the parent goes on using
them). One that the gateway has closed meanwhile is noticed before it is used again.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import select
import socket
import threading
import time
import urllib.parse
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pyarrow as pa

from flightstore.errors import FlightStoreError, GatewayUnreachable, ObjectNotFound, StoreClosed
from flightstore.remote.address import Address, Credentials
from flightstore.remote.private import private_memory
from flightstore.remote.transport import REPEATABLE, Timeouts, pieces_of, unreachable
from flightstore.wire.faults import Fault, error_of
from flightstore.wire.frames import PREFIX_BYTES, FrameHeader, header_bytes, packed, unpacked
from flightstore.wire.messages import Info, decode

__all__ = ["HttpTransport"]

T = TypeVar("T")

_IDLE_CONNECTIONS = 8
_IDLE_S = 15.0  # well below the time after which a gateway closes what is idle
_SLICE_BYTES = 4 << 20
_ATTEMPTS = 2
_ACKNOWLEDGE = "x-flightstore-acknowledge"
_LONGEST_FAULT_BYTES = 1 << 20

_transports: weakref.WeakSet[HttpTransport] = weakref.WeakSet()


class HttpTransport:
    """Requests to one gateway over HTTP/1.1, on TCP, TLS or a unix socket."""

    def __init__(self, address: Address, credentials: Credentials, timeouts: Timeouts) -> None:
        self._address = address
        self._timeouts = timeouts
        self._tls = credentials.ssl_context() if address.tls else None
        self._headers = {"Authorization": f"Bearer {credentials.token}"} if credentials.token else {}
        self._lock = threading.Lock()
        self._idle: list[tuple[_Connection, float]] = []
        self._closed = False
        _transports.add(self)

    @property
    def url(self) -> str:
        return self._address.url

    def act(self, action: str, request: bytes, *, session: str | None, wait_s: float = 0) -> bytes:
        call = _Call("POST", f"/actions/{action}", [memoryview(request)], len(request), wait_s)
        call.repeatable = action in REPEATABLE
        if action == "hello":
            call.timeout_s = self._timeouts.connect_s
        call.headers["Content-Type"] = "application/json"
        return self._answered(call, session, _whole)

    def get_frame(self, ref: str, *, session: str | None) -> tuple[FrameHeader, pa.Buffer]:
        path = f"/frames/{urllib.parse.quote(ref, safe='')}"
        for _ in range(_ATTEMPTS):
            call = _Call("GET", f"{path}?acknowledge=1", [], 0, 0)
            call.repeatable = True
            header, payload, token = self._answered(call, session, _frame)
            if token is None or self._acknowledged(token, session):
                return header, payload
        call = _Call("GET", path, [], 0, 0)
        call.repeatable = True
        return self._answered(call, session, _frame)[:2]

    def _acknowledged(self, token: str, session: str | None) -> bool:
        """Say that all was read; whether the gateway had kept it as it was until now."""
        call = _Call("POST", f"/acknowledgements/{token}", [memoryview(b"")], 0, 0)
        try:
            self._answered(call, session, _whole)
        except (ObjectNotFound, GatewayUnreachable):
            return False
        return True

    def put_frame(
        self, header: FrameHeader, pieces: Sequence[tuple[int, Any]], *, session: str | None, wait_s: float
    ) -> Info:
        head = packed(header)
        runs = pieces_of(head, header.size_bytes, pieces)
        call = _Call("PUT", "/frames", runs, len(head) + header.size_bytes, wait_s)
        call.headers["Content-Type"] = "application/vnd.flightstore.frame"
        return decode(self._answered(call, session, _whole), Info)

    def rest(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection, _ in idle:
            connection.close()

    def close(self) -> None:
        self._closed = True
        self.rest()

    # --- one request ---

    def _answered(self, call: _Call, session: str | None, receive: Callable[[_Response], T]) -> T:
        call.headers.update(self._headers)
        if session is not None:
            call.headers["X-Flightstore-Session"] = urllib.parse.quote(session, safe="")
        try:
            return self._attempt(call, receive)
        except GatewayUnreachable as error:
            if not call.repeatable or not call.sent or isinstance(error.__cause__, TimeoutError):
                raise
        call.sent = False
        return self._attempt(call, receive)

    def _attempt(self, call: _Call, receive: Callable[[_Response], T]) -> T:
        connection = self._take()
        well = False
        try:
            try:
                connection.ready(call.timeout_s or self._timeouts.request_s + call.wait_s)
                call.send(connection)
                response = connection.getresponse()
                if 200 <= response.status < 300:
                    result = receive(response)
                    well = response.isclosed() and not response.will_close
                    return result
                fault = response.read(_LONGEST_FAULT_BYTES)
                well = response.isclosed() and not response.will_close and call.is_whole
            except (OSError, http.client.HTTPException) as error:
                raise unreachable(self.url, error, sent=call.sent) from error
            raise _error_in(fault, response, self.url)
        finally:
            if well:
                self._give_back(connection)
            else:
                connection.close()

    # --- the pool ---

    def _take(self) -> _Connection:
        while True:
            with self._lock:
                if self._closed:
                    raise StoreClosed("this store handle was closed", hint="connect again")
                if not self._idle:
                    break
                connection, since = self._idle.pop()
            if time.monotonic() - since < _IDLE_S and not connection.has_something_to_read():
                return connection
            connection.close()
        return _Connection(self._address, self._tls, self._timeouts.connect_s)

    def _give_back(self, connection: _Connection) -> None:
        with self._lock:
            if not self._closed and len(self._idle) < _IDLE_CONNECTIONS:
                self._idle.append((connection, time.monotonic()))
                return
        connection.close()

    def forget(self) -> None:
        """In a forked child: begin with no connections, and a lock that nobody holds."""
        self._lock = threading.Lock()
        idle, self._idle = self._idle, []
        for connection, _ in idle:
            connection.close()


class _Connection(http.client.HTTPConnection):
    """A connection to a gateway, made when it is first needed."""

    def __init__(self, address: Address, tls: Any, timeout_s: float) -> None:
        super().__init__(address.host or "localhost", address.port or None, timeout=timeout_s)
        self._address = address
        self._tls = tls

    def connect(self) -> None:
        address = self._address
        if address.path:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self.timeout)
            self.sock.connect(address.path)
            return
        self.sock = socket.create_connection((address.host, address.port), self.timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:
            self.sock = self._tls.wrap_socket(self.sock, server_hostname=address.host)

    def ready(self, timeout_s: float) -> None:
        """Connect, if that is to be done, and set how long to wait for each sign of life."""
        if self.sock is None:
            self.connect()
        sock: Any = self.sock
        sock.settimeout(timeout_s)

    def has_something_to_read(self) -> bool:
        """Whether the gateway said something that nobody asked for, such as that it is gone."""
        sock = self.sock
        return sock is None or bool(select.select([sock], [], [], 0)[0])

    def can_hear_early(self) -> bool:
        """Whether an answer can be told from what TLS says for itself."""
        return self._tls is None


_Response = http.client.HTTPResponse


class _Call:
    """A request."""

    def __init__(
        self, method: str, path: str, body: Sequence[memoryview], length: int, wait_s: float
    ) -> None:
        self.method = method
        self.path = path
        self.body = body
        self.length = length
        self.wait_s = wait_s
        self.headers: dict[str, str] = {}
        self.repeatable = False
        self.timeout_s = 0.0
        """How long to wait for each sign of life; 0 for what is usual."""
        self.sent = False
        """Whether something of it may have arrived."""
        self.is_whole = False
        """Whether all of it was sent."""

    def send(self, connection: _Connection) -> None:
        """Send it; stops when the gateway answers before it has heard all."""
        connection.putrequest(self.method, self.path)
        for name, value in self.headers.items():
            connection.putheader(name, value)
        if self.method != "GET":
            connection.putheader("Content-Length", str(self.length))
        self.sent, self.is_whole = True, False
        if len(self.body) == 1 and self.length <= _SLICE_BYTES:
            connection.endheaders(bytes(self.body[0]))  # in one packet, if it is small
        else:
            connection.endheaders()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # then there may be an answer
                if not self._send_body(connection):
                    return
        self.is_whole = True

    def _send_body(self, connection: _Connection) -> bool:
        sock, early = connection.sock, connection.can_hear_early()
        for run in self.body:
            for at in range(0, run.nbytes, _SLICE_BYTES):
                if early and connection.has_something_to_read():
                    return False
                sock.sendall(run[at : at + _SLICE_BYTES])
        return True


def _whole(response: _Response) -> bytes:
    return response.read()


def _frame(response: _Response) -> tuple[FrameHeader, pa.Buffer, str | None]:
    """The header and payload of a frame, and the token to acknowledge it by. The payload goes straight to
    where it stays. With a token it may consist of references to the store's own pages, on their way: it is
    what it should be only if the acknowledgement is accepted.
    """
    head = header_bytes(_exactly(response, PREFIX_BYTES))
    header = unpacked(_exactly(response, head))
    if response.length is not None and response.length != header.size_bytes:
        raise http.client.IncompleteRead(b"", header.size_bytes)
    target, buffer = private_memory(header.size_bytes)
    at = 0
    while at < header.size_bytes:
        received = response.readinto(target[at:])
        if not received:
            raise http.client.IncompleteRead(b"", header.size_bytes - at)
        at += received
    response.read()  # there is nothing more, and the connection is free again
    return header, buffer, response.getheader(_ACKNOWLEDGE)


def _exactly(response: _Response, nbytes: int) -> bytes:
    raw = response.read(nbytes)
    if len(raw) < nbytes:
        raise http.client.IncompleteRead(raw, nbytes - len(raw))
    return raw


def _error_in(raw: bytes, response: _Response, url: str) -> FlightStoreError:
    """What an answer that is not OK says."""
    try:
        return error_of(decode(raw, Fault))
    except FlightStoreError:
        return GatewayUnreachable(
            f"what answers at {url} is no gateway of flightstore: {response.status} {response.reason}",
            hint="is it the URL of flightstore serve, and no proxy between?",
        )


def _after_fork() -> None:
    for transport in list(_transports):
        transport.forget()


os.register_at_fork(after_in_child=_after_fork)
