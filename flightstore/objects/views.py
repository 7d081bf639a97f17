"""String and binary views on their way into the store: only the bytes that are referred to.

A view column is 16 bytes a row, and data buffers that the longer values refer to. Slices, filters and joins
keep the data buffers of their parents whole, and Arrow's writer writes them whole. Here they are replaced by
one buffer with just what the rows refer to, wherever that saves enough. It works on the flat list of buffers
of a written batch, so views inside of lists, structs and unions are found as well. May call objects.schemas.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from flightstore.objects.capture import Message, size_of
from flightstore.objects.flatmessage import view_counts
from flightstore.objects.schemas import is_view, storage

__all__ = ["compact_views"]

INLINE_BYTES = 12
"""Values up to this length stand in the view itself."""
_SLACK_BYTES = 256
_VIEW = 16


def compact_views(schema: pa.Schema, message: Message) -> list[Any]:
    """The buffers of a record batch, those of views compacted where they hold much more than is used."""
    buffers = list(message.buffers)
    counts = iter(view_counts(message.metadata))
    at = 0
    for field in schema:
        for own, view in _buffer_counts(field.type):
            if view:
                count = next(counts)
                first = at + 2
                buffers[at + 1 : first + count] = _compact(buffers[at], *buffers[at + 1 : first + count])
                at += count
            at += own
    return buffers


def _buffer_counts(kind: pa.DataType) -> Iterator[tuple[int, bool]]:
    """For a type and those within it, depth first: how many buffers its node has, whether it is a view."""
    kind = storage(kind)
    types = pa.types
    if types.is_null(kind) or types.is_run_end_encoded(kind):
        own = 0
    elif types.is_struct(kind) or types.is_fixed_size_list(kind):
        own = 1
    elif types.is_union(kind):
        own = 1 if kind.mode == "sparse" else 2
    elif types.is_list_view(kind) or types.is_large_list_view(kind) or _is_offset_binary(kind):
        own = 3
    else:
        own = 2
    yield own, is_view(kind)
    if types.is_run_end_encoded(kind):
        yield 2, False
        yield from _buffer_counts(kind.value_type)
    elif not types.is_dictionary(kind):
        for index in range(kind.num_fields):
            yield from _buffer_counts(kind.field(index).type)


def _is_offset_binary(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
    )


def _compact(validity: Any, views: Any, *data: Any) -> list[Any]:
    """The views and data buffers of one column, rewritten if that saves enough."""
    total = sum([size_of(buffer) for buffer in data])
    rows = size_of(views) // _VIEW
    if not total:
        return [views, *data]
    table = np.frombuffer(views, np.int32).reshape(rows, 4)
    valid = _valid(rows, validity)
    long = (table[:, 0] > INLINE_BYTES) & valid
    referred = int(table[long, 0].sum(dtype=np.int64))
    if referred + referred // 4 + _SLACK_BYTES >= total or referred >= 1 << 31:
        return [views, *data]
    fresh = np.where(valid[:, None], table, 0)  # what stands in a null row may be no view at all
    offsets, joined = _long_values(rows, long, fresh, data)
    fresh[long, 2] = 0
    fresh[long, 3] = offsets[:-1][long]
    return [pa.py_buffer(fresh), joined, *[b""] * (len(data) - 1)]


def _valid(rows: int, validity: Any) -> np.ndarray[Any, Any]:
    if not size_of(validity):
        return np.ones(rows, np.bool_)
    return np.unpackbits(np.frombuffer(validity, np.uint8), count=rows, bitorder="little").view(np.bool_)


def _long_values(
    rows: int, long: np.ndarray[Any, Any], views: Any, data: tuple[Any, ...]
) -> tuple[np.ndarray[Any, Any], Any]:
    """The values too long for their views, one after the other, and where each row's begins."""
    mask = np.packbits(long, bitorder="little")
    array = pa.Array.from_buffers(pa.binary_view(), rows, [_buffer(one) for one in (mask, views, *data)])
    joined = array.cast(pa.large_binary())
    return np.frombuffer(joined.buffers()[1], np.int64, rows + 1), joined.buffers()[2] or b""


def _buffer(data: Any) -> pa.Buffer:
    return data if isinstance(data, pa.Buffer) else pa.py_buffer(data)
