"""Arrow record batches <-> one Arrow IPC stream in an extent, every body buffer at a multiple of 64 bytes.

May call objects.flatmessage and objects.base. Invariants:

- The stored bytes are a stream that stock readers of any language read in place: schema, dictionary and
  record batch messages, end of stream; never compressed.
- Bodies are placed, not copied: pieces refer to the caller's buffers until the store has copied them, once.
  Only small batches are laid out in a buffer of their own, because that is quicker than many small pieces.
- A schema is written and parsed once per process. What depends on more than its bytes (extension types, which
  a process may register at any time) is never cached.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from struct import Struct
from typing import Any

import msgspec
import pyarrow as pa

from flightstore.errors import NotStorable
from flightstore.objects.base import KIND_TABLE, Payload
from flightstore.objects.flatmessage import (
    DICTIONARY,
    END_OF_STREAM,
    PREFIX_BYTES,
    RECORDS,
    body_length,
    realign,
    sealed_message,
)

__all__ = ["TableLayout", "decode_layout", "encode_batches", "open_batches", "open_table"]

FORMAT_VERSION = 1
FLAG_DICTIONARIES = 1
"""The stream holds dictionary batches: only a stream reader reads it right."""

# Stored: never renumber.
ORIGIN_ARROW, ORIGIN_BATCH = range(2)

SMALL_BYTES = 64 << 10
"""Batches up to this size are laid out in one buffer."""
LISTED_BATCHES = 16
"""More batches than this are not listed in the layout, to keep it short."""
CACHED_COLUMN_COUNTS = 64
CACHED_PER_COUNT = 4
CACHED_SCHEMAS = 128
CACHED_SCHEMA_BYTES = 256 << 10
EXTENSION_KEY = b"ARROW:extension:name"


class TableLayout(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """How a table lies in its extent. A stored format: never reorder or remove a field, append with a
    default.
    """

    version: int
    """FORMAT_VERSION of the writer."""
    fingerprint: bytes
    """blake2b, 16 bytes, over the schema message as stored (prefix and padding included)."""
    schema_bytes: int
    """Length of that message, which begins the extent."""
    stream_bytes: int
    """Length of the whole stream."""
    num_batches: int
    """Record batches in the stream."""
    batches: tuple[tuple[int, int, int], ...] = ()
    """(offset, length, rows) of each record batch message with its body; empty where there are many."""
    flags: int = 0
    """Bits FLAG_*."""
    origin: int = ORIGIN_ARROW
    """ORIGIN_*: what was put."""


class _Schema:
    """A schema, its message as stored, and how its latest small batches were laid out."""

    __slots__ = ("fingerprint", "has_dictionaries", "message", "plan", "schema", "seen")

    def __init__(self, schema: pa.Schema, message: bytes) -> None:
        self.schema = schema
        self.message = message
        self.fingerprint = _fingerprint(message)
        self.has_dictionaries = any(_has_dictionary(field.type) for field in schema)
        self.plan: _Plan | None = None
        self.seen = b""
        """Prefix and metadata of the latest batch that no plan fitted."""


_by_columns: dict[int, list[_Schema]] = {}
"""Schemas that were encoded, by number of columns, latest first: few enough that comparing each is cheap."""
_by_fingerprint: dict[bytes, pa.Schema] = {}

_encode_layout = msgspec.msgpack.Encoder().encode
decode_layout = msgspec.msgpack.Decoder(TableLayout).decode
"""Decode a TableLayout from a record's layout bytes."""


def encode_batches(
    schema: pa.Schema, batches: Iterable[pa.RecordBatch], *, origin: int = ORIGIN_ARROW, keepalive: Any = None
) -> Payload:
    """Lay out record batches of one schema as a stream.

    The payload refers to the batches' memory (small ones excepted) and keeps it alive.

    Raises:
        NotStorable: Arrow cannot write them.
    """
    batches = list(batches)
    try:
        if len(batches) == 1 and batches[0].get_total_buffer_size() <= SMALL_BYTES:
            known = _known_schema(schema)
            if not known.has_dictionaries:
                return _encode_small(known, batches[0], origin)
        return _encode_captured(schema, batches, origin, keepalive)
    except MemoryError:
        raise
    except pa.ArrowException as error:
        raise NotStorable(
            f"Arrow cannot write a table of schema {schema.to_string()[:500]}: {error}",
            hint="cast the columns that Arrow's IPC format does not take",
        ) from error


def _layout(
    known: tuple[bytes, int], batches: list[tuple[int, int, int]], stream_bytes: int, flags: int, origin: int
) -> bytes:
    listed = tuple(batches) if len(batches) <= LISTED_BATCHES and not flags & FLAG_DICTIONARIES else ()
    return _encode_layout(
        TableLayout(FORMAT_VERSION, known[0], known[1], stream_bytes, len(batches), listed, flags, origin)
    )


class _Plan:
    """How to lay out small batches that all look alike, down to the length of every buffer.

    Rows of fixed-width columns put one after the other produce the very same metadata each time. Where
    metadata comes a second time, what was worked out for it is kept: the new messages, and two struct
    formats, one that takes the buffers out of the body as Arrow wrote it, one that puts them back with zeros
    between them. That is three times as fast as moving them one by one.
    """

    __slots__ = ("gather", "layout", "num_rows", "origin", "prefix", "scatter", "size_bytes", "written")

    def __init__(
        self,
        written: bytes,
        prefix: bytes,
        moves: list[tuple[int, int, int]],
        layout: bytes,
        rows: int,
        origin: int,
    ) -> None:
        self.written = written
        """Prefix and metadata as Arrow writes them; they hold the number of rows and every buffer's length.
        """
        self.prefix = prefix
        self.layout = layout
        self.num_rows = rows
        self.origin = origin
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


def _encode_small(known: _Schema, batch: pa.RecordBatch, origin: int) -> Payload:
    """One batch without dictionaries, laid out in one buffer."""
    written: bytes = batch.serialize().to_pybytes()
    plan = known.plan
    if plan is not None and plan.origin == origin and written.startswith(plan.written):
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
    layout = _layout((known.fingerprint, start), [(start, end - start, rows)], len(out), 0, origin)
    head = written[:body_at]
    if known.seen == head and _dense(moves):
        known.plan = _Plan(head, prefix, moves, layout, rows, origin)
    known.seen = head
    return Payload(KIND_TABLE, layout, len(out), [(0, bytes(out))], rows)


def _dense(moves: list[tuple[int, int, int]]) -> bool:
    """Whether the buffers followed each other with nothing but padding to 8 bytes between them."""
    ends = [0, *(old + length + _gap(length, 8) for old, _, length in moves)]
    return all(move[0] == end for move, end in zip(moves, ends, strict=False))


class _Sink:
    """A file for Arrow's stream writer that keeps what is written, message by message.

    Arrow hands metadata over as bytes and each body buffer as a ``pa.Buffer`` of its own, without copying it.
    """

    closed = False

    def __init__(self) -> None:
        self.messages: list[tuple[bytearray, list[tuple[int, Any]]]] = []
        """(metadata, [(offset in the body, buffer)])"""
        self._head = bytearray()
        self._body_at = 0
        self._body_bytes = 0

    def write(self, data: Any) -> int:
        size = data.size if isinstance(data, pa.Buffer) else len(data)
        if self._body_at < self._body_bytes:
            self.messages[-1][1].append((self._body_at, data))
            self._body_at += size
            return int(size)
        head = self._head
        head += data
        if len(head) >= PREFIX_BYTES:
            length = int.from_bytes(head[4:8], "little")
            if length and len(head) >= PREFIX_BYTES + length:
                self._begin_body(head[PREFIX_BYTES:])
        return int(size)

    def _begin_body(self, metadata: bytearray) -> None:
        self._head = bytearray()
        self._body_at, self._body_bytes = 0, body_length(metadata)[1]
        self.messages.append((metadata, []))

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


def _capture(
    schema: pa.Schema, batches: list[pa.RecordBatch]
) -> list[tuple[bytearray, list[tuple[int, Any]]]]:
    """The messages Arrow's writer makes of `batches`."""
    sink = _Sink()
    options = pa.ipc.IpcWriteOptions(compression=None)
    with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.messages


def _encode_captured(
    schema: pa.Schema, batches: list[pa.RecordBatch], origin: int, keepalive: Any
) -> Payload:
    """Any batches: what the writer wrote, each buffer as a piece at its new place."""
    messages = _capture(schema, batches)
    head = sealed_message(messages[0][0])
    pieces: list[tuple[int, Any]] = [(0, head)]
    entries = []
    remaining = iter(batches)
    flags = 0
    at = len(head)
    for metadata, body in messages[1:]:
        kind = body_length(metadata)[0]
        moves, body_bytes = realign(metadata)
        sealed = sealed_message(metadata)
        pieces.append((at, sealed))
        start = at + len(sealed)
        at_offset = dict(body)
        for old, new, length in moves:
            pieces.append((start + new, _body_slice(at_offset, old, length)))
        if kind == DICTIONARY:
            flags |= FLAG_DICTIONARIES
        elif kind == RECORDS:
            entries.append((at, len(sealed) + body_bytes, next(remaining).num_rows))
        at = start + body_bytes
    pieces.append((at, END_OF_STREAM))
    size_bytes = at + len(END_OF_STREAM)
    layout = _layout((_fingerprint(head), len(head)), entries, size_bytes, flags, origin)
    rows = sum([entry[2] for entry in entries])
    return Payload(KIND_TABLE, layout, size_bytes, pieces, rows, keepalive)


def _body_slice(body: dict[int, Any], offset: int, length: int) -> Any:
    """The `length` bytes at `offset` of a body that was written as the buffers `body`.

    A buffer is normally one write. Were a writer to cut or join them, the body is put together first: slower,
    right.
    """
    data = body.get(offset)
    size = -1 if data is None else data.size if isinstance(data, pa.Buffer) else len(data)
    if size == length:
        return data
    whole = b"".join([bytes(part) for _, part in sorted(body.items(), key=lambda item: item[0])])
    return whole[offset : offset + length]


def _fingerprint(message: bytes) -> bytes:
    return blake2b(message, digest_size=16).digest()


def _known_schema(schema: pa.Schema) -> _Schema:
    """The schema with its message, from the cache where it can be."""
    bucket = _by_columns.get(len(schema))
    if bucket is not None:
        for known in bucket:
            if schema.equals(known.schema, check_metadata=True):
                return known
    written = schema.serialize().to_pybytes()
    message = sealed_message(written[PREFIX_BYTES:])
    known = _Schema(schema, message)
    if _cacheable(message):
        if len(_by_columns) >= CACHED_COLUMN_COUNTS:
            _by_columns.clear()
        # A new list each time: other threads may be walking the old one.
        _by_columns[len(schema)] = [known, *(bucket or ())[: CACHED_PER_COUNT - 1]]
    return known


def _cacheable(message: bytes) -> bool:
    return len(message) <= CACHED_SCHEMA_BYTES and EXTENSION_KEY not in message


def _has_dictionary(kind: pa.DataType) -> bool:
    """Whether a dictionary occurs anywhere in a type."""
    if isinstance(kind, pa.BaseExtensionType):
        return _has_dictionary(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return True
    return any(_has_dictionary(kind.field(i).type) for i in range(kind.num_fields))


def _schema_of(payload: pa.Buffer, layout: TableLayout) -> pa.Schema:
    """The schema of a stored table, parsed once per process."""
    schema = _by_fingerprint.get(layout.fingerprint)
    if schema is None:
        message = payload.slice(0, layout.schema_bytes)
        schema = pa.ipc.read_schema(message)
        if _cacheable(message.to_pybytes()):
            if len(_by_fingerprint) >= CACHED_SCHEMAS:
                _by_fingerprint.clear()
            _by_fingerprint[layout.fingerprint] = schema
    return schema


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
