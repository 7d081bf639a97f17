"""Connections of the HTTP server: how many there are, and that none stays longer than it may.

aiohttp's protocol is wrapped, not changed: everything is handed on. A client that sends no whole request is
cut off by aiohttp's own timer; one that does not take what is buffered for it, by the sweep here.
"""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Callable

from aiohttp import web

from flightstore.gateway.http_receiving import Incoming, head_of

__all__ = ["Connection", "Connections"]

_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%s"
)
_REFUSAL_TEXT = (
    b'{"error":"GatewayBusy","message":"the gateway has as many connections as it takes","hint":"try later"}'
)
_SCRATCH_BYTES = 256 << 10
_COLLECT_S = 1.0
_REFUSED_S = 1.0  # how long a refused client may take to read so


class Connections:
    """All connections of a server.

    Args:
        limit: How many there may be.
        closing_s: How long a client may leave what is buffered for it.
    """

    def __init__(self, limit: int, closing_s: float) -> None:
        self._limit = limit
        self._closing_s = closing_s
        # Weak: a TLS connection whose handshake fails is made, and never lost.
        self._open: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._of: dict[asyncio.BaseProtocol, Connection] = {}
        self._collected = 0.0
        self.scratch = memoryview(bytearray(_SCRATCH_BYTES))
        """What is received for aiohttp; handed on at once, so one is enough."""

    def __len__(self) -> int:
        return len(self._open)

    def factory(self, server: web.Server, *, local: bool) -> Callable[[], asyncio.BaseProtocol]:
        """What makes the protocol of each new connection of a listener."""

        def make() -> asyncio.BaseProtocol:
            if self._is_full():
                return _Refused()
            connection = Connection(self, server(), local)
            self._open.add(connection)
            return connection

        return make

    def _is_full(self) -> bool:
        if len(self._open) < self._limit:
            return False
        now = time.monotonic()
        if len(self._of) < len(self._open) and now - self._collected > _COLLECT_S:
            # asyncio leaves a connection whose handshake failed to the garbage collector.
            self._collected = now
            gc.collect()
        return len(self._open) >= self._limit

    def of(self, request: web.BaseRequest) -> Connection | None:
        """The connection that a request came by; None when it is gone."""
        return self._of.get(request.protocol)

    def made(self, connection: Connection) -> None:
        self._of[connection.inner] = connection

    def lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._of.pop(connection.inner, None)

    async def abort(self, timeout_s: float) -> None:
        """Cut all of them off; returns when they are gone."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        while self._open and loop.time() < end:
            for connection in list(self._of.values()):
                if connection.transport is not None:
                    connection.transport.abort()
            await asyncio.sleep(0.005)

    async def sweep(self) -> None:
        """Cut off those that are over, or whose buffer is full, and that take nothing. Runs until it is
        cancelled.
        """
        loop = asyncio.get_running_loop()
        since: weakref.WeakKeyDictionary[Connection, float] = weakref.WeakKeyDictionary()
        while True:
            await asyncio.sleep(self._closing_s / 4)
            for connection in list(self._of.values()):
                transport = connection.transport
                if transport is None or not (transport.is_closing() or connection.is_full):
                    since.pop(connection, None)
                elif loop.time() - since.setdefault(connection, loop.time()) >= self._closing_s:
                    transport.abort()


class Connection(asyncio.BufferedProtocol):
    """One connection."""

    def __init__(self, all_of_them: Connections, inner: web.RequestHandler, local: bool) -> None:
        self._all = all_of_them
        self.inner = inner
        self.local = local
        """Whether it came by a unix socket or the loopback interface."""
        self.transport: asyncio.Transport | None = None
        self.when_lost: set[Callable[[], None]] = set()
        """Called once, when it is gone."""
        self.is_full = False
        """Whether the client has yet to take what was written."""
        self.incoming: Incoming | None = None
        """The body that is received past aiohttp."""
        self._begins = True  # whether the next bytes begin a request, as far as is known
        self._left: int | None = 0  # bytes of the request that have not come; None for not known

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._all.made(self)
        self.inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._all.lost(self)
        if self.incoming is not None:
            self.incoming.lost()
        self.inner.connection_lost(exc)
        for call in list(self.when_lost):
            call()

    def get_buffer(self, sizehint: int) -> memoryview:
        scratch = self._all.scratch
        return scratch if self.incoming is None else self.incoming.buffer(scratch)

    def buffer_updated(self, nbytes: int) -> None:
        if self.incoming is None:
            self._read(bytes(self._all.scratch[:nbytes]))
            return
        self.incoming.received(nbytes)
        if self._begins:  # it was answered already
            self._forget()

    def _read(self, data: bytes) -> None:
        """Bytes for aiohttp, or the beginning of what is not."""
        if self._begins:
            self._begins = False
            head = head_of(data)
            self._left = None if head is None else head.size_bytes + head.body_bytes
            if head is not None and head.without_body is not None and self.transport is not None:
                early = memoryview(data)[head.size_bytes :]
                self.incoming = Incoming(self.transport, head.body_bytes, early)
                data = head.without_body
                self._left = len(data)
        if self._left is not None:
            self._left = self._left - len(data) if self._left >= len(data) else None
        self.inner.data_received(data)

    def answered(self) -> int:
        """A request was answered. Returns how many bytes of its body came past aiohttp."""
        self._begins = self._left == 0
        if self.incoming is None:
            return 0
        taken = self.incoming.length - self.incoming.left
        self.incoming.drop()
        self._forget()
        return taken

    def _forget(self) -> None:
        if self.incoming is not None and self.incoming.is_over:
            self.incoming = None

    def eof_received(self) -> None:
        self.inner.eof_received()

    def pause_writing(self) -> None:
        self.is_full = True
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        self.is_full = False
        self.inner.resume_writing()


class _Refused(asyncio.Protocol):
    """One connection too many: told so, whatever it asks."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(_REFUSAL % (len(_REFUSAL_TEXT), _REFUSAL_TEXT))
        if transport.can_write_eof():
            transport.write_eof()
        # Closed at once, the answer would be lost together with the request that nobody read.
        asyncio.get_running_loop().call_later(_REFUSED_S, transport.abort)
