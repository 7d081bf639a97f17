"""Tables in batches small enough for a client's receive limit.

What counts is the size of the message, not ``nbytes``: slices of views and list views carry the buffers of
the whole column along. Such slices are written and read back as the store writes them (objects.ipc), with
what their rows refer to and no more. All other slices share the table's memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from flightstore.objects.compact import compact_table
from flightstore.objects.ipc import stream_of
from flightstore.objects.schemas import is_view, nested_types

__all__ = ["DEFAULT_BATCH_BYTES", "resliced"]

DEFAULT_BATCH_BYTES = 2 << 20
"""Half of what Go, JavaScript, Rust and C# receive by default."""


def resliced(table: pa.Table, max_bytes: int = DEFAULT_BATCH_BYTES) -> pa.Table:
    """The same rows in batches whose messages stay within `max_bytes`; a row that is larger is one by itself.

    Dictionaries are not counted: they are messages of their own.
    """
    small: list[pa.RecordBatch] = []
    for batch in table.to_batches():
        small += _slices(batch, max_bytes)
    return pa.Table.from_batches(small, table.schema)


def _slices(batch: pa.RecordBatch, max_bytes: int) -> Iterator[pa.RecordBatch]:
    rows, size = batch.num_rows, pa.ipc.get_record_batch_size(batch)
    if size <= max_bytes or rows <= 1:
        yield batch
        return
    shared = [index for index, field in enumerate(batch.schema) if _shares_buffers(field.type)]
    start, guess = 0, max(rows * max_bytes // size, 1)
    while start < rows:
        count = min(guess, rows - start)
        piece, size = _cut(batch, start, count, shared)
        while size > max_bytes and count > 1:
            count = max(min(count * max_bytes // size, count - 1), 1)
            piece, size = _cut(batch, start, count, shared)
        yield piece
        start += count
        guess = max(count, count * max_bytes // max(size, 1) * 9 // 10)


def _cut(batch: pa.RecordBatch, start: int, count: int, shared: list[int]) -> tuple[pa.RecordBatch, int]:
    piece = batch.slice(start, count)
    if shared:
        piece = _rewritten(piece, shared)
    return piece, pa.ipc.get_record_batch_size(piece)


def _rewritten(batch: pa.RecordBatch, columns: list[int]) -> pa.RecordBatch:
    """The same rows, those columns in memory of their own, without what the rows do not refer to."""
    schema = batch.schema
    part = pa.schema([schema.field(index) for index in columns])
    table = pa.Table.from_batches([pa.record_batch([batch.column(index) for index in columns], schema=part)])
    stream = stream_of(part, compact_table(table, dictionaries=False).to_batches())
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


def _shares_buffers(kind: pa.DataType) -> bool:
    """Whether a slice of such a column refers to more buffers than its rows need."""
    types = pa.types
    return any(
        is_view(inner) or types.is_list_view(inner) or types.is_large_list_view(inner)
        for inner in nested_types(kind)
    )
