"""What flows through DoGet and DoPut: tables, and frames as rows of one binary column.

Every buffer of an outgoing stream holds the reference on its object. Nearly all are read by C++ alone; those
whose batches have to be copied are made by Python while they are read (see reslicing). So are those of memory
that the store has borrowed: a copy that was found right after it was made stays right.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa

from flightstore.errors import GatewayUnreachable, InvalidArgument
from flightstore.gateway.flight_calls import Call
from flightstore.gateway.flight_errors import guarded, of_client_stream
from flightstore.gateway.incoming import FrameUpload, TableUpload
from flightstore.gateway.limits import Limits
from flightstore.gateway.many import Staged
from flightstore.gateway.outgoing import Frame, frame_of, loan_check, rows_of, table_of
from flightstore.gateway.reslicing import reader_of
from flightstore.objects.schemas import storage
from flightstore.store.local import Store
from flightstore.types import ObjectID
from flightstore.wire.frames import PREFIX_BYTES, header_bytes, unpacked
from flightstore.wire.messages import Info, PutCommand, Ticket

__all__ = [
    "Incoming",
    "frame_table",
    "outgoing",
    "receive_frame",
    "receive_table",
]

PIECE_BYTES = 1 << 20
"""Of a frame, in one row."""
JOINED_BYTES = 64 << 10
"""Pieces of a payload below this are put together with their neighbours."""
FRAME = pa.schema([pa.field("frame", pa.large_binary(), nullable=False)])
"""Schema of a frame on its way."""


# --- out ---


def outgoing(store: Store, ticket: Ticket, max_bytes: int) -> tuple[pa.RecordBatchReader, int]:
    """What a ticket asks for, in batches of at most so many bytes; and how many bytes that is, nearly.

    Raises:
        ObjectNotFound, ObjectLost: there is none.
        InvalidArgument, NotConvertible: it cannot be sent like that.
    """
    if ticket.payload:
        frame = frame_of(store, ticket.ref)
        table, check = frame_table(frame), frame.check
        reader = table.to_reader()
    else:
        held, table = table_of(store, ticket.ref)
        table, check = rows_of(table, ticket), loan_check(held)
        reader = reader_of(table, max_bytes, ticket.hydrate, guarded)
    if check is not None:
        reader = pa.RecordBatchReader.from_batches(reader.schema, guarded(_checked(reader, check)))
    return reader, table.get_total_buffer_size()


def _checked(batches: Iterable[pa.RecordBatch], check: Callable[[], None]) -> Iterator[pa.RecordBatch]:
    """Copies of batches of borrowed memory, each of which was right after it was made."""
    for batch in batches:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        check()
        with pa.ipc.open_stream(sink.getvalue()) as copies:
            yield copies.read_next_batch()


def frame_table(frame: Frame) -> pa.Table:
    """A frame as rows of one column, the payload in the store's own memory."""
    rows = [pa.py_buffer(frame.head), *_rows(frame)]
    return pa.Table.from_batches([_row(buffer) for buffer in rows], FRAME)


def _row(buffer: pa.Buffer) -> pa.RecordBatch:
    offsets = pa.py_buffer(b"\0" * 8 + buffer.size.to_bytes(8, "little"))
    array = pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, buffer], 0)
    return pa.RecordBatch.from_arrays([array], schema=FRAME)


def _rows(frame: Frame) -> Iterator[pa.Buffer]:
    """The payload in pieces of up to PIECE_BYTES; small ones, and the gaps between them, are joined."""
    joined = bytearray()
    at = 0
    for offset, piece in [*frame.pieces, (frame.size_bytes, b"")]:
        buffer = piece if isinstance(piece, pa.Buffer) else pa.py_buffer(piece)
        joined += bytes(offset - at)
        at = offset + buffer.size
        if buffer.size < JOINED_BYTES:
            joined += memoryview(buffer)
        if joined and (len(joined) >= PIECE_BYTES - JOINED_BYTES or buffer.size >= JOINED_BYTES):
            yield from _cut(pa.py_buffer(bytes(joined)))
            joined = bytearray()
        if buffer.size >= JOINED_BYTES:
            yield from _cut(buffer)
    if joined:
        yield from _cut(pa.py_buffer(bytes(joined)))


def _cut(buffer: pa.Buffer) -> Iterator[pa.Buffer]:
    for start in range(0, buffer.size, PIECE_BYTES):
        yield buffer.slice(start, min(PIECE_BYTES, buffer.size - start))


# --- in ---


class Incoming:
    """The batches that a client sends; metadata beside them go back as they came."""

    def __init__(
        self, context: Any, call: Call, reader: Any, limits: Limits, echo: Callable[[pa.Buffer], None]
    ) -> None:
        self.limits = limits
        self._context = context
        self._call = call
        self._reader = reader
        self._echo = echo

    @property
    def schema(self) -> pa.Schema:
        """Of the stream.

        Raises:
            InvalidArgument: it has none.
        """
        with _understood():
            found = self._reader.schema
            _read_names(found)
            return found

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """The batches. None is held here while the next one is received: they may be large."""
        while (chunk := self._next()) is not None:
            if chunk.app_metadata is not None and chunk.app_metadata.size:
                with self._call.waiting():
                    self._echo(chunk.app_metadata)
            if chunk.data is not None:
                self._call.bytes_in += chunk.data.get_total_buffer_size()
                batches = [chunk.data]
                del chunk
                yield batches.pop()
            chunk = None
        self._check_end()

    def _next(self) -> Any:
        try:
            with self._call.waiting(), _understood():
                return self._reader.read_chunk()
        except StopIteration:
            return None

    def _check_end(self) -> None:
        """Arrow reports a client that is gone as the end of its stream. gRPC learns both at once, but tells
        them one after the other.

        Raises:
            GatewayUnreachable: it is gone.
        """
        for pause_s in (0, 0.0002):
            time.sleep(pause_s)
            if self._context.is_cancelled():
                raise GatewayUnreachable("the client has gone, or cancelled its upload: nothing was stored")


@contextlib.contextmanager
def _understood() -> Iterator[None]:
    try:
        yield
    except StopIteration:
        raise
    except Exception as error:
        raise of_client_stream(error) from None


def _read_names(fields: Iterable[pa.Field]) -> None:
    """Arrow does not look whether names are UTF-8.

    Raises:
        UnicodeDecodeError: one is not.
    """
    for field in fields:
        _ = field.name
        kind = storage(field.type)
        if pa.types.is_dictionary(kind):
            kind = storage(kind.value_type)
        _read_names(kind.field(index) for index in range(kind.num_fields))


def receive_table(store: Store, command: PutCommand, incoming: Incoming) -> ObjectID:
    """Store a table that arrives batch by batch."""
    limits = incoming.limits
    with TableUpload(
        store,
        command,
        incoming.schema,
        max_object_bytes=limits.max_object_bytes,
        max_batch_bytes=limits.max_batch_bytes,
    ) as upload:
        for batch in incoming:
            upload.write(batch)
            del batch  # not while the next one is received
        return upload.finish()


def receive_frame(store: Store, incoming: Incoming, staged: Staged) -> Info:
    """Store an object that arrives as a frame, cut into rows anywhere; or stage it."""
    pieces = _pieces(incoming)
    head, rest = _head(pieces)
    header = unpacked(head)
    upload = FrameUpload(store, header, max_object_bytes=incoming.limits.max_object_bytes)
    try:
        _fill(upload.target, itertools.chain([rest], pieces))
        return staged.finish(store, header, upload)
    except BaseException:
        upload.abort()
        raise


def _fill(target: memoryview, pieces: Iterable[memoryview]) -> None:
    at = 0
    for piece in pieces:
        if at + len(piece) > len(target):
            raise InvalidArgument(f"a payload of more than the {len(target):,} bytes that were announced")
        target[at : at + len(piece)] = piece
        at += len(piece)
    if at != len(target):
        raise InvalidArgument(f"a payload of {at:,} bytes, {len(target):,} were announced")


def _pieces(incoming: Incoming) -> Iterator[memoryview]:
    schema = incoming.schema
    binary = len(schema) == 1 and schema.field(0).type in (pa.binary(), pa.large_binary())
    if not binary:
        raise InvalidArgument("a frame comes as one binary column", hint="docs/protocol.md")
    for batch in incoming:
        for value in batch.column(0):
            if not value.is_valid:
                raise InvalidArgument("a null within a frame")
            yield memoryview(value.as_buffer()).cast("B")


def _head(pieces: Iterator[memoryview]) -> tuple[bytes, memoryview]:
    """The header, and what came along with it."""
    got, wanted = bytearray(), PREFIX_BYTES
    for piece in pieces:
        got += piece
        if len(got) >= PREFIX_BYTES:
            wanted = PREFIX_BYTES + header_bytes(bytes(got[:PREFIX_BYTES]))
        if len(got) >= wanted > PREFIX_BYTES:
            return bytes(got[PREFIX_BYTES:wanted]), memoryview(got)[wanted:]
    raise InvalidArgument(f"a frame that ends after {len(got):,} bytes, within its header")
