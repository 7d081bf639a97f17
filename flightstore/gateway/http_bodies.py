"""Bodies of requests, as they arrive: in pieces for the event loop, as a file for threads.

A body that breaks off, is malformed, or brings nothing for the idle timeout is an error; it is never taken
for a shorter one.
"""

from __future__ import annotations

import asyncio
import concurrent.futures

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_exceptions import HTTPRequestTimeout, HTTPUnsupportedMediaType
from aiohttp.web_protocol import RequestPayloadError

from flightstore.errors import InvalidArgument

__all__ = ["Body", "BodyFile"]


class Body:
    """The body of one request.

    Raises:
        HTTPUnsupportedMediaType: it is compressed.
    """

    def __init__(self, request: web.BaseRequest, idle_timeout_s: float) -> None:
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise HTTPUnsupportedMediaType(reason="send the body as it is, without Content-Encoding")
        self._content = request.content
        self._idle_s = idle_timeout_s
        self._rest = memoryview(b"")
        self.length = request.content_length
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
            try:
                async with asyncio.timeout(self._idle_s):
                    piece = memoryview(await self._content.readany())
            except TimeoutError:
                raise HTTPRequestTimeout(reason="nothing came for too long") from None
            except (OSError, RequestPayloadError, HttpProcessingError, EOFError) as error:
                raise InvalidArgument(
                    f"the body broke off after {self.nbytes:,} bytes: {type(error).__name__}"
                ) from None
        self.nbytes += len(piece)
        return piece

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

    async def into(self, target: memoryview) -> None:
        """All that is left, which must be what fills `target`.

        Raises:
            InvalidArgument: it is shorter or longer, and as `piece`.
        """
        at = 0
        while piece := await self.piece():
            if at + len(piece) > len(target):
                raise InvalidArgument(
                    f"the body is longer than the {len(target):,} bytes that were announced"
                )
            target[at : at + len(piece)] = piece
            at += len(piece)
        if at < len(target):
            raise InvalidArgument(f"the body ends after {at:,} of {len(target):,} bytes")

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

    def read(self, nbytes: int = -1) -> bytearray:
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

    def unread(self, read: bytearray) -> None:
        """Give back what was read last."""
        self._body.unread(read)

    async def _up_to(self, nbytes: int) -> bytearray:
        taken = bytearray()
        while len(taken) < nbytes:
            piece = await self._body.some(nbytes - len(taken))
            if not piece:
                break
            taken += piece
        return taken

    def _wait(self, read: object) -> bytearray:
        future: concurrent.futures.Future[bytearray] = asyncio.run_coroutine_threadsafe(read, self._loop)  # type: ignore[arg-type]
        return future.result()
