"""Tables in batches small enough for a client's receive limit.

What counts is the size of the message, not ``nbytes``. Most slices share the table's memory. Some have to be
copied: slices of views and list views carry the buffers of the whole column along, so they are written and
read back as the store writes them (objects.ipc), with what their rows refer to and no more; and a dictionary
above the limit is cut to the entries that each slice uses.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

import pyarrow as pa

from flightstore.gateway.hydrating import hydrated, plain_schema
from flightstore.objects.capture import referenced_bytes
from flightstore.objects.compact import compact_table
from flightstore.objects.ipc import stream_of
from flightstore.objects.schemas import is_view, nested_types

__all__ = ["DEFAULT_BATCH_BYTES", "reader_of", "resliced", "slices"]

DEFAULT_BATCH_BYTES = 2 << 20
"""Half of what Go, JavaScript, Rust and C# receive by default."""
FIRST_ROWS = 64
"""Rows that are hydrated at first, until it is known how large they become."""


def reader_of(
    table: pa.Table,
    max_bytes: int,
    hydrate: Collection[str] = (),
    guard: Callable[[Iterator[Any]], Iterator[Any]] = iter,
) -> pa.RecordBatchReader:
    """The rows in batches whose messages stay within `max_bytes`; a row that is larger is one by itself.

    What has to be copied is copied while it is read, a slice at a time, by Python; else the reader is
    Arrow's own.

    Args:
        table: The rows.
        max_bytes: What the client receives.
        hydrate: Types to be sent as plain ones, see hydrating.
        guard: Is given what is done while reading, and sees its errors.

    Raises:
        InvalidArgument: there is no such kind of types to hydrate.
        NotConvertible: Arrow cannot convert a column.
    """
    schema = plain_schema(table.schema, hydrate)
    if not schema.equals(table.schema):
        hydrated(table.slice(0, 1), hydrate)  # if it cannot be done, that is to be said now
        pieces: Iterator[Any] = (
            part for batch in table.to_batches() for part in _hydrated(batch, max_bytes, hydrate)
        )
    elif any(_wastes(column, max_bytes) for column in table.columns):
        pieces = slices(table, max_bytes)
    else:
        return resliced(table, max_bytes).to_reader()
    return pa.RecordBatchReader.from_batches(schema, guard(pieces))


def resliced(table: pa.Table, max_bytes: int = DEFAULT_BATCH_BYTES) -> pa.Table:
    """The same rows in such batches, all at once: what has to be copied takes as much as the table."""
    return pa.Table.from_batches(slices(table, max_bytes), table.schema)


def slices(table: pa.Table, max_bytes: int) -> Iterator[pa.RecordBatch]:
    """The same rows in such batches."""
    for batch in table.to_batches():
        yield from _slices(batch, max_bytes)


def _hydrated(batch: pa.RecordBatch, max_bytes: int, kinds: Collection[str]) -> Iterator[pa.RecordBatch]:
    start, count = 0, FIRST_ROWS
    while start < batch.num_rows:
        piece = hydrated(pa.Table.from_batches([batch.slice(start, count)]), kinds)
        start += count
        size = 0
        for part in slices(piece, max_bytes):
            size += pa.ipc.get_record_batch_size(part)
            yield part
        count = max(1, min(count * 4, count * 2 * max_bytes // max(size, 1)))


def _slices(batch: pa.RecordBatch, max_bytes: int) -> Iterator[pa.RecordBatch]:
    rows, size = batch.num_rows, pa.ipc.get_record_batch_size(batch)
    wasteful = [index for index, column in enumerate(batch.columns) if _wastes(column, max_bytes)]
    cut = any(_dictionary_bytes(batch.column(index)) > max_bytes for index in wasteful)
    if rows <= 1 or (size <= max_bytes and not cut):
        yield batch
        return
    start, guess = 0, max(rows * max_bytes // max(size, max_bytes), 1)
    while start < rows:
        count = min(guess, rows - start)
        piece, size = _cut(batch.slice(start, count), wasteful, dictionaries=cut)
        while size > max_bytes and count > 1:
            count = max(min(count * max_bytes // size, count - 1), 1)
            piece, size = _cut(batch.slice(start, count), wasteful, dictionaries=cut)
        yield piece
        start += count
        guess = max(count, count * max_bytes // max(size, 1) * 9 // 10)


def _cut(piece: pa.RecordBatch, wasteful: list[int], *, dictionaries: bool) -> tuple[pa.RecordBatch, int]:
    """A slice without what it does not need, and the size of its largest message."""
    if wasteful:
        piece = _rewritten(piece, wasteful, dictionaries)
    size = pa.ipc.get_record_batch_size(piece)
    if dictionaries:
        size = max(size, *(_dictionary_bytes(piece.column(index)) for index in wasteful))
    return piece, size


def _rewritten(batch: pa.RecordBatch, columns: list[int], dictionaries: bool) -> pa.RecordBatch:
    """The same rows, those columns in memory of their own, without what the rows do not refer to."""
    schema = batch.schema
    part = pa.schema([schema.field(index) for index in columns])
    table = pa.Table.from_batches([pa.record_batch([batch.column(index) for index in columns], schema=part)])
    stream = stream_of(part, compact_table(table, dictionaries=dictionaries).to_batches())
    out = bytearray(stream.layout.stream_bytes)
    for at, data in stream.pieces:
        view = memoryview(data).cast("B")
        out[at : at + view.nbytes] = view
    with pa.ipc.open_stream(pa.py_buffer(out)) as reader:
        fresh = reader.read_next_batch()
    arrays = list(batch.columns)
    for index, array in zip(columns, fresh.columns, strict=True):
        arrays[index] = array
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _wastes(column: pa.Array | pa.ChunkedArray, max_bytes: int) -> bool:
    """Whether a slice of a column may have to be copied."""
    types = pa.types
    for kind in nested_types(column.type):
        if is_view(kind) or types.is_list_view(kind) or types.is_large_list_view(kind):
            return True
        if types.is_dictionary(kind):
            chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
            return any(_dictionary_bytes(chunk) > max_bytes for chunk in chunks)
    return False


def _dictionary_bytes(array: pa.Array) -> int:
    """The size of the largest dictionary in an array, at any depth."""
    if isinstance(array.type, pa.BaseExtensionType):
        return _dictionary_bytes(array.storage)
    types, kind = pa.types, array.type
    if types.is_dictionary(kind):
        return max(referenced_bytes(array.dictionary), _dictionary_bytes(array.dictionary))
    if types.is_struct(kind) or types.is_union(kind):
        children = [array.field(index) for index in range(kind.num_fields)]
    elif types.is_map(kind):
        children = [array.keys, array.items]
    elif types.is_nested(kind) or types.is_run_end_encoded(kind):
        children = [array.values]
    else:
        return 0
    return max((_dictionary_bytes(child) for child in children), default=0)
