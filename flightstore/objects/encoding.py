"""From Arrow's containers to payloads: which columns are gathered, which keep their chunks, what is cut off.

May call objects.compact, composition, gather and ipc.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pyarrow as pa

from flightstore.errors import NotStorable
from flightstore.objects.base import Payload
from flightstore.objects.compact import compact_table
from flightstore.objects.composition import payload_of_streams
from flightstore.objects.gather import can_gather, can_join
from flightstore.objects.ipc import (
    CONTAINER_ARRAY,
    CONTAINER_BATCH,
    CONTAINER_CHUNKED,
    CONTAINER_SCALAR,
    Stream,
    gathered_stream,
    small_payload,
    stream_of,
    stream_payload,
)

__all__ = [
    "encode_array",
    "encode_arrow_producer",
    "encode_batch",
    "encode_chunked",
    "encode_reader",
    "encode_scalar",
    "encode_table",
    "parts_of",
    "streams_of",
]

JOINED_BYTES = 8 << 20
"""Tables whose buffers are up to this size are joined before they are laid out."""


def encode_table(table: pa.Table, *, dictionaries: bool = True) -> Payload:
    """Payload of an Arrow table; columns of many chunks become contiguous where their type allows.

    Args:
        table: The table; its memory is referred to until the payload is stored.
        dictionaries: Whether dictionaries may lose entries that no row uses.
    """
    batches = table.to_batches()
    if len(batches) == 1:
        small = small_payload(batches[0])
        if small is not None:
            return small
    streams, places = parts_of(table, dictionaries=dictionaries)
    if len(streams) == 1:
        return stream_payload(streams[0][0], table)
    payload = payload_of_streams(table.schema, table.num_rows, streams, places)
    return msgspec.structs.replace(payload, keepalive=table)


def parts_of(
    table: pa.Table, *, dictionaries: bool = True
) -> tuple[list[tuple[Stream, pa.Schema]], list[tuple[int, int]]]:
    """The streams a table is stored as, each with the schema of its columns; and for each column of the table
    its stream and its place there.
    """
    streams = streams_of(table, dictionaries=dictionaries)
    if len(streams) == 1:
        return [(streams[0][0], table.schema)], [(0, index) for index in range(table.num_columns)]
    places = {
        column: (number, index)
        for number, (_, columns) in enumerate(streams)
        for index, column in enumerate(columns)
    }
    parts = [(stream, _part(table.schema, columns)) for stream, columns in streams]
    return parts, [places[column] for column in range(table.num_columns)]


def streams_of(table: pa.Table, *, dictionaries: bool = True) -> list[tuple[Stream, list[int]]]:
    """The streams a table is stored as, and which columns each holds.

    One stream of one batch, wherever chunks can be joined; those columns whose chunks cannot be joined have a
    stream of their own, of as many batches as they have chunks.
    """
    table = compact_table(table, dictionaries=dictionaries)
    columns = list(range(table.num_columns))
    if not _is_chunked(table):
        return [(stream_of(table.schema, table.to_batches()), columns)]
    if table.get_total_buffer_size() < JOINED_BYTES and all(can_join(kind) for kind in table.schema.types):
        # Many small pieces: Arrow joins them in private memory faster than we could list them.
        joined_table = table.combine_chunks()
        return [(stream_of(joined_table.schema, joined_table.to_batches()), columns)]
    joined = [index for index in columns if can_gather(table.column(index))]
    kept = [index for index in columns if index not in set(joined)]
    streams = []
    if joined:
        schema = _part(table.schema, joined) if kept else table.schema
        arrays = [table.column(index) for index in joined]
        streams.append((gathered_stream(schema, arrays, table.num_rows), joined))
    if kept:
        part = table.select(kept) if joined else table
        streams.append((stream_of(part.schema, part.to_batches()), kept))
    return streams


def _is_chunked(table: pa.Table) -> bool:
    """Whether a column has more than one chunk, empty ones apart."""
    return any(
        column.num_chunks > 1 and sum(1 for chunk in column.chunks if len(chunk)) > 1
        for column in table.columns
    )


def _part(schema: pa.Schema, columns: list[int]) -> pa.Schema:
    return pa.schema([schema.field(index) for index in columns], schema.metadata)


def encode_batch(batch: pa.RecordBatch) -> Payload:
    """Payload of one record batch."""
    return _one_batch(batch, CONTAINER_BATCH)


def encode_array(array: pa.Array) -> Payload:
    """Payload of an array: a table of one column."""
    return _one_batch(pa.RecordBatch.from_arrays([array], [""]), CONTAINER_ARRAY)


def encode_scalar(scalar: pa.Scalar) -> Payload:
    """Payload of a scalar: a table of one column and one row.

    Raises:
        NotStorable: Arrow makes no array of it.
    """
    try:
        array = pa.array([scalar], scalar.type)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise NotStorable(f"Arrow makes no array of a scalar of type {scalar.type}: {error}") from error
    return _one_batch(pa.RecordBatch.from_arrays([array], [""]), CONTAINER_SCALAR)


def encode_chunked(column: pa.ChunkedArray) -> Payload:
    """Payload of a chunked array: a table of one column."""
    table = pa.Table.from_arrays([column], [""])
    stream = streams_of(table)[0][0]
    layout = msgspec.structs.replace(stream.layout, container=CONTAINER_CHUNKED)
    return stream_payload(stream._replace(layout=layout), table)


def _one_batch(batch: pa.RecordBatch, container: int) -> Payload:
    small = small_payload(batch, container=container)
    if small is not None:
        return small
    table = compact_table(pa.Table.from_batches([batch]), dictionaries=True)
    batches = table.to_batches() or [batch]
    return stream_payload(stream_of(batch.schema, batches, container=container), batch)


def encode_reader(reader: pa.RecordBatchReader) -> Payload:
    """Payload of all batches that are left in a reader, which is used up; they stay the batches they are."""
    schema = reader.schema
    return stream_payload(stream_of(schema, reader))


def encode_arrow_producer(value: Any) -> Payload:
    """Payload of anything with ``__arrow_c_stream__`` or ``__arrow_c_array__`` that yields a table.

    Raises:
        NotStorable: what it yields is not a table.
    """
    try:
        if hasattr(value, "__arrow_c_stream__"):
            return encode_reader(pa.RecordBatchReader.from_stream(value))
        return encode_table(pa.Table.from_batches([pa.record_batch(value)]))
    except (pa.ArrowException, ValueError, TypeError, NotImplementedError) as error:
        if isinstance(error, NotStorable | MemoryError):
            raise
        raise NotStorable(f"{type(value).__name__} does not yield an Arrow table: {error}") from error
