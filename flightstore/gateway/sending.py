"""The store's memory on its way into a connection: no copy but the kernel's.

asyncio's transports copy what the kernel does not take at once, so the body of a long answer goes past them:
aiohttp writes the headers; when its buffer is empty the body is sent on a duplicate of the connection's
socket, by threads, which the lock of the interpreter does not hold up. A reader who takes nothing holds no
thread: when the socket is full the event loop waits for it. aiohttp counts no bytes of a body whose length it
was told, so the connection is as good as before afterwards. TLS connections are written to as usual.

Two ways:

- `send` copies into the kernel. Once it has returned, the bytes in flight are the kernel's own.
- `sendfile` queues references to the file's pages. Whoever uses it must keep the bytes what they are until
  the receiver has said that it has all of them.

Whatever the way, the bytes are kept by whoever calls, until the call ends. Memory that the store has borrowed
cannot be kept so: it is sent as copies, each of which was found right after it was made (`Checked`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from flightstore.errors import ObjectLost
from flightstore.gateway.threads import Threads

__all__ = ["DIRECT_BYTES", "Checked", "File", "FilePart", "Sender", "Views", "abort", "cut"]

_log = logging.getLogger("flightstore.gateway.http")

DIRECT_BYTES = 64 << 10
"""Shorter bodies are copied into one write together with the headers."""
_TLS_PIECE_BYTES = 256 << 10
_COPIED_BYTES = 1 << 20
_VECTORS = 64  # views handed to the kernel in one call
_SENDFILE_BYTES = 1 << 30
_PATIENCE_MS = 20  # how long a thread waits for room in the socket before it gives the connection back
_TURN_S = 0.25  # how long one connection may keep a thread while others wait for one
_ZEROS = bytes(4096)


class _Source(Protocol):
    """What is to be sent."""

    left: int
    """Bytes not sent yet."""

    def send(self, sock: socket.socket) -> int:
        """Hand some to the kernel. Returns how many it took.

        Raises:
            BlockingIOError: none, for now.
        """
        ...


class Views:
    """Pieces of memory, sent one after the other."""

    def __init__(self, views: Sequence[memoryview]) -> None:
        self._views = views
        self._at = 0
        self._done = 0
        self.left = sum(len(view) for view in views)

    def send(self, sock: socket.socket) -> int:
        first = self._views[self._at][self._done :]
        sent = sock.sendmsg([first, *self._views[self._at + 1 : self._at + _VECTORS]])
        self.left -= sent
        self._done += sent
        while self._at < len(self._views) and self._done >= len(self._views[self._at]):
            self._done -= len(self._views[self._at])
            self._at += 1
        return sent

    def pieces(self, nbytes: int) -> Iterator[memoryview]:
        """All of it, in pieces up to that size."""
        for view in self._views:
            for at in range(0, len(view), nbytes):
                yield view[at : at + nbytes]


class Checked(Views):
    """Pieces of memory that may become others: each is copied, and the copy sent if it was right until then.

    Args:
        views: The pieces.
        check: Raises when what was read until then may be wrong.
    """

    def __init__(self, views: Sequence[memoryview], check: Callable[[], None]) -> None:
        super().__init__(views)
        self._check = check
        self._copies = self.pieces(_COPIED_BYTES)
        self._copy = memoryview(b"")

    def send(self, sock: socket.socket) -> int:
        if not self._copy:
            self._copy = next(self._copies)
        sent = sock.send(self._copy)
        self._copy = self._copy[sent:]
        self.left -= sent
        return sent

    def pieces(self, nbytes: int) -> Iterator[memoryview]:
        for piece in super().pieces(nbytes):
            copy = bytes(piece)
            self._check()
            yield memoryview(copy)


class File:
    """A file open for reading, as long as somebody refers to it."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


class FilePart:
    """Some bytes and a part of a file, sent by reference: see above for what that asks of the caller."""

    def __init__(self, head: bytes, file: File, offset: int, nbytes: int) -> None:
        self._head = memoryview(head)
        self._file = file
        self._offset = offset
        self.left = len(head) + nbytes

    def send(self, sock: socket.socket) -> int:
        if self._head:
            sent = sock.send(self._head, socket.MSG_MORE)
            self._head = self._head[sent:]
            self.left -= sent
            return sent
        count = min(self.left, _SENDFILE_BYTES)
        sent = os.sendfile(sock.fileno(), self._file.descriptor, self._offset, count)
        if not sent:
            raise ConnectionResetError("the file ends too early")
        self._offset += sent
        self.left -= sent
        return sent


def cut(
    pieces: Iterable[tuple[int, Any]],
    size: int,
    start: int = 0,
    stop: int | None = None,
    check: Callable[[], None] | None = None,
) -> Views:
    """The bytes from `start` to `stop` of pieces (offset, bytes-like); zeros between them, `size` in all.

    `check`, if there is one, raises once they may have become others.
    """
    stop = size if stop is None else stop
    views: list[memoryview] = []
    at = 0

    def take(view: memoryview) -> None:
        nonlocal at
        part = view[max(start - at, 0) : max(stop - at, 0)]
        if len(part):
            views.append(part)
        at += len(view)

    def zeros(nbytes: int) -> None:
        for done in range(0, nbytes, len(_ZEROS)):
            take(memoryview(_ZEROS)[: nbytes - done])

    for offset, data in pieces:
        zeros(offset - at)
        view = memoryview(data)
        if view.nbytes:
            take(view.cast("B") if view.format != "B" or view.ndim != 1 else view)
    zeros(size - at)
    return Views(views) if check is None else Checked(views, check)


def abort(request: web.BaseRequest) -> None:
    """End a connection at once, in a way that its client cannot take for the end of the answer."""
    transport = request.transport
    if transport is not None:
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


class Sender:
    """Sends bodies; one for a server."""

    def __init__(self, idle_timeout_s: float, threads: int) -> None:
        self._idle_s = idle_timeout_s
        self._threads = Threads(threads, "flightstore-http-send")

    def close(self) -> None:
        """Send nothing more."""
        self._threads.shutdown()

    async def send(self, request: web.BaseRequest, response: web.StreamResponse, source: _Source) -> None:
        """Answer with headers and a body. The response must be a plain one; its length is set here.

        A client that goes, or that takes nothing for the idle timeout, loses the connection; no error is
        raised then. So it is when borrowed memory is lost: the client sees an answer that breaks off.
        """
        response.content_length = source.left
        try:
            writer = await response.prepare(request)
            if request.method != "HEAD" and writer is not None:
                await self._body(request, response, writer, source)
            await response.write_eof()
        except (OSError, TimeoutError):
            abort(request)
        except ObjectLost as error:
            _log.warning("an answer broke off: %s", error.message)
            abort(request)

    async def _body(
        self,
        request: web.BaseRequest,
        response: web.StreamResponse,
        writer: AbstractStreamWriter,
        source: _Source,
    ) -> None:
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        if isinstance(source, Views) and (
            source.left <= DIRECT_BYTES or transport.get_extra_info("sslcontext") is not None
        ):
            for piece in source.pieces(_TLS_PIECE_BYTES):
                async with asyncio.timeout(self._idle_s):
                    await response.write(piece)
            return
        async with asyncio.timeout(self._idle_s):
            await _emptied(transport, writer)
        await self._direct(transport, source)

    async def _direct(self, transport: asyncio.Transport, source: _Source) -> None:
        loop = asyncio.get_running_loop()
        sock = transport.get_extra_info("socket").dup()
        turn: asyncio.Future[None] | None = None
        stop = threading.Event()
        try:
            while source.left:
                turn = loop.run_in_executor(self._threads, _send_some, sock, source, stop)
                await asyncio.shield(turn)
                if source.left:
                    await _writable(loop, sock, self._idle_s)
        finally:
            stop.set()
            if turn is None or turn.done():
                sock.close()
            else:  # a thread still uses it
                turn.add_done_callback(lambda done: _close(sock, done))
            # An error in it refers to this frame, and to what is sent: no circle may keep that.
            turn = None


def _close(sock: socket.socket, done: asyncio.Future[None]) -> None:
    sock.close()
    if not done.cancelled():
        done.exception()  # the connection's end has been noticed


async def _emptied(transport: asyncio.Transport, writer: AbstractStreamWriter) -> None:
    """Wait until the kernel has all that was written so far."""
    low, high = transport.get_write_buffer_limits()
    transport.set_write_buffer_limits(0)
    try:
        while transport.get_write_buffer_size():
            await writer.drain()
            await asyncio.sleep(0)
            if transport.is_closing():
                raise ConnectionResetError("the client has gone")
    finally:
        transport.set_write_buffer_limits(high, low)


def _send_some(sock: socket.socket, source: _Source, stop: threading.Event) -> None:
    """Send until all is sent, the socket stays full for a while, or the turn is over."""
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    end = time.monotonic() + _TURN_S
    while source.left and not stop.is_set():
        try:
            source.send(sock)
        except BlockingIOError:
            if not poll.poll(_PATIENCE_MS):
                return
        if time.monotonic() > end:
            return


async def _writable(loop: asyncio.AbstractEventLoop, sock: socket.socket, timeout_s: float) -> None:
    """Wait until a socket takes something, or its connection has ended.

    Raises:
        TimeoutError: neither happened.
    """
    ready = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_writer(sock.fileno(), wake)
    try:
        async with asyncio.timeout(timeout_s):
            await ready
    finally:
        loop.remove_writer(sock.fileno())
