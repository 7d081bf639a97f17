"""Objects over HTTP, for every client: tables as Arrow IPC streams, blobs as they are.

A plain table's memory is a stream already, and is sent as it lies. Of others, and of parts, a stream is made
whose buffers are the store's own. The reference on the object is held until the kernel has copied the last
byte (sending.py).
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import NamedTuple

import msgspec
import pyarrow as pa
from aiohttp import web
from aiohttp.web_exceptions import HTTPLengthRequired, HTTPRequestTimeout, HTTPUnsupportedMediaType

from flightstore.errors import FlightStoreError, InvalidArgument, ObjectNotFound
from flightstore.gateway.access import READ, WRITE
from flightstore.gateway.http_answers import (
    NotAcceptable,
    answer,
    json_answer,
    object_headers,
    put_command,
    ticket_of,
)
from flightstore.gateway.http_bodies import Body, BodyFile
from flightstore.gateway.http_context import SESSION_HEADER, Context, session_of
from flightstore.gateway.http_frames import receive_frame
from flightstore.gateway.http_ranges import etag_matches, part_asked
from flightstore.gateway.incoming import TableUpload
from flightstore.gateway.outgoing import loan_check, rows_of
from flightstore.gateway.sending import Views, cut
from flightstore.objects.base import KIND_BLOB, KIND_TABLE, Object
from flightstore.objects.blob import Blob
from flightstore.objects.ipc import decode_layout, stream_of
from flightstore.objects.table import Table
from flightstore.store.local import Store
from flightstore.types import ObjectID
from flightstore.wire import messages as m
from flightstore.wire.faults import fault_of
from flightstore.wire.frames import FrameHeader
from flightstore.wire.messages import PutCommand, Ticket

__all__ = ["BLOB_TYPE", "FILE_TYPE", "STREAM_TYPE", "ObjectRoutes"]

STREAM_TYPE = "application/vnd.apache.arrow.stream"
FILE_TYPE = "application/vnd.apache.arrow.file"
BLOB_TYPE = "application/octet-stream"
_FILE_MAGIC = b"ARROW1\0\0"
_FILE_END = b"ARROW1"


class _Found(NamedTuple):
    """What a GET answers with."""

    held: Object
    content_type: str
    pieces: list[tuple[int, object]]
    size_bytes: int
    num_rows: int | None


class ObjectRoutes:
    """The routes of objects."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def get(self, request: web.Request) -> web.StreamResponse:
        """GET and HEAD /objects/REF."""
        context = self._context
        caller = context.caller(request, READ, "getting objects")
        ticket = ticket_of(request.match_info["ref"], request.query)
        store = await context.store(request, caller)
        found = await context.call_get(_found, store, ticket, context.limits.max_batch_bytes)
        try:
            return await self._answer(request, found, _etag(found.held, ticket, request), by_id=ticket.id)
        finally:
            found.held.release()

    async def _answer(
        self, request: web.Request, found: _Found, etag: str, *, by_id: str | None
    ) -> web.StreamResponse:
        headers = object_headers(found.held)
        if found.num_rows is not None:
            headers["x-flightstore-rows"] = str(found.num_rows)
        headers |= {"ETag": etag, "Accept-Ranges": "bytes", "Vary": f"Authorization, {SESSION_HEADER}"}
        whose = "private" if "Authorization" in request.headers or request.secure else "public"
        headers["Cache-Control"] = f"{whose}, " + ("max-age=31536000, immutable" if by_id else "no-cache")
        if etag_matches(request.headers.get("If-None-Match"), etag, weak=True):
            return answer(304, headers=headers)
        size = found.size_bytes
        start, stop, status = part_asked(request, etag, size)
        if status == 416:
            headers["Content-Range"] = f"bytes */{size}"
            fault = InvalidArgument(f"there is no such range in {size:,} bytes")
            return json_answer(fault_of(fault), 416, headers)
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        response = web.StreamResponse(status=status, headers=headers)
        response.content_type = found.content_type
        source = cut(found.pieces, size, start, stop, loan_check(found.held))
        await self._context.sender.send(request, response, source)
        return response

    async def list(self, request: web.Request) -> web.StreamResponse:
        """GET /objects."""
        unknown = set(request.query) - {"pattern"}
        if unknown:
            raise InvalidArgument(f"there is no parameter {min(unknown)[:100]!r}", hint="there is pattern")
        wanted = m.ListObjects(pattern=request.query.get("pattern"))
        raw = await self._act(request, "list", m.encode(wanted))
        response = web.StreamResponse()
        response.content_type = "application/json"
        await self._context.sender.send(request, response, Views([memoryview(raw)]))
        return response

    async def delete(self, request: web.Request) -> web.Response:
        """DELETE /objects/REF."""
        ref = request.match_info["ref"]
        m.parse_ref(ref)
        raw = await self._act(request, "delete", m.encode(m.Delete(refs=[ref])))
        if not m.decode(raw, m.Count).count:
            raise ObjectNotFound(f"there is no object {ref!r}")
        return answer(204)

    async def _act(self, request: web.Request, action: str, body: bytes) -> bytes:
        caller = self._context.caller(request)
        session = session_of(request)
        return await self._context.call(self._context.service.act, caller, session, action, body)

    # --- putting ---

    async def put(self, request: web.Request) -> web.Response:
        """PUT /objects/NAME."""
        context = self._context
        caller = context.caller(request, WRITE, "putting objects")
        command = put_command(request.match_info["ref"], request.query)
        with context.upload():
            body = context.body(request)
            store = await context.store(request, caller)
            kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            if kind == BLOB_TYPE:
                info = await self._put_blob(store, command, body)
            elif kind in ("", STREAM_TYPE, FILE_TYPE, "application/x-www-form-urlencoded"):  # curl's default
                made = await context.call_upload(self._put_table, store, command, body, _loop())
                info = m.info_of(await context.call(store.stat, made))
            else:
                raise HTTPUnsupportedMediaType(reason=f"send {STREAM_TYPE}, {FILE_TYPE} or {BLOB_TYPE}")
        return json_answer(info, 201)

    async def _put_blob(self, store: Store, command: PutCommand, body: Body) -> m.Info:
        if body.length is None:
            raise HTTPLengthRequired(reason="a blob needs its Content-Length")
        raw = command.metadata_raw
        if not raw and command.metadata is not None:
            raw = msgspec.msgpack.encode(command.metadata)
        header = FrameHeader(
            kind=KIND_BLOB,
            size_bytes=body.length,
            name=command.name,
            id=command.id,
            metadata_raw=raw,
            evictable=command.evictable,
            batch=command.batch,
            timeout_s=command.timeout_s,
        )
        return await receive_frame(self._context, store, header, body)

    def _put_table(
        self, store: Store, command: PutCommand, body: Body, loop: asyncio.AbstractEventLoop
    ) -> ObjectID:
        limits = self._context.limits
        file = BodyFile(body, loop, limits.max_batch_bytes)
        is_file = _skip_magic(file)
        try:
            with pa.ipc.open_stream(pa.PythonFile(file, mode="r")) as reader:
                with TableUpload(
                    store,
                    command,
                    reader.schema,
                    max_object_bytes=limits.max_object_bytes,
                    max_batch_bytes=limits.max_batch_bytes,
                ) as upload:
                    for batch in reader:
                        upload.write(batch)
                    _check_end(file, is_file)
                    return upload.finish()
        except (FlightStoreError, HTTPRequestTimeout):
            raise
        except (pa.ArrowException, ValueError, OSError) as error:
            raise InvalidArgument(
                f"the body is no Arrow stream: {str(error)[:500]}",
                hint=f"send what pyarrow.ipc.new_stream writes, or {BLOB_TYPE}",
            ) from None


def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def _found(store: Store, ticket: Ticket, most_bytes: int) -> _Found:
    held = store.get(ticket.ref)
    if isinstance(held, Blob):
        if ticket.columns is not None or ticket.offset or ticket.limit is not None or ticket.hydrate:
            raise InvalidArgument(f"{ticket.ref} is a blob: it has no columns or rows", hint="use Range")
        return _Found(held, BLOB_TYPE, [(0, held._live.payload)], held.nbytes, None)
    if not isinstance(held, Table):
        raise NotAcceptable(
            f"{ticket.ref} is a {held.kind}: it has no form that every client can read",
            hint="use flightstore's own client",
        )
    record = held._live.record
    if record.kind == KIND_TABLE and _wants_all(ticket):
        size = decode_layout(record.layout).stream_bytes
        return _Found(held, STREAM_TYPE, [(0, held._live.payload)], size, record.num_rows)
    table = rows_of(held.to_arrow(), ticket)
    if ticket.hydrate:
        table = _hydrated(table, ticket.hydrate, most_bytes)
    stream = stream_of(table.schema, table.to_batches())
    return _Found(held, STREAM_TYPE, list(stream.pieces), stream.layout.stream_bytes, table.num_rows)


def _hydrated(table: pa.Table, kinds: list[str], most_bytes: int) -> pa.Table:
    """The table with plain types, in private memory: a few bytes may stand for gigabytes, so a slice at a
    time, and no more than `most_bytes`.
    """
    from flightstore.gateway.reslicing import DEFAULT_BATCH_BYTES, reader_of

    reader = reader_of(table, DEFAULT_BATCH_BYTES, kinds)
    batches, nbytes = [], 0
    for batch in reader:
        nbytes += batch.get_total_buffer_size()
        if nbytes > most_bytes:
            raise InvalidArgument(
                f"with plain types the table has more than {most_bytes:,} bytes",
                hint="ask for partitions of it, or get it by Flight, which sends as it goes",
            )
        batches.append(batch)
    return pa.Table.from_batches(batches, reader.schema)


def _wants_all(ticket: Ticket) -> bool:
    everything = Ticket(name=ticket.name, id=ticket.id, partition=ticket.partition)
    return ticket.partitions == 1 and msgspec.structs.replace(ticket, partitions=1) == everything


def _etag(held: Object, ticket: Ticket, request: web.Request) -> str:
    """Of the object, and of the part of it that is asked for. An id may be used again once its object was
    deleted, a serial number never is.
    """
    tag = f"{bytes(held.id).hex()}.{held._live.record.serial:x}"
    if not _wants_all(ticket):
        part = m.encode(msgspec.structs.replace(ticket, name=None, id=None))
        tag += "." + hashlib.blake2b(part, digest_size=8).hexdigest()
    return f'"{tag}"'


def _skip_magic(file: BodyFile) -> bool:
    """Whether it is an Arrow file: a stream between eight bytes and a footer that nobody needs here."""
    begin = file.read(len(_FILE_MAGIC))
    if bytes(begin) == _FILE_MAGIC:
        return True
    file.unread(begin)
    return False


def _check_end(file: BodyFile, is_file: bool) -> None:
    """Nothing follows a stream; a file's end tells that all of it came."""
    last = b""
    while piece := file.read(1 << 16):
        if not is_file:
            raise InvalidArgument("bytes follow the end of the Arrow stream")
        last = (last + bytes(piece))[-len(_FILE_END) :]
    if is_file and last != _FILE_END:
        raise InvalidArgument("the Arrow file breaks off before its end")
