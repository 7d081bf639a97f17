"""Composed tables: columns that lie in several Arrow streams, most of them other objects'.

A plain table is one stream. A composed one lists *segments* (streams, each in one of the object's extents)
and says for each column in which columns of which segments its rows lie, one after the other. So a new
column, a selection, a rename or a concatenation writes no row again: the new object shares the extents of
those it is made of, which live as long as anybody uses them.

Everything here is pure: from stored tables to the payload of a new object and the extents it shares;
`lifecycle.sealing` counts those in the transaction that seals it. May call objects.base, ipc and schemas.

The schema of a composed table is that of its columns in their segments, with the metadata of the first
segment's schema; a table for which that is not so (renamed columns, other metadata) has a schema message of
its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from flightstore.catalog.records import Extent, Member
from flightstore.objects.apart import open_apart
from flightstore.objects.base import KIND_COMPOSED, KIND_TABLE, Handle, Payload, aligned
from flightstore.objects.capture import referenced_bytes, size_of
from flightstore.objects.ipc import Stream, TableLayout, decode_layout, open_table
from flightstore.objects.schemas import fingerprint_of, known_schema, parsed_schema, same_schema

__all__ = [
    "Composition",
    "Piece",
    "SegmentSource",
    "Source",
    "compose",
    "decode_composed",
    "derived_schema",
    "joined",
    "open_composed",
    "own_segments",
    "payload_of_part",
    "payload_of_streams",
    "source_of",
    "table_of",
]

FORMAT_VERSION = 1
INLINE_LAYOUT_BYTES = 900
"""A longer layout lies in the extent, after the streams."""


class Segment(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One stream of a composed table. A stored format: append with a default."""

    extent: int
    """0: it lies in the object's own extent; n: in the n-th of those it shares."""
    offset: int
    """Where it begins there."""
    layout: TableLayout
    """How it lies; offsets from its beginning."""
    source: bytes = b""
    """Id of the object it was put with; empty for this one."""
    bodies: int = 0
    """Which of the shared extents its messages' bodies are: each is the whole extent; 0: they lie in the
    stream, as usual."""


class ColumnRun(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Consecutive columns that lie in consecutive columns of the same segments. A stored format."""

    count: int
    """How many columns."""
    pieces: tuple[tuple[int, int], ...]
    """(segment, column of the first of them there) for each part of the rows, in order."""


class ComposedLayout(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """How a composed table lies in its extents. A stored format: append with a default."""

    version: int
    """FORMAT_VERSION of the writer."""
    segments: tuple[Segment, ...] = ()
    """The streams."""
    columns: tuple[ColumnRun, ...] = ()
    """The columns, in order."""
    shared: int = 0
    """How many extents it shares: the last ones of the object's."""
    schema_at: tuple[int, int] | None = None
    """Where in the first extent the schema message lies (offset, length); None if it is the segments'."""
    schema_fingerprint: bytes = b""
    """blake2b, 16 bytes, over that message."""
    at: tuple[int, int] | None = None
    """Where in the first extent this whole layout lies (offset, length), if too long for the record; all but
    the version is empty then."""


_encode = msgspec.msgpack.Encoder().encode
decode_composed = msgspec.msgpack.Decoder(ComposedLayout).decode
"""Decode a ComposedLayout."""


class SegmentSource(NamedTuple):
    """A stream that is stored, or about to be: `extent` is None for one of the new object's own."""

    extent: Extent | None
    offset: int
    layout: TableLayout
    source: Member | None
    """The object it was put with; None for the new one."""
    schema: pa.Schema
    stream: pa.Buffer | None
    """Its bytes, when stored."""
    bodies: Extent | None = None
    """The extent that its bodies are in, if they are not in the stream."""
    body: pa.Buffer | None = None
    """The bytes of that extent, when stored."""

    @property
    def key(self) -> tuple[Any, int]:
        """What tells segments apart."""
        return self.extent, self.offset


class Piece(NamedTuple):
    """Rows of one column: a column of a segment."""

    segment: SegmentSource
    column: int


class Source(NamedTuple):
    """A stored table, taken apart for composition."""

    schema: pa.Schema
    num_rows: int
    columns: Sequence[tuple[Piece, ...]]
    """For each column, where its rows lie."""


class Composition(NamedTuple):
    """A new object made of others."""

    payload: Payload
    shared: tuple[Extent, ...]
    """Extents it shares, in the order in which its layout numbers them after its own."""
    members: tuple[Member, ...]
    """The objects those were put with."""
    nbytes: int
    """Bytes of its columns, shared ones included."""


# --- reading ---


def layout_of(handle: Handle) -> ComposedLayout:
    """The layout of a composed table."""
    layout = decode_composed(handle.record.layout)
    if layout.at is not None:
        at, length = layout.at
        layout = decode_composed(handle.payload.slice(at, length))
    return layout


def open_composed(handle: Handle) -> pa.Table:
    """A composed table over its extents' memory; nothing is copied."""
    layout = layout_of(handle)
    tables = [_opened(handle, layout, segment) for segment in layout.segments]
    columns: list[pa.ChunkedArray] = []
    for run in layout.columns:
        for index in range(run.count):
            columns.append(joined([tables[number].column(at + index) for number, at in run.pieces]))
    schema = _schema(handle, layout)
    if not columns:
        return empty_columns(schema, handle.record.num_rows or 0)
    return pa.Table.from_arrays(columns, schema=schema)


def empty_columns(schema: pa.Schema, num_rows: int) -> pa.Table:
    """A table of no columns that has rows all the same."""
    with_one = pa.schema([pa.field("", pa.null())], schema.metadata)
    return pa.Table.from_arrays([pa.nulls(num_rows)], schema=with_one).select([])


def _number(handle: Handle, layout: ComposedLayout, shared: int) -> int:
    """Which of the object's extents its layout means: 0 for its own, else one of those it shares."""
    return len(handle.record.extents) - layout.shared + shared - 1 if shared else 0


def _stream(handle: Handle, layout: ComposedLayout, segment: Segment) -> pa.Buffer:
    extent = handle.extent(_number(handle, layout, segment.extent))
    return extent.slice(segment.offset, segment.layout.stream_bytes)


def _opened(handle: Handle, layout: ComposedLayout, segment: Segment) -> pa.Table:
    stream = _stream(handle, layout, segment)
    if not segment.bodies:
        return open_table(stream, segment.layout)
    return open_apart(stream, handle.extent(_number(handle, layout, segment.bodies)))


def joined(parts: list[pa.ChunkedArray]) -> pa.ChunkedArray:
    """A column whose rows lie in several segments."""
    if len(parts) == 1:
        return parts[0]
    return pa.chunked_array([chunk for part in parts for chunk in part.chunks], type=parts[0].type)


def _schema(handle: Handle, layout: ComposedLayout) -> pa.Schema:
    if layout.schema_at is not None:
        return parsed_schema(handle.payload.slice(*layout.schema_at), layout.schema_fingerprint)
    schemas = [
        _segment_schema(_stream(handle, layout, segment), segment.layout) for segment in layout.segments
    ]
    runs = layout.columns
    if len(runs) == 1 and runs[0].count == len(schemas[runs[0].pieces[0][0]]):
        return schemas[runs[0].pieces[0][0]]
    first = [(schemas[run.pieces[0][0]], run.pieces[0][1] + k) for run in runs for k in range(run.count)]
    return derived_schema(first)


def derived_schema(first: Sequence[tuple[pa.Schema, int]]) -> pa.Schema:
    """The schema of columns given by the schemas and columns of their first pieces."""
    metadata = first[0][0].metadata if first else None
    return pa.schema([schema.field(column) for schema, column in first], metadata)


def _segment_schema(stream: pa.Buffer, layout: TableLayout) -> pa.Schema:
    return parsed_schema(stream.slice(0, layout.schema_bytes), layout.fingerprint)


def source_of(handle: Handle) -> Source:
    """A stored table, plain or composed, taken apart."""
    record = handle.record
    own = Member(bytes(handle.id), record.serial)
    if record.kind == KIND_TABLE:
        layout = decode_layout(record.layout)
        schema = _segment_schema(handle.payload, layout)
        segment = SegmentSource(Extent(*record.extents[0]), 0, layout, own, schema, handle.payload)
        pieces = [(Piece(segment, index),) for index in range(len(schema))]
        return Source(schema, record.num_rows or 0, pieces)
    composed = layout_of(handle)
    serials = {member.id: member for member in record.members}
    segments = [
        _segment_source(handle, composed, segment, serials.get(segment.source) if segment.source else own)
        for segment in composed.segments
    ]
    columns = [
        tuple([Piece(segments[number], at + index) for number, at in run.pieces])
        for run in composed.columns
        for index in range(run.count)
    ]
    return Source(_schema(handle, composed), record.num_rows or 0, columns)


def _segment_source(
    handle: Handle, layout: ComposedLayout, segment: Segment, source: Member | None
) -> SegmentSource:
    stream = _stream(handle, layout, segment)
    extent = Extent(*handle.record.extents[_number(handle, layout, segment.extent)])
    schema = _segment_schema(stream, segment.layout)
    bodies = _number(handle, layout, segment.bodies) if segment.bodies else None
    # A source that was deleted before this object was sealed is no member; its bytes are shared all the same.
    member = source or Member(segment.source, 0)
    if bodies is None:
        return SegmentSource(extent, segment.offset, segment.layout, member, schema, stream)
    body = Extent(*handle.record.extents[bodies]), handle.extent(bodies)
    return SegmentSource(extent, segment.offset, segment.layout, member, schema, stream, *body)


def table_of(segment: SegmentSource) -> pa.Table:
    """The table that a stored segment is, over its memory."""
    assert segment.stream is not None, "only what is stored can be read"
    if segment.body is None:
        return open_table(segment.stream, segment.layout)
    return open_apart(segment.stream, segment.body)


# --- writing ---


def own_segments(streams: Sequence[tuple[Stream, pa.Schema]]) -> list[SegmentSource]:
    """The new object's own streams as segments, placed one after the other."""
    segments, at = [], 0
    for stream, schema in streams:
        segments.append(SegmentSource(None, at, stream.layout, None, schema, None))
        at = aligned(at + stream.layout.stream_bytes)
    return segments


def payload_of_part(streams: Sequence[tuple[Stream, pa.Schema]]) -> Payload:
    """Streams for an extent that a table yet to be composed will list, placed as `own_segments` says."""
    pieces = _placed([stream for stream, _ in streams])
    size = pieces[-1][0] + size_of(pieces[-1][1])
    return Payload(KIND_COMPOSED, b"", size, pieces, streams[0][0].num_rows)


def payload_of_streams(
    schema: pa.Schema,
    num_rows: int,
    streams: Sequence[tuple[Stream, pa.Schema]],
    places: Sequence[tuple[int, int]],
) -> Payload:
    """A table of several streams of its own: column *i* is column ``places[i][1]`` of stream
    ``places[i][0]``.
    """
    segments = own_segments(streams)
    columns = [(Piece(segments[number], column),) for number, column in places]
    return compose(Source(schema, num_rows, columns), [stream for stream, _ in streams]).payload


def compose(wanted: Source, streams: Sequence[Stream] = ()) -> Composition:
    """A new object with the columns of `wanted`; `streams` are its own, as `own_segments` placed them."""
    segments = list(
        {piece.segment.key: piece.segment for column in wanted.columns for piece in column}.values()
    )
    first = [(column[0].segment.schema, column[0].column) for column in wanted.columns if column]
    derives = len(first) == len(wanted.columns) and same_schema(derived_schema(first), wanted.schema)
    pieces = _placed(streams)
    size = pieces[-1][0] + size_of(pieces[-1][1]) if pieces else 0
    layout = ComposedLayout(FORMAT_VERSION)
    if not derives:
        message = known_schema(wanted.schema).message
        pieces.append((aligned(size), message))
        layout = msgspec.structs.replace(
            layout, schema_at=(aligned(size), len(message)), schema_fingerprint=fingerprint_of(message)
        )
        size = aligned(size) + len(message)
    used = [extent for segment in segments for extent in (segment.extent, segment.bodies)]
    shared = list(dict.fromkeys(extent for extent in used if extent is not None))
    encoded = _encode(_filled(layout, wanted, segments, shared))
    if len(encoded) > INLINE_LAYOUT_BYTES:
        at = (aligned(size), len(encoded))
        pieces.append((at[0], encoded))
        size = sum(at)
        encoded = _encode(ComposedLayout(FORMAT_VERSION, at=at))
    payload = Payload(KIND_COMPOSED, encoded, size, pieces, wanted.num_rows)
    members = {segment.source for segment in segments if segment.source is not None and segment.source.serial}
    return Composition(payload, tuple(shared), tuple(sorted(members)), _nbytes(wanted, segments))


def _placed(streams: Sequence[Stream]) -> list[tuple[int, Any]]:
    pieces, at = [], 0
    for stream in streams:
        pieces += [(at + offset, data) for offset, data in stream.pieces]
        at = aligned(at + stream.layout.stream_bytes)
    return pieces


def _filled(
    layout: ComposedLayout, wanted: Source, segments: list[SegmentSource], shared: list[Extent]
) -> ComposedLayout:
    """The layout with its segments and columns."""
    extents = {extent: number for number, extent in enumerate(shared, 1)}
    stored = tuple(
        Segment(
            extents[segment.extent] if segment.extent is not None else 0,
            segment.offset,
            segment.layout,
            segment.source.id if segment.source is not None else b"",
            extents[segment.bodies] if segment.bodies is not None else 0,
        )
        for segment in segments
    )
    numbers = {segment.key: number for number, segment in enumerate(segments)}
    columns = [
        tuple([(numbers[piece.segment.key], piece.column) for piece in column]) for column in wanted.columns
    ]
    return msgspec.structs.replace(layout, segments=stored, columns=_runs(columns), shared=len(shared))


def _runs(columns: list[tuple[tuple[int, int], ...]]) -> tuple[ColumnRun, ...]:
    """Consecutive columns put together where they lie in consecutive columns."""
    runs: list[ColumnRun] = []
    for pieces in columns:
        if runs:
            last = runs[-1]
            if tuple([(number, at + last.count) for number, at in last.pieces]) == pieces:
                runs[-1] = ColumnRun(last.count + 1, last.pieces)
                continue
        runs.append(ColumnRun(1, pieces))
    return tuple(runs)


def _nbytes(wanted: Source, segments: list[SegmentSource]) -> int:
    """Bytes of the columns: whole segments by their length, parts of one by its columns."""
    used: dict[Any, set[int]] = {}
    for column in wanted.columns:
        for piece in column:
            used.setdefault(piece.segment.key, set()).add(piece.column)
    total = 0
    for segment in segments:
        columns = used[segment.key]
        if segment.stream is None or (segment.body is None and len(columns) == len(segment.schema)):
            total += segment.layout.stream_bytes
            continue
        table = table_of(segment)
        total += sum(referenced_bytes(table.column(column)) for column in columns)
    return total
