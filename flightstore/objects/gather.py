"""Columns of many chunks on their way into the store: each becomes one contiguous array, and the gather is
the copy.

What can be gathered: every type whose buffers are laid end to end (fixed width, booleans and null masks bit
by bit, strings and binaries with their offsets added up), and dictionaries that are the same in all chunks.
Nested types, views, run-end encoded columns and unions keep their chunks. May call objects.capture and
objects.flatmessage.

How: a batch of one row gives the message, whose numbers are then changed to those of the whole; the buffers
are lists of pieces of the chunks' own memory, put in their places by the store's one copy. Bit masks and
offsets, which change, are made in private memory: an eighth of a byte, or four, for each row.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from flightstore.objects.capture import capture, size_of
from flightstore.objects.flatmessage import DICTIONARY, RECORDS, relay, resize
from flightstore.objects.schemas import null_row, storage

__all__ = ["Gathered", "can_gather", "can_join", "gathered"]

PIECE_BYTES = 32 << 10
"""Chunks smaller than this on average are joined by Arrow in private memory: quicker than piece by piece."""

Spans = list[tuple[int, Any]]
"""(offset, bytes-like object), ascending: what one buffer, or body, is made of."""


class Gathered(NamedTuple):
    """A message whose buffers are pieces."""

    kind: int
    metadata: bytearray
    body: Spans
    body_bytes: int
    num_rows: int


def can_gather(column: pa.ChunkedArray) -> bool:
    """Whether the chunks of a column can become one."""
    kind = storage(column.type)
    types = pa.types
    if types.is_dictionary(kind):
        return _same_dictionaries(column)
    if types.is_string(kind) or types.is_binary(kind):
        return sum([_offsets_of(chunk, np.int32)[2] for chunk in _stored(column)]) < 1 << 31
    return can_join(kind)


def can_join(kind: pa.DataType) -> bool:
    """Whether the buffers of a type's chunks can be laid end to end, if they are not too long."""
    kind = storage(kind)
    types = pa.types
    return bool(
        types.is_primitive(kind)
        or types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
        or types.is_decimal(kind)
        or types.is_interval(kind)
        or types.is_null(kind)
    )


def _stored(column: pa.ChunkedArray) -> list[pa.Array]:
    chunks = [chunk for chunk in column.chunks if len(chunk)] or column.chunks[:1]
    return [chunk.storage if isinstance(chunk, pa.ExtensionArray) else chunk for chunk in chunks]


def _same_dictionaries(column: pa.ChunkedArray) -> bool:
    chunks = _stored(column)
    first = chunks[0].dictionary
    addresses = _addresses(first)
    return all(
        _addresses(chunk.dictionary) == addresses or chunk.dictionary.equals(first) for chunk in chunks[1:]
    )


def _addresses(array: pa.Array) -> list[tuple[int, int]]:
    whole = [(buffer.address, buffer.size) if buffer else (0, 0) for buffer in array.buffers()]
    return [*whole, (array.offset, len(array))]


def gathered(schema: pa.Schema, columns: list[pa.ChunkedArray], num_rows: int) -> list[Gathered]:
    """The messages after the schema's, of one record batch with all rows. Requires `can_gather` of each."""
    stored = [_stored(column) for column in columns]
    sample = [
        null_row(column.type, getattr(chunks[0], "dictionary", None))
        for column, chunks in zip(columns, stored, strict=True)
    ]
    messages = capture(schema, [pa.RecordBatch.from_arrays(sample, schema=schema)])[1:]
    made = [_whole(message) for message in messages if message.kind == DICTIONARY]
    metadata = next(message.metadata for message in messages if message.kind == RECORDS)
    nodes: list[tuple[int, int]] = []
    buffers: list[tuple[int, Spans]] = []
    for chunks in stored:
        nulls, spans = _column(chunks, num_rows)
        nodes.append((num_rows, nulls))
        buffers += spans
    resize(metadata, num_rows, nodes)
    return [*made, _laid_out(RECORDS, metadata, buffers, num_rows)]


def _whole(message: Any) -> Gathered:
    """A captured message as it is."""
    buffers = [(size_of(data), [(0, data)]) for data in message.buffers]
    return _laid_out(message.kind, message.metadata, buffers, 0)


def _laid_out(kind: int, metadata: bytearray, buffers: list[tuple[int, Spans]], rows: int) -> Gathered:
    offsets, body_bytes = relay(metadata, [length for length, _ in buffers])
    body = [
        (start + at, data)
        for start, (_, spans) in zip(offsets, buffers, strict=True)
        for at, data in spans
        if size_of(data)
    ]
    return Gathered(kind, metadata, body, body_bytes, rows)


def _column(chunks: list[pa.Array], num_rows: int) -> tuple[int, list[tuple[int, Spans]]]:
    """Null count of the joined chunks, and (length, pieces) of each of their buffers."""
    kind = chunks[0].type
    if pa.types.is_null(kind):
        return num_rows, []
    if pa.types.is_dictionary(kind):
        chunks = [chunk.indices for chunk in chunks]
        kind = kind.index_type
    nulls = sum([chunk.null_count for chunk in chunks])
    masks = _bits([_mask(chunk) for chunk in chunks]) if nulls else (0, [])
    if pa.types.is_boolean(kind):
        return nulls, [masks, _bits([_values(chunk) for chunk in chunks])]
    if _nbytes(chunks) < PIECE_BYTES * len(chunks) and len(chunks) > 1:
        chunks = [pa.concat_arrays(chunks)]
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return nulls, [masks, *_strings(chunks, np.int32)]
    if pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
        return nulls, [masks, *_strings(chunks, np.int64)]
    return nulls, [masks, _fixed(chunks, kind.byte_width)]


def _nbytes(chunks: list[pa.Array]) -> int:
    return sum([chunk.nbytes for chunk in chunks])


def _mask(chunk: pa.Array) -> pa.Array:
    """Validity of a chunk as booleans."""
    bits = chunk.buffers()[0]
    if bits is None:
        return pa.repeat(True, len(chunk))
    return pa.Array.from_buffers(pa.bool_(), len(chunk), [None, bits], 0, chunk.offset)


def _values(chunk: pa.Array) -> pa.Array:
    """The values of booleans, whatever is null."""
    return pa.Array.from_buffers(pa.bool_(), len(chunk), [None, chunk.buffers()[1]], 0, chunk.offset)


def _bits(parts: list[pa.Array]) -> tuple[int, Spans]:
    """Booleans joined bit by bit, at bit 0."""
    joined = pa.concat_arrays(parts)
    bits = joined.buffers()[1]
    length = -(-len(joined) // 8)
    return length, [(0, bits.slice(0, length))]


def _fixed(chunks: list[pa.Array], width: int) -> tuple[int, Spans]:
    spans: Spans = []
    at = 0
    for chunk in chunks:
        length = len(chunk) * width
        if length:
            spans.append((at, chunk.buffers()[1].slice(chunk.offset * width, length)))
        at += length
    return at, spans


def _offsets_of(chunk: pa.Array, kind: Any) -> tuple[np.ndarray[Any, Any], int, int]:
    """Offsets of the rows of a chunk, where its bytes begin, and how many they are."""
    raw = chunk.buffers()[1]
    if raw is None or not raw.size:
        return np.zeros(1, kind), 0, 0
    itemsize = np.dtype(kind).itemsize
    offsets = np.frombuffer(raw, kind, len(chunk) + 1, chunk.offset * itemsize)
    return offsets, int(offsets[0]), int(offsets[-1] - offsets[0])


def _strings(chunks: list[pa.Array], kind: Any) -> list[tuple[int, Spans]]:
    """The buffers of offsets and of bytes."""
    offsets = np.empty(sum([len(chunk) for chunk in chunks]) + 1, kind)
    offsets[0] = row = at = 0
    spans: Spans = []
    for chunk in chunks:
        own, start, length = _offsets_of(chunk, kind)
        np.add(own[1:], at - start, out=offsets[row + 1 : row + len(own)])
        if length:
            spans.append((at, chunk.buffers()[2].slice(start, length)))
        row, at = row + len(own) - 1, at + length
    return [(offsets.nbytes, [(0, pa.py_buffer(offsets))]), (at, spans)]
