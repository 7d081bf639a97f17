"""Payloads from outside: is this what its layout says?

What a local client stores was made by this library; what arrives from a network claims to be. Here everything
that opening an object relies on is looked at before the object is sealed: offsets, lengths and alignment by
comparison with the extent, Arrow's messages by Arrow's own verifier, values by ``validate(full=True)``, and
the fingerprint of a schema by computing it, because parsed schemas are cached under it. Nothing is unpickled.

Whatever is wrong becomes InvalidArgument. May call the kinds of this room. Requires that nobody changes the
bytes meanwhile.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from flightstore.errors import FlightStoreError, InvalidArgument
from flightstore.objects import arrays, blob, composition, ipc, pyobject, tensor
from flightstore.objects.base import (
    ALIGNMENT_BYTES,
    KIND_BLOB,
    KIND_COMPOSED,
    KIND_PYOBJECT,
    KIND_TABLE,
    KIND_TENSOR,
)
from flightstore.objects.flatmessage import (
    END_OF_STREAM,
    PREFIX_BYTES,
    body_length,
    buffers_of,
    is_compressed,
    is_little_endian,
)
from flightstore.objects.ipc import TableLayout
from flightstore.objects.schemas import fingerprint_of, is_view, storage

__all__ = ["MAX_ORIGIN_CHARACTERS", "check_batch", "check_origin", "check_payload", "check_schema"]

MAX_ORIGIN_CHARACTERS = 100
MAX_LAYOUT_BYTES = 1000
"""As Payload promises."""


def check_payload(kind: int, layout: bytes, payload: pa.Buffer, num_rows: int | None) -> None:
    """Refuse a payload that is not what is said of it.

    Args:
        kind: Kind code.
        layout: What the kind needs to read it.
        payload: The bytes, all of them; at an address that is a multiple of 64.
        num_rows: Rows, for tables; None for all else.

    Raises:
        InvalidArgument: it is not; says what is wrong.
    """
    check = _CHECKS.get(kind)
    if check is None:
        raise InvalidArgument(f"a payload of kind {kind}, which is not taken from outside")
    if len(layout) > MAX_LAYOUT_BYTES:
        raise InvalidArgument(f"a layout of {len(layout):,} bytes, at most {MAX_LAYOUT_BYTES:,} are taken")
    with _malformed():
        rows = check(layout, payload)
        _require(rows == num_rows, f"{num_rows} rows were announced, {rows} are there")


def check_origin(origin: str) -> None:
    """Refuse what cannot be a connector's name.

    Raises:
        InvalidArgument: it is no printable text, or too long.
    """
    if len(origin) > MAX_ORIGIN_CHARACTERS or not origin.isprintable():
        raise InvalidArgument("an origin is the name of a connector", hint="for example pandas")


def check_batch(batch: pa.RecordBatch) -> None:
    """Refuse a batch whose buffers do not hold what its schema says.

    Raises:
        InvalidArgument: Arrow finds a fault.
    """
    try:
        _validate(batch)
    except (pa.ArrowException, OSError) as error:
        raise InvalidArgument(f"Arrow refuses the batch: {str(error)[:500]}") from None


def _validate(batch: pa.RecordBatch) -> None:
    """See whether a batch is what its schema says. What null rows of views refer to is looked at, too: Arrow
    asks nothing of it, but its casts (24 to 26) follow it.

    Raises:
        pa.ArrowException: it is not.
    """
    batch.validate(full=True)
    for column, field in zip(batch.columns, batch.schema, strict=True):
        if _holds_views(field.type):
            _validate_views(column)


def _holds_views(kind: pa.DataType) -> bool:
    kind = storage(kind)
    if pa.types.is_dictionary(kind):
        return _holds_views(kind.value_type)
    return is_view(kind) or any(_holds_views(kind.field(index).type) for index in range(kind.num_fields))


def _validate_views(array: pa.Array) -> None:
    """Views, at any depth, as if no row were null."""
    kind, types = array.type, pa.types
    if isinstance(array, pa.ExtensionArray):
        _validate_views(array.storage)
    elif is_view(kind):
        if array.null_count:
            buffers = [None, *array.buffers()[1:]]
            pa.Array.from_buffers(pa.binary_view(), len(array), buffers, 0, array.offset).validate(full=True)
    elif types.is_dictionary(kind):
        _validate_views(array.dictionary)
    elif types.is_map(kind):
        _validate_views(array.keys)
        _validate_views(array.items)
    elif types.is_struct(kind) or types.is_union(kind):
        for index in range(kind.num_fields):
            _validate_views(array.field(index))
    elif kind.num_fields:
        _validate_views(array.values)


def check_schema(schema: pa.Schema) -> None:
    """Refuse a schema that Arrow reads and Python cannot: names that are no text, types without a class.

    Raises:
        InvalidArgument: it is so.
    """
    try:
        for field in schema:
            _look_at(field)
    except (UnicodeDecodeError, RecursionError):
        raise InvalidArgument("a name in the schema is not UTF-8") from None
    except KeyError:
        raise InvalidArgument("pyarrow has no arrays of one of the types") from None


def _look_at(field: pa.Field) -> str:
    kind = storage(field.type)
    if pa.types.is_dictionary(kind):
        kind = storage(kind.value_type)
    for index in range(kind.num_fields):
        _look_at(kind.field(index))
    if pa.types.is_timestamp(kind):
        _ = kind.tz
    with suppress(pa.ArrowException):  # some nested ones cannot be made; it is the class that is asked for
        pa.nulls(0, kind)
    name: str = field.name
    return name


class _Malformed(Exception):
    """What is wrong, in words."""


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise _Malformed(what)


@contextmanager
def _malformed() -> Iterator[None]:
    """Whatever a decoder makes of malformed bytes becomes InvalidArgument."""
    try:
        yield
    except MemoryError:
        raise
    except (
        _Malformed, FlightStoreError, pa.ArrowException, msgspec.MsgspecError, struct.error,
        ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError, EOFError,
        SyntaxError, NotImplementedError, OSError,
    ) as error:  # fmt: skip
        known = isinstance(error, _Malformed | pa.ArrowException | OSError)
        said = str(error)[:500] if known else type(error).__name__
        raise InvalidArgument(
            f"the payload is not what its layout says: {said}",
            hint="send the frame as the client library makes it",
        ) from None


def _within(at: int, length: int, size: int, what: str) -> None:
    _require(at >= 0 and length >= 0 and at + length <= size, f"{what} lies outside")


# --- tables ---


def _table(raw: bytes, payload: pa.Buffer) -> int:
    layout = ipc.decode_layout(raw)
    _require(layout.stream_bytes == payload.size, "the stream is not as long as the payload")
    schema, batches = _stream(layout, payload)
    container = layout.container
    _require(ipc.CONTAINER_TABLE <= container <= ipc.CONTAINER_SCALAR, "an unknown container")
    if container not in (ipc.CONTAINER_TABLE, ipc.CONTAINER_BATCH):
        _require(len(schema) == 1, "not exactly one column")
    if container not in (ipc.CONTAINER_TABLE, ipc.CONTAINER_CHUNKED):
        _require(len(batches) == 1, "not exactly one batch")
    rows: int = sum(batch.num_rows for batch in batches)
    if container == ipc.CONTAINER_SCALAR:
        _require(rows == 1, "a scalar that is not one row")
    return rows


def _stream(layout: TableLayout, stream: pa.Buffer) -> tuple[pa.Schema, list[pa.RecordBatch]]:
    """Check a stream against its layout, then every value in it."""
    _require(layout.version == ipc.FORMAT_VERSION, f"unknown version {layout.version}")
    found = _walked(stream)
    _require(found.schema_bytes == layout.schema_bytes, "the schema message is of another length")
    _require(found.fingerprint == layout.fingerprint, "the schema's fingerprint is wrong")
    with pa.ipc.open_stream(stream) as reader:
        schema, batches = reader.schema, []
        check_schema(schema)
        for batch in reader:
            _validate(batch)
            batches.append(batch)
    entries = [
        (at, length, batch.num_rows) for (at, length), batch in zip(found.records, batches, strict=True)
    ]
    expected = ipc.layout_of_stream(
        found.fingerprint, found.schema_bytes, entries, stream.size, found.flags, layout.container
    )
    _require(expected == layout, "its messages lie elsewhere")
    return schema, batches


class _Walked(msgspec.Struct):
    """The messages of a stream."""

    fingerprint: bytes
    schema_bytes: int
    records: list[tuple[int, int]]
    """(offset, length) of record batches."""
    flags: int


def _walked(stream: pa.Buffer) -> _Walked:
    """Walk the messages of a stream; each body and each buffer must lie where our writer puts them."""
    end = stream.size - len(END_OF_STREAM)
    _require(end >= 0 and bytes(stream.slice(end)) == END_OF_STREAM, "the stream does not end")
    found: _Walked | None = None
    at = 0
    while at < end:
        message, body_at = _message(stream, at, end)
        metadata, next_at = message.metadata, body_at + body_length(message.metadata)[1]
        if found is None:
            _require(message.type == "schema" and next_at == body_at, "no schema begins the stream")
            _require(is_little_endian(metadata), "big-endian")
            found = _Walked(fingerprint_of(bytes(stream.slice(0, body_at))), body_at, [], 0)
        else:
            _require(message.type in ("record batch", "dictionary"), f"a message of type {message.type}")
            _require(body_at <= next_at <= end, "a body lies outside")
            _buffers(metadata, next_at - body_at)
            if message.type == "dictionary":
                found.flags |= ipc.FLAG_DICTIONARIES
            else:
                found.records.append((at, next_at - at))
        at = next_at
    if found is None or at != end:
        raise _Malformed("the stream has no schema, or does not end")
    return found


def _message(stream: pa.Buffer, at: int, end: int) -> tuple[pa.ipc.Message, int]:
    """A message, its flatbuffer verified by Arrow, and where its body begins."""
    _require(end - at >= PREFIX_BYTES, "a message is cut off")
    mark, length = struct.unpack("<Ii", stream.slice(at, PREFIX_BYTES))
    body_at = at + PREFIX_BYTES + length
    _require(mark == 0xFFFFFFFF and length > 0 and body_at <= end, "a message is cut off")
    _require(body_at % ALIGNMENT_BYTES == 0, "a message is not aligned")
    return pa.ipc.read_message(stream.slice(at, end - at)), body_at


def _buffers(metadata: pa.Buffer, body_bytes: int) -> None:
    """Buffers of a batch: aligned, one after the other, within its body, as they are."""
    raw = memoryview(metadata)
    _require(body_bytes % ALIGNMENT_BYTES == 0, "a body is not aligned")
    _require(not is_compressed(raw), "a compressed batch")
    end = 0
    for at, length in buffers_of(raw):
        _require(length >= 0 and at % ALIGNMENT_BYTES == 0, "a buffer is not aligned")
        if length:
            _require(end <= at and at + length <= body_bytes, "a buffer lies outside, or on another")
            end = at + length


def _composed(raw: bytes, payload: pa.Buffer) -> int | None:
    layout = composition.decode_composed(raw)
    _require(layout.version == composition.FORMAT_VERSION, f"unknown version {layout.version}")
    if layout.at is not None:
        _within(*layout.at, payload.size, "its layout")
        layout = composition.decode_composed(payload.slice(*layout.at))
        _require(layout.version == composition.FORMAT_VERSION and layout.at is None, "a layout of a layout")
    _require(layout.shared == 0 and bool(layout.columns), "columns of other objects")
    tables = [pa.Table.from_batches(batches, schema) for schema, batches in _segments(layout, payload)]
    columns = _columns(layout, tables)
    if layout.schema_at is not None:
        _within(*layout.schema_at, payload.size, "its schema")
        schema = _schema(payload.slice(*layout.schema_at), layout.schema_fingerprint)
        _require(len(schema) == len(columns), "a schema of other columns")
    else:
        first = [(tables[run.pieces[0][0]].schema, run.pieces[0][1] + k)
                 for run in layout.columns for k in range(run.count)]  # fmt: skip
        schema = composition.derived_schema(first)
    rows: int = pa.Table.from_arrays(columns, schema=schema).num_rows
    return rows


def _segments(
    layout: composition.ComposedLayout, payload: pa.Buffer
) -> list[tuple[pa.Schema, list[pa.RecordBatch]]]:
    """Check all segments: streams of its own that do not overlap."""
    spans = sorted((one.offset, one.layout.stream_bytes) for one in layout.segments)
    end = 0
    for at, length in spans:
        _within(at, length, payload.size, "a segment")
        _require(at >= end and at % ALIGNMENT_BYTES == 0, "segments overlap")
        end = at + length
    found = []
    for one in layout.segments:
        _require(one.extent == 0 and not one.source and not one.bodies, "a segment of another object")
        found.append(_stream(one.layout, payload.slice(one.offset, one.layout.stream_bytes)))
    return found


def _columns(layout: composition.ComposedLayout, tables: list[pa.Table]) -> list[pa.ChunkedArray]:
    """The columns; each column of a segment may be used once, so their number is bounded."""
    used: set[tuple[int, int]] = set()
    columns = []
    for run in layout.columns:
        _require(run.count > 0 and bool(run.pieces), "a column of no rows")
        for number, first in run.pieces:
            _require(0 <= number < len(tables), "a column of no segment")
            _require(first >= 0 and first + run.count <= tables[number].num_columns, "no such column")
        for index in range(run.count):
            places = [(number, first + index) for number, first in run.pieces]
            _require(used.isdisjoint(places) and len(set(places)) == len(places), "a column twice")
            used.update(places)
            parts = [tables[number].column(at) for number, at in places]
            _require(all(part.type.equals(parts[0].type) for part in parts), "a column of two types")
            columns.append(composition.joined(parts))
    return columns


def _schema(message: pa.Buffer, fingerprint: bytes) -> pa.Schema:
    """A schema that is a message by itself."""
    raw = bytes(message)
    _require(fingerprint_of(raw) == fingerprint, "the schema's fingerprint is wrong")
    read, body_at = _message(message, 0, message.size)
    _require(read.type == "schema" and body_at == message.size, "no schema")
    _require(is_little_endian(read.metadata), "big-endian")
    schema = pa.ipc.read_schema(message)
    check_schema(schema)
    return schema


# --- all else ---


def _tensor(raw: bytes, payload: pa.Buffer) -> None:
    layout = tensor.decode_layout(raw)
    _require(layout.version == tensor.FORMAT_VERSION, f"unknown version {layout.version}")
    _require(layout.order in ("C", "F"), f"unknown order {layout.order[:10]!r}")
    described = layout.dtype
    if layout.dtype_at is not None:
        _within(*layout.dtype_at, payload.size, "its dtype")
        described = payload.slice(*layout.dtype_at).to_pybytes()
    dtype = tensor.restored_dtype(described)
    _require(not dtype.hasobject, "elements that are Python objects")
    _require(all(length >= 0 for length in layout.shape), "a negative length")
    _require(dtype.itemsize * math.prod(layout.shape) <= payload.size, "more elements than bytes")
    array: Any = np.ndarray(layout.shape, dtype, payload, order="C" if layout.order == "C" else "F")
    _require(arrays.CONTAINER_ARRAY <= layout.container <= arrays.CONTAINER_MASKED, "an unknown container")
    if layout.container != arrays.CONTAINER_ARRAY:
        arrays.check_details(layout.container, layout.details, array, payload.size)
        arrays.put_together(layout.container, layout.details, array, payload)


def _blob(raw: bytes, payload: pa.Buffer) -> None:
    if raw:
        layout = blob.decode_layout(raw)
        _require(layout.version == blob.FORMAT_VERSION, f"unknown version {layout.version}")
        _require(all(length >= 0 for length in layout.shape), "a negative length")
        shaped = blob.shaped(memoryview(payload), layout)
        _require(shaped.nbytes == payload.size, "another shape")


def _pyobject(raw: bytes, payload: pa.Buffer) -> None:
    layout = pyobject.decode_layout(raw)
    _require(layout.version == pyobject.FORMAT_VERSION, f"unknown version {layout.version}")
    _within(0, layout.pickle_bytes, payload.size, "the pickle")
    _require(layout.num_buffers >= 0, "buffers")
    _within(layout.index_at, 16 * layout.num_buffers, payload.size, "the index of buffers")
    if layout.num_buffers:
        index = struct.unpack_from(f"<{2 * layout.num_buffers}Q", memoryview(payload), layout.index_at)
        for at, length in zip(index[::2], index[1::2], strict=True):
            _within(at, length, payload.size, "a buffer")


_CHECKS: dict[int, Callable[[bytes, pa.Buffer], int | None]] = {
    KIND_TABLE: _table,
    KIND_COMPOSED: _composed,
    KIND_TENSOR: _tensor,
    KIND_BLOB: _blob,
    KIND_PYOBJECT: _pyobject,
}
"""Each returns the payload's rows."""
