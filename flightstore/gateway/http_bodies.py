"""Bodies of requests, as they arrive: in pieces for the event loop, as a file for threads.

A body that breaks off, is malformed, or brings nothing for the idle timeout is an error; it is never taken
for a shorter one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from typing import Protocol

import numpy as np
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader
from aiohttp.web_exceptions import HTTPRequestTimeout, HTTPUnsupportedMediaType
from aiohttp.web_protocol import RequestPayloadError

from flightstore.errors import InvalidArgument
from flightstore.gateway.http_receiving import Incoming

__all__ = ["Body", "BodyFile", "Source"]

_FILLED_BYTES = 64 << 10  # less than this is taken in pieces


class Source(Protocol):
    """Where a body comes from."""

    can_fill: bool
    """Whether `fill` copies less than taking pieces does."""

    async def next(self, idle_timeout_s: float) -> memoryview:
        """Some of it; empty at the end."""
        ...

    async def fill(self, target: memoryview, idle_timeout_s: float) -> int:
        """As much of it as goes into `target`, or there is. Only if `can_fill`."""
        ...


class Content:
    """A body that comes through aiohttp."""

    can_fill = False

    def __init__(self, content: StreamReader) -> None:
        self._content = content

    async def next(self, idle_timeout_s: float) -> memoryview:
        async with asyncio.timeout(idle_timeout_s):
            return memoryview(await self._content.readany())

    async def fill(self, target: memoryview, idle_timeout_s: float) -> int:
        raise NotImplementedError


class Body:
    """The body of one request.

    Raises:
        HTTPUnsupportedMediaType: it is compressed.
    """

    def __init__(self, request: web.BaseRequest, incoming: Incoming | None, idle_timeout_s: float) -> None:
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise HTTPUnsupportedMediaType(reason="send the body as it is, without Content-Encoding")
        self._source: Source = incoming or Content(request.content)
        self._idle_s = idle_timeout_s
        self._rest = memoryview(b"")
        self.length = incoming.length if incoming else request.content_length
        """What the request says; None for not known."""
        self.nbytes = 0
        """What was taken from it so far."""

    async def piece(self) -> memoryview:
        """Some more of it; empty at the end.

        Raises:
            InvalidArgument: it broke off, or is malformed.
            HTTPRequestTimeout: nothing came for the idle timeout.
        """
        piece, self._rest = self._rest, memoryview(b"")
        if not piece:
            with self._broken_off():
                piece = await self._source.next(self._idle_s)
        self.nbytes += len(piece)
        return piece

    @contextlib.contextmanager
    def _broken_off(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise HTTPRequestTimeout(reason="nothing came for too long") from None
        except (OSError, RequestPayloadError, HttpProcessingError, EOFError) as error:
            raise InvalidArgument(
                f"the body broke off after {self.nbytes:,} bytes: {type(error).__name__}"
            ) from None

    async def some(self, nbytes: int) -> memoryview:
        """Up to `nbytes` of it; empty at the end."""
        piece = await self.piece()
        self.unread(piece[nbytes:])
        return piece[:nbytes]

    async def exactly(self, nbytes: int) -> bytearray:
        """That many bytes of it.

        Raises:
            InvalidArgument: it ends before, and as `piece`.
        """
        taken = bytearray()
        while len(taken) < nbytes:
            piece = await self.some(nbytes - len(taken))
            if not piece:
                raise InvalidArgument(
                    f"the body ends after {self.nbytes:,} bytes, in the middle of something"
                )
            taken += piece
        return taken

    async def fill(self, target: memoryview) -> int:
        """As much of it as goes into `target`, or there is; returns how many bytes that were.

        Raises:
            InvalidArgument, HTTPRequestTimeout: as `piece`.
        """
        at = 0
        while at < len(target):
            left = len(target) - at
            if self._source.can_fill and not self._rest and left >= _FILLED_BYTES:
                with self._broken_off():
                    filled = await self._source.fill(target[at:], self._idle_s)
                self.nbytes += filled
            else:
                piece = await self.some(left)
                filled = len(piece)
                target[at : at + filled] = piece
            if not filled:
                break
            at += filled
        return at

    async def into(self, target: memoryview) -> None:
        """All that is left, which must be what fills `target`.

        Raises:
            InvalidArgument: it is shorter or longer, and as `piece`.
        """
        filled = await self.fill(target)
        if filled < len(target):
            raise InvalidArgument(f"the body ends after {filled:,} of {len(target):,} bytes")
        if await self.piece():
            raise InvalidArgument(f"the body is longer than the {len(target):,} bytes announced")

    async def whole(self, limit: int) -> bytearray:
        """All of it.

        Raises:
            InvalidArgument: it is longer than `limit`, and as `piece`.
        """
        taken = bytearray()
        while piece := await self.piece():
            taken += piece
            if len(taken) > limit:
                raise InvalidArgument(f"the body is longer than {limit:,} bytes")
        return taken

    def unread(self, rest: memoryview | bytearray) -> None:
        """Give back what was taken last; it comes again."""
        self._rest = memoryview(bytes(rest) + self._rest) if self._rest else memoryview(rest)
        self.nbytes -= len(rest)


class BodyFile:
    """A body as a file that is read in another thread than the event loop's.

    Args:
        body: The body.
        loop: Its event loop.
        limit: The longest read that is allowed, in bytes: what a reader asks for comes from the body itself.
    """

    closed = False

    def __init__(self, body: Body, loop: asyncio.AbstractEventLoop, limit: int) -> None:
        self._body = body
        self._loop = loop
        self._limit = limit

    def readable(self) -> bool:
        """Whether it can be read."""
        return True

    def close(self) -> None:
        """Nothing: the body is the request's."""

    def tell(self) -> int:
        """Bytes read so far."""
        return self._body.nbytes

    def read(self, nbytes: int = -1) -> memoryview:
        """That many bytes, or what is left of the body.

        Raises:
            InvalidArgument: that is more than allowed, or the body broke off.
        """
        if not 0 <= nbytes <= self._limit:
            raise InvalidArgument(
                f"a message of {nbytes:,} bytes; this gateway takes {self._limit:,}",
                hint="send smaller record batches",
            )
        return self._wait(self._up_to(nbytes))

    def unread(self, read: memoryview) -> None:
        """Give back what was read last."""
        self._body.unread(read)

    async def _up_to(self, nbytes: int) -> memoryview:
        # Pages that nothing is written to are none: what is asked for is what a stranger said.
        taken: memoryview = np.empty(nbytes, np.uint8).data
        return taken[: await self._body.fill(taken)]

    def _wait(self, read: Coroutine[None, None, memoryview]) -> memoryview:
        return asyncio.run_coroutine_threadsafe(read, self._loop).result()
