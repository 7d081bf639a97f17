"""Arrow record batches <-> one Arrow IPC stream, every body buffer at a multiple of 64 bytes.

May call objects.flatmessage, capture, gather, schemas, views and base. Invariants:

- The stored bytes are a stream that stock readers of any language read in place: schema, dictionary and
  record batch messages, end of stream; never compressed.
- Bodies are placed, not copied: pieces refer to the caller's buffers until the store has copied them, once.
  Only small batches are laid out in a buffer of their own, because that is quicker than many small pieces.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from struct import Struct
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from flightstore.errors import NotStorable
from flightstore.objects.base import KIND_TABLE, Payload
from flightstore.objects.capture import capture, size_of
from flightstore.objects.flatmessage import (
    DICTIONARY,
    END_OF_STREAM,
    PREFIX_BYTES,
    RECORDS,
    realign,
    relay,
    sealed_message,
)
from flightstore.objects.gather import gathered
from flightstore.objects.schemas import KnownSchema, fingerprint_of, known_schema, parsed_schema
from flightstore.objects.views import compact_views

__all__ = [
    "CONTAINER_TABLE",
    "Stream",
    "TableLayout",
    "decode_layout",
    "encode_layout",
    "expressible",
    "gathered_stream",
    "layout_of_stream",
    "open_batches",
    "open_table",
    "refusing",
    "small_payload",
    "stream_of",
    "stream_payload",
]

FORMAT_VERSION = 1
FLAG_DICTIONARIES = 1
"""The stream holds dictionary batches: only a stream reader reads it right."""

# Stored: never renumber.
CONTAINER_TABLE, CONTAINER_BATCH, CONTAINER_ARRAY, CONTAINER_CHUNKED, CONTAINER_SCALAR = range(5)

SMALL_BYTES = 64 << 10
"""Batches up to this size are laid out in one buffer."""
LISTED_BATCHES = 16
"""More batches than this are not listed in the layout, to keep it short."""


class TableLayout(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """How a table lies in its extent. A stored format: never reorder or remove a field, append with a
    default.
    """

    version: int
    """FORMAT_VERSION of the writer."""
    fingerprint: bytes
    """blake2b, 16 bytes, over the schema message as stored (prefix and padding included)."""
    schema_bytes: int
    """Length of that message, which begins the stream."""
    stream_bytes: int
    """Length of the whole stream."""
    num_batches: int
    """Record batches in the stream."""
    batches: tuple[tuple[int, int, int], ...] = ()
    """(offset, length, rows) of each record batch message with its body; empty where there are many."""
    flags: int = 0
    """Bits FLAG_*."""
    container: int = CONTAINER_TABLE
    """CONTAINER_*: what the table was when it was put."""


encode_layout = msgspec.msgpack.Encoder().encode
decode_layout = msgspec.msgpack.Decoder(TableLayout).decode
"""Decode a TableLayout from a record's layout bytes."""


class Stream(NamedTuple):
    """An Arrow stream that is not written yet."""

    layout: TableLayout
    """How it will lie; offsets from the beginning of the stream."""
    pieces: list[tuple[int, Any]]
    """(offset, bytes-like object), ascending; zeros between them."""
    num_rows: int
    """Rows of all its batches."""


def expressible(schema: pa.Schema) -> KnownSchema:
    """The schema with its message.

    Raises:
        NotStorable: the stream format has no words for it.
    """
    with refusing(schema):
        known = known_schema(schema)
    if known.inexpressible is not None:
        raise NotStorable(
            f"Arrow's stream format cannot say {known.inexpressible}",
            hint="cast the column to its values, or allow pickle",
        )
    return known


@contextmanager
def refusing(schema: pa.Schema) -> Iterator[None]:
    """What Arrow cannot write becomes NotStorable."""
    try:
        yield
    except MemoryError:
        raise
    except pa.ArrowException as error:
        raise NotStorable(
            f"Arrow cannot write a table of schema {schema.to_string()[:500]}: {error}",
            hint="cast the columns that Arrow's IPC format does not take",
        ) from error


def stream_of(
    schema: pa.Schema, batches: Iterable[pa.RecordBatch], *, container: int = CONTAINER_TABLE
) -> Stream:
    """A stream of record batches as they are, referring to their memory.

    Raises:
        NotStorable: Arrow cannot write them.
    """
    has_views = expressible(schema).has_views
    with refusing(schema):
        batches = list(batches)
        messages = capture(schema, batches)
    assembly = _Assembly(messages[0].metadata)
    remaining = iter(batches)
    for message in messages[1:]:
        records = message.kind == RECORDS
        buffers = compact_views(schema, message) if records and has_views else message.buffers
        offsets, body_bytes = relay(message.metadata, [size_of(data) for data in buffers])
        body = [(at, data) for at, data in zip(offsets, buffers, strict=True) if size_of(data)]
        rows = next(remaining).num_rows if records else 0
        assembly.add(message.kind, message.metadata, body, body_bytes, rows)
    return assembly.stream(container)


def gathered_stream(schema: pa.Schema, columns: list[pa.ChunkedArray], num_rows: int) -> Stream:
    """A stream of one batch, each column joined from its chunks. Requires `can_gather` of each.

    Raises:
        NotStorable: Arrow cannot write them.
    """
    known = expressible(schema)
    with refusing(schema):
        messages = gathered(schema, columns, num_rows)
    assembly = _Assembly.of(known)
    for message in messages:
        assembly.add(message.kind, message.metadata, message.body, message.body_bytes, message.num_rows)
    return assembly.stream(CONTAINER_TABLE)


class _Assembly:
    """Puts the messages of a stream one after the other."""

    def __init__(self, schema_metadata: Any, known: KnownSchema | None = None) -> None:
        head = known.message if known is not None else sealed_message(schema_metadata)
        self._fingerprint = known.fingerprint if known is not None else fingerprint_of(head)
        self._pieces: list[tuple[int, Any]] = [(0, head)]
        self._schema_bytes = self._at = len(head)
        self._entries: list[tuple[int, int, int]] = []
        self._flags = 0

    @classmethod
    def of(cls, known: KnownSchema) -> _Assembly:
        return cls(None, known)

    def add(
        self, kind: int, metadata: bytearray, body: list[tuple[int, Any]], body_bytes: int, num_rows: int
    ) -> None:
        """One more message; `body` has offsets from its beginning."""
        sealed = sealed_message(metadata)
        start = self._at + len(sealed)
        self._pieces.append((self._at, sealed))
        self._pieces += [(start + at, data) for at, data in body]
        if kind == DICTIONARY:
            self._flags |= FLAG_DICTIONARIES
        elif kind == RECORDS:
            self._entries.append((self._at, len(sealed) + body_bytes, num_rows))
        self._at = start + body_bytes

    def stream(self, container: int) -> Stream:
        """The finished stream."""
        self._pieces.append((self._at, END_OF_STREAM))
        size = self._at + len(END_OF_STREAM)
        layout = layout_of_stream(
            self._fingerprint, self._schema_bytes, self._entries, size, self._flags, container
        )
        return Stream(layout, self._pieces, sum([entry[2] for entry in self._entries]))


def layout_of_stream(
    fingerprint: bytes,
    schema_bytes: int,
    batches: list[tuple[int, int, int]],
    stream_bytes: int,
    flags: int,
    container: int,
) -> TableLayout:
    """The layout of a stream whose record batches lie at `batches` (offset, length, rows)."""
    listed = tuple(batches) if len(batches) <= LISTED_BATCHES and not flags & FLAG_DICTIONARIES else ()
    return TableLayout(
        FORMAT_VERSION, fingerprint, schema_bytes, stream_bytes, len(batches), listed, flags, container
    )


def stream_payload(stream: Stream, keepalive: Any = None) -> Payload:
    """The payload of a table that is one stream."""
    layout = encode_layout(stream.layout)
    return Payload(KIND_TABLE, layout, stream.layout.stream_bytes, stream.pieces, stream.num_rows, keepalive)


class _Plan:
    """How to lay out small batches that all look alike, down to the length of every buffer.

    Rows of fixed-width columns put one after the other produce the very same metadata each time. Where
    metadata comes a second time, what was worked out for it is kept: the new messages, and two struct
    formats, one that takes the buffers out of the body as Arrow wrote it, one that puts them back with zeros
    between them. That is three times as fast as moving them one by one.
    """

    __slots__ = ("container", "gather", "layout", "num_rows", "prefix", "scatter", "size_bytes", "written")

    def __init__(
        self,
        written: bytes,
        prefix: bytes,
        moves: list[tuple[int, int, int]],
        layout: bytes,
        rows: int,
        container: int,
    ) -> None:
        self.written = written
        """Prefix and metadata as Arrow writes them; they hold the number of rows and every buffer's length.
        """
        self.prefix = prefix
        self.layout = layout
        self.num_rows = rows
        self.container = container
        self.gather = Struct("<" + "".join([f"{length}s{_gap(length, 8)}x" for _, _, length in moves]))
        self.scatter = Struct("<" + "".join([f"{length}s{_gap(length, 64)}x" for _, _, length in moves]))
        self.size_bytes = len(prefix) + self.scatter.size + len(END_OF_STREAM)

    def payload(self, written: bytes) -> Payload:
        """Lay out a batch whose serialised form begins with this plan's metadata."""
        body = self.scatter.pack(*self.gather.unpack_from(written, len(self.written)))
        data = b"".join((self.prefix, body, END_OF_STREAM))
        return Payload(KIND_TABLE, self.layout, self.size_bytes, ((0, data),), self.num_rows)


def _gap(length: int, alignment: int) -> int:
    return -length % alignment


def small_payload(batch: pa.RecordBatch, *, container: int = CONTAINER_TABLE) -> Payload | None:
    """One small batch without dictionaries and views, laid out in one buffer; None for any other.

    Raises:
        NotStorable: Arrow cannot write it.
    """
    if batch.get_total_buffer_size() > SMALL_BYTES:
        return None
    schema = batch.schema
    known = expressible(schema)
    if known.has_dictionaries or known.has_views:
        return None
    with refusing(schema):
        return _laid_out(known, batch, container)


def _laid_out(known: KnownSchema, batch: pa.RecordBatch, container: int) -> Payload:
    written: bytes = batch.serialize().to_pybytes()
    plan: _Plan | None = known.plan
    if plan is not None and plan.container == container and written.startswith(plan.written):
        return plan.payload(written)
    body_at = PREFIX_BYTES + int.from_bytes(written[4:8], "little")
    metadata = bytearray(written[PREFIX_BYTES:body_at])
    moves, body_bytes = realign(metadata)
    prefix = known.message + sealed_message(metadata)
    body = len(prefix)
    end = body + body_bytes
    out = bytearray(end + len(END_OF_STREAM))
    out[:body] = prefix
    out[end:] = END_OF_STREAM
    for old, new, length in moves:
        out[body + new : body + new + length] = written[body_at + old : body_at + old + length]
    start, rows = len(known.message), batch.num_rows
    entry = (start, end - start, rows)
    layout = encode_layout(layout_of_stream(known.fingerprint, start, [entry], len(out), 0, container))
    head = written[:body_at]
    if known.seen == head and _dense(moves):
        known.plan = _Plan(head, prefix, moves, layout, rows, container)
    known.seen = head
    return Payload(KIND_TABLE, layout, len(out), [(0, bytes(out))], rows)


def _dense(moves: list[tuple[int, int, int]]) -> bool:
    """Whether the buffers followed each other with nothing but padding to 8 bytes between them."""
    ends = [0, *(old + length + _gap(length, 8) for old, _, length in moves)]
    return all(move[0] == end for move, end in zip(moves, ends, strict=False))


def _schema_of(stream: pa.Buffer, layout: TableLayout) -> pa.Schema:
    return parsed_schema(stream.slice(0, layout.schema_bytes), layout.fingerprint)


def open_batches(payload: pa.Buffer, layout: TableLayout) -> tuple[pa.Schema, list[pa.RecordBatch]]:
    """Schema and record batches of a stored table, over the payload's memory."""
    if len(layout.batches) == layout.num_batches and not layout.flags & FLAG_DICTIONARIES:
        schema = _schema_of(payload, layout)
        read = pa.ipc.read_record_batch
        return schema, [read(payload.slice(at, length), schema) for at, length, _ in layout.batches]
    with pa.ipc.open_stream(payload) as reader:
        return reader.schema, list(reader)


def open_table(payload: pa.Buffer, layout: TableLayout) -> pa.Table:
    """A stored table over the payload's memory; nothing is copied, dictionaries' indices included."""
    if layout.num_batches == 1 and layout.batches:
        at, length, _ = layout.batches[0]
        batch = pa.ipc.read_record_batch(payload.slice(at, length), _schema_of(payload, layout))
        return pa.Table.from_batches((batch,))
    schema, batches = open_batches(payload, layout)
    return pa.Table.from_batches(batches, schema)
