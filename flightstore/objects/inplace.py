"""Tables that are built in place: how a stream of fixed-width columns lies in an extent before a value is in
it.

Everything about such a stream but its values and null counts follows from the schema and the number of rows.
So its messages are made of one null row and resized (objects.flatmessage), written when the extent is made,
and the columns are filled through NumPy views of the extent itself. May call objects.capture, ipc and
schemas.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from flightstore.objects.capture import capture
from flightstore.objects.flatmessage import END_OF_STREAM, RECORDS, relay, resize, sealed_message
from flightstore.objects.ipc import FORMAT_VERSION, Stream, TableLayout, stream_of
from flightstore.objects.schemas import known_schema, null_row, storage

__all__ = ["InPlaceColumn", "InPlaceTable", "fits_in_place", "plan_in_place"]

_INTERVAL = np.dtype([("months", "<i4"), ("days", "<i4"), ("nanoseconds", "<i8")])


class InPlaceColumn(NamedTuple):
    """Where one column lies in the extent."""

    name: str
    """The field's name."""
    dtype: np.dtype[Any]
    """Elements of its view; uint8, bits, for booleans."""
    shape: tuple[int, ...]
    """Shape of its view; bytes for booleans."""
    data_at: int
    """Where the values begin."""
    mask_at: int
    """Where the bits of validity begin; -1 for a field that takes no nulls."""
    is_bits: bool
    """Whether the values are bits."""
    inner_mask_at: int = -1
    """Where the bits of validity of a list's elements begin; -1 for none."""


class InPlaceTable(NamedTuple):
    """How the table lies."""

    stream: Stream
    """Messages without values; zeros where they go."""
    columns: dict[str, InPlaceColumn]
    """The columns by name."""
    metadata: bytearray
    """The record batch's message, to be changed once null counts are known."""
    metadata_at: int
    """Where it lies, prefix and padding included; -1 where there is no column."""
    lengths: list[int]
    """Length of each node: one for each column, and one for the elements of each list, after it."""

    def sealed_metadata(self, nulls: list[int]) -> bytes:
        """The record batch's message with the null counts of the nodes."""
        metadata = bytearray(self.metadata)
        resize(metadata, self.stream.num_rows, list(zip(self.lengths, nulls, strict=True)))
        return sealed_message(metadata)


def fits_in_place(kind: pa.DataType) -> bool:
    """Whether the values of a type have a fixed width: they can be written where they will be read."""
    kind = storage(kind)
    types = pa.types
    if types.is_fixed_size_list(kind):
        inner = storage(kind.value_type)
        return bool(kind.list_size and types.is_primitive(inner) and not types.is_boolean(inner))
    if types.is_fixed_size_binary(kind):
        return bool(kind.byte_width)
    return bool(types.is_primitive(kind) or types.is_decimal(kind) or types.is_interval(kind))


def plan_in_place(schema: pa.Schema, num_rows: int) -> InPlaceTable:
    """The stream of a table of `num_rows` rows. Requires `fits_in_place` of each type, and unique names."""
    known = known_schema(schema)
    if not len(schema):
        return _without_columns(schema, num_rows)
    metadata = _sample(schema)
    buffers: list[int] = []
    nodes: list[int] = []
    for field in schema:
        _add_column(field, num_rows, buffers, nodes)
    offsets, body_bytes = relay(metadata, buffers)
    resize(metadata, num_rows, [(length, 0) for length in nodes])
    message = sealed_message(metadata)
    at = len(known.message)
    body_at = at + len(message)
    columns = _columns(schema, num_rows, [body_at + offset for offset in offsets])
    end = body_at + body_bytes
    entry = (at, end - at, num_rows)
    layout = TableLayout(FORMAT_VERSION, known.fingerprint, at, end + len(END_OF_STREAM), 1, (entry,))
    pieces = [(0, known.message), (at, message), (end, END_OF_STREAM)]
    return InPlaceTable(Stream(layout, pieces, num_rows), columns, metadata, at, nodes)


def _without_columns(schema: pa.Schema, num_rows: int) -> InPlaceTable:
    """A table of no columns is its stream: there is nothing to fill."""
    rows = pa.RecordBatch.from_arrays([pa.nulls(num_rows)], [""]).select([])
    return InPlaceTable(stream_of(schema, [rows]), {}, bytearray(), -1, [])


def _sample(schema: pa.Schema) -> bytearray:
    """The record batch message of one row of nulls."""
    rows = [null_row(kind) for kind in schema.types]
    messages = capture(schema, [pa.RecordBatch.from_arrays(rows, schema=schema)])
    return next(message.metadata for message in messages if message.kind == RECORDS)


def _bits(num_rows: int) -> int:
    return -(-num_rows // 8)


def _add_column(field: pa.Field, num_rows: int, buffers: list[int], nodes: list[int]) -> None:
    """Lengths of the buffers of one column, and of its nodes."""
    kind = storage(field.type)
    buffers.append(_bits(num_rows) if field.nullable else 0)
    nodes.append(num_rows)
    if pa.types.is_fixed_size_list(kind):
        num_rows *= kind.list_size
        buffers.append(_bits(num_rows) if kind.value_field.nullable else 0)
        nodes.append(num_rows)
        kind = storage(kind.value_type)
    buffers.append(_bits(num_rows) if pa.types.is_boolean(kind) else num_rows * kind.byte_width)


def _columns(schema: pa.Schema, num_rows: int, places: list[int]) -> dict[str, InPlaceColumn]:
    found = {}
    at = 0
    for field in schema:
        kind = storage(field.type)
        is_list = pa.types.is_fixed_size_list(kind)
        is_bits = bool(pa.types.is_boolean(kind))
        dtype, inner = (np.dtype(np.uint8), ()) if is_bits else _dtype(kind.value_type if is_list else kind)
        rows = _bits(num_rows) if is_bits else num_rows
        shape = (rows, kind.list_size, *inner) if is_list else (rows, *inner)
        data_at = places[at + (2 if is_list else 1)]
        mask_at = places[at] if field.nullable else -1
        inner_at = places[at + 1] if is_list and kind.value_field.nullable else -1
        found[field.name] = InPlaceColumn(field.name, dtype, shape, data_at, mask_at, is_bits, inner_at)
        at += 3 if is_list else 2
    return found


def _dtype(kind: pa.DataType) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """The dtype of the view of a column, and the shape of one element."""
    kind = storage(kind)
    types = pa.types
    if types.is_timestamp(kind):
        return np.dtype(f"<M8[{kind.unit}]"), ()
    if types.is_duration(kind):
        return np.dtype(f"<m8[{kind.unit}]"), ()
    if types.is_date64(kind):
        return np.dtype("<M8[ms]"), ()
    if types.is_interval(kind):
        return _INTERVAL, ()
    if types.is_integer(kind) or types.is_floating(kind):
        return np.dtype(kind.to_pandas_dtype()), ()
    if types.is_fixed_size_binary(kind) and not types.is_decimal(kind):
        return np.dtype(f"V{kind.byte_width}"), ()
    words = kind.byte_width // 8
    if words > 1:  # decimals of 128 and 256 bits: words, the lowest first
        return np.dtype("<u8"), (words,)
    return np.dtype(f"<i{kind.byte_width}"), ()  # dates, times and short decimals: their numbers
