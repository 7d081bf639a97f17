"""Frames over HTTP: how our own client gets and puts objects of every kind.

A client that asks for ``?acknowledge=1`` may be sent references to the store's pages instead of copies of
them (sending.py). It is told a token, and says that it has read everything with POST
/acknowledgements/TOKEN. **Only when that is answered with 204 is what it read the object**: the reference was
held up to then. It is dropped when the token is given back, when the connection is gone, or when no
acknowledgement comes for the idle timeout. A client that goes on reading all the same may read other objects'
bytes, so this is offered only to callers who may read everything in the store anyway, and only by a server
that was told to (HttpServer tells why).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import Future

from aiohttp import web

from flightstore.errors import InvalidArgument, ObjectNotFound
from flightstore.gateway.access import READ, WRITE, Caller
from flightstore.gateway.http_answers import answer, json_answer, object_headers
from flightstore.gateway.http_bodies import Body
from flightstore.gateway.http_connection import Connection
from flightstore.gateway.http_context import Context
from flightstore.gateway.incoming import FrameUpload
from flightstore.gateway.outgoing import Frame, frame_of
from flightstore.gateway.sending import DIRECT_BYTES, File, FilePart, abort, cut
from flightstore.objects.base import Object
from flightstore.store.local import Store
from flightstore.wire import messages as m
from flightstore.wire.frames import PREFIX_BYTES, FrameHeader, header_bytes, unpacked

__all__ = ["ACKNOWLEDGE_HEADER", "FRAME_TYPE", "FrameRoutes", "receive_frame"]

FRAME_TYPE = "application/vnd.flightstore.frame"
ACKNOWLEDGE_HEADER = "x-flightstore-acknowledge"
"""In an answer: the token to be acknowledged."""
_MAX_UNACKNOWLEDGED = 1000


class FrameRoutes:
    """The routes of frames."""

    def __init__(self, context: Context, *, by_reference: bool) -> None:
        self._context = context
        self._offered = by_reference
        self._unacknowledged: dict[str, Callable[[], None]] = {}
        self._files: dict[str, File] = {}

    async def get(self, request: web.Request) -> web.StreamResponse:
        """GET /frames/REF."""
        context = self._context
        caller = context.caller(request, READ, "getting objects")
        wanted = m.parse_ref(request.match_info["ref"])
        store = await context.store(request, caller)
        frame = await context.call_get(frame_of, store, wanted)
        response = web.StreamResponse(headers=object_headers(frame.held))
        response.content_type = FRAME_TYPE
        if self._by_reference(request, caller, frame):
            return await self._send_by_reference(request, response, frame)
        head = len(frame.head)
        pieces = [(0, frame.head), *((head + at, data) for at, data in frame.pieces)]
        source = cut(pieces, head + frame.size_bytes, check=frame.check)
        await context.sender.send(request, response, source)
        frame.held.release()
        return response

    def _by_reference(self, request: web.Request, caller: Caller, frame: Frame) -> bool:
        return (
            self._offered
            and request.query.get("acknowledge") == "1"
            and frame.file is not None
            and frame.size_bytes > DIRECT_BYTES
            and caller.sessions is None
            and request.method == "GET"
            and not request.secure
            and len(self._unacknowledged) < _MAX_UNACKNOWLEDGED
        )

    async def _send_by_reference(
        self, request: web.Request, response: web.StreamResponse, frame: Frame
    ) -> web.StreamResponse:
        connection = self._context.connections.of(request)
        if connection is None or frame.file is None:
            raise ConnectionResetError("the client has gone")
        path, offset = frame.file
        file = self._files.get(path) or self._files.setdefault(path, File(path))
        token, end = self._hold(frame.held, connection)
        response.headers[ACKNOWLEDGE_HEADER] = token
        source = FilePart(frame.head, file, offset, frame.size_bytes)
        try:
            await self._context.sender.send(request, response, source)
        except BaseException:
            abort(request)
            raise
        if token in self._unacknowledged:
            asyncio.get_running_loop().call_later(self._context.limits.idle_timeout_s, end)
        return response

    def _hold(self, held: Object, connection: Connection) -> tuple[str, Callable[[], None]]:
        """Hold an object until it is acknowledged; returns the token, and what ends it."""
        token = secrets.token_hex(16)
        kept: list[Object] = [held]

        def end() -> None:
            self._unacknowledged.pop(token, None)
            connection.when_lost.discard(end)
            kept.clear()

        self._unacknowledged[token] = end
        connection.when_lost.add(end)
        return token, end

    async def acknowledge(self, request: web.Request) -> web.Response:
        """POST /acknowledgements/TOKEN."""
        self._context.caller(request, READ, "getting objects")
        end = self._unacknowledged.get(request.match_info["token"])
        if end is None:
            raise ObjectNotFound(
                "nothing was held for this token any more",
                hint="what was read may be something else by now: get the frame again",
            )
        end()
        return answer(204)

    def close(self) -> None:
        """Hold nothing any more."""
        for end in list(self._unacknowledged.values()):
            end()
        self._files.clear()

    async def put(self, request: web.Request) -> web.Response:
        """PUT /frames."""
        context = self._context
        caller = context.caller(request, WRITE, "putting objects")
        with context.upload():
            body = context.body(request)
            store = await context.store(request, caller)
            length = header_bytes(bytes(await body.exactly(PREFIX_BYTES)))
            header = unpacked(memoryview(await body.exactly(length)))
            info = await receive_frame(context, store, header, body)
        return json_answer(info)


async def receive_frame(context: Context, store: Store, header: FrameHeader, body: Body) -> m.Info:
    """Store what is left of a body as the payload of a frame.

    Raises:
        InvalidArgument: it is not what the header says, or more than is taken.
        FlightStoreError: what the store says.
    """
    if body.length is not None and body.length != body.nbytes + header.size_bytes:
        raise InvalidArgument(
            f"the header announces a payload of {header.size_bytes:,} bytes, "
            f"the request one of {body.length - body.nbytes:,}"
        )
    upload = await _begun(context, store, header)
    try:
        await body.into(upload.target)
        return await context.call_upload(context.service.staged.finish, store, header, upload)
    except BaseException:
        context.undo(upload.abort)
        raise


async def _begun(context: Context, store: Store, header: FrameHeader) -> FrameUpload:
    limit = context.limits.max_object_bytes
    future = context.upload_threads.submit(FrameUpload, store, header, max_object_bytes=limit)
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        future.add_done_callback(_abort_begun)
        raise


def _abort_begun(future: Future[FrameUpload]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().abort()
