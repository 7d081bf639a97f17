"""Large bodies on their way in: from the socket straight into the memory where they will stay.

aiohttp's parser copies what it is given, twice. So a large upload's head is handed to it as that of a request
without a body, and the connection (http_connection.py) receives the body itself, as the handler asks for it:
in pieces, or into a given memory. That needs to know where a request begins. The first bytes of a connection
are one's beginning; so are those behind a request whose head was complete and plain, and whose body came to
its announced end. After anything else (chunks, pipelining, a head in pieces, an answer before the end of the
body) a connection goes on without this: aiohttp reads all of it, as it would have.

Everything here runs in the event loop's thread. Memory is received into only while somebody waits for it.
"""

from __future__ import annotations

import asyncio
import re
from typing import NamedTuple

__all__ = ["LARGE_BYTES", "Head", "Incoming", "head_of"]

LARGE_BYTES = 1 << 20
"""Shorter bodies go through aiohttp."""
_AT_ONCE_BYTES = 4 << 20

_HEAD = re.compile(rb"([A-Z]+) /[\x21-\x7e]* HTTP/1\.1\r\n((?:[A-Za-z0-9-]+:[\x20-\x7e]*\r\n)*)\r\n")
_NOT_PLAIN = (b"transfer-encoding", b"upgrade", b"expect")


class Head(NamedTuple):
    """A request's head."""

    size_bytes: int
    """Its own length."""
    body_bytes: int
    """What it says of its body's length."""
    without_body: bytes | None
    """The same head for a request without a body, if it is a large upload."""


def head_of(data: bytes) -> Head | None:
    """The head that `data` begins with; None if it is not complete, or not plain."""
    found = _HEAD.match(data)
    if found is None:
        return None
    fields = found[2].split(b"\r\n")[:-1]
    names = [field.partition(b":")[0].lower() for field in fields]
    if any(name in names for name in _NOT_PLAIN) or names.count(b"content-length") > 1:
        return None
    length = 0
    if b"content-length" in names:
        at = names.index(b"content-length")
        text = fields[at].partition(b":")[2].strip(b" ")
        if not text.isdigit() or len(text) > 18:
            return None
        length = int(text)
        fields[at] = b"Content-Length: 0"
    without = None
    if found[1] == b"PUT" and length >= LARGE_BYTES:
        without = b"\r\n".join([data[: found.start(2) - 2], *fields, b"", b""])
    return Head(found.end(), length, without)


class Incoming:
    """The body of a large upload, received by its connection. A source of http_bodies.Body.

    Args:
        transport: The connection's; reading is paused unless somebody waits.
        length: The body's.
        early: What came together with the head.
    """

    can_fill = True

    def __init__(self, transport: asyncio.Transport, length: int, early: memoryview) -> None:
        self._transport = transport
        self._early = early
        self._is_lost = False
        self._target: memoryview | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._dropping = False
        self.length = length
        self.left = length - len(early)
        """Bytes that have not come yet."""
        transport.pause_reading()

    async def next(self, idle_timeout_s: float) -> memoryview:
        """Some of it, as soon as there is something; empty at the end.

        Raises:
            ConnectionError: the client has gone.
            TimeoutError: nothing came.
        """
        if self._early:
            early, self._early = self._early, memoryview(b"")
            return early
        scratch = memoryview(bytearray(min(self.left, 256 << 10)))
        if not scratch:
            return scratch
        received = await self._receive(scratch, idle_timeout_s, whole=False)
        return scratch[:received]

    async def fill(self, target: memoryview, idle_timeout_s: float) -> int:
        """Receive into memory until it is full, or the body ends. Returns how many bytes that were.

        Raises:
            ConnectionError, TimeoutError: as `next`. Nothing is received into the memory any more.
        """
        early, self._early = self._early[: len(target)], self._early[len(target) :]
        target[: len(early)] = early
        rest = target[len(early) :][: self.left]
        return len(early) + (await self._receive(rest, idle_timeout_s, whole=True) if rest else 0)

    async def _receive(self, target: memoryview, idle_timeout_s: float, *, whole: bool) -> int:
        wanted = self.left - len(target) if whole else self.left - 1
        begin = self.left
        self._target = target
        try:
            while self.left > wanted:
                if self._is_lost:
                    raise ConnectionResetError("the client has gone")
                before = self.left
                self._waiter = asyncio.get_running_loop().create_future()
                self._wanted = wanted
                self._transport.resume_reading()
                await asyncio.wait([self._waiter], timeout=idle_timeout_s)
                if self.left == before and not self._is_lost:
                    raise TimeoutError
        finally:
            self._target = self._waiter = None
            if not self._is_lost:
                self._transport.pause_reading()
        return begin - self.left

    # --- what the connection does ---

    def buffer(self, scratch: memoryview) -> memoryview:
        """Where the next bytes go."""
        if self._target is None:
            return scratch[: max(self.left, 1)]
        return self._target[:_AT_ONCE_BYTES]

    def received(self, nbytes: int) -> None:
        """They came."""
        self.left -= nbytes
        if self._target is not None:
            self._target = self._target[nbytes:]
            if self.left <= self._wanted:
                self._transport.pause_reading()
                self._wake()

    def drop(self) -> None:
        """Nobody wants the rest."""
        self._dropping = True
        self._early = memoryview(b"")
        self._transport.resume_reading()

    @property
    def is_over(self) -> bool:
        """Whether nothing of it is to come, and nobody has still to take it."""
        return not self.left and (self._dropping or not self._early)

    def lost(self) -> None:
        """The connection has ended."""
        self._is_lost = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
