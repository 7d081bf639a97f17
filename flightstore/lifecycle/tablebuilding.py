"""Building tables in place: NumPy views of the object's own pages, one per column, until it is sealed.

Columns of fixed width are views of the pages that readers will map. Bits (null masks and booleans) are kept
as one byte a row until the seal packs them. Columns of any other type are given whole, as arrays, and written
by the seal: into an extent of a helper object, pending until the one commit that makes its extent part of the
table. So a builder that dies at any point leaves pending objects only, which recovery aborts.
"""

from __future__ import annotations

import math
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa

from flightstore.errors import InvalidArgument, NotStorable
from flightstore.lifecycle import sealing
from flightstore.lifecycle.building import Builder
from flightstore.lifecycle.connection import Connection
from flightstore.lifecycle.sealing import Assembly, new_object
from flightstore.objects.base import Payload
from flightstore.objects.columns import column_of
from flightstore.objects.composition import Composition, Piece, SegmentSource, Source, compose, own_segments
from flightstore.objects.encoding import streams_of
from flightstore.objects.inplace import InPlaceColumn, fits_in_place, plan_in_place
from flightstore.objects.ipc import expressible, stream_payload
from flightstore.objects.schemas import storage
from flightstore.types import ObjectID

__all__ = ["TableBuilder"]


class TableBuilder:
    """A table being built; implements abc.TableBuilder."""

    _builder: Builder

    def __init__(
        self,
        conn: Connection,
        session: int,
        schema: pa.Schema,
        num_rows: int,
        name: str | None,
        object_id: ObjectID | None,
        metadata: Any,
        deadline: float | None,
        batch: int = 0,
    ) -> None:
        payload = self._planned(schema, num_rows)
        self._conn = conn
        self._deadline = deadline
        self._metadata = metadata
        # Long metadata go with the helper object: they lie in an object's first extent.
        short = new_object(session, payload, name, object_id, metadata)
        self._long_metadata = short.metadata_at is not None
        self._new = new_object(session, payload, name, object_id, None) if self._long_metadata else short
        self._new.batch = batch
        self._builder = Builder(conn, self._new, deadline)

    def _planned(self, schema: pa.Schema, num_rows: int) -> Payload:
        """Begin: nothing is filled. Returns what the columns of fixed width are written over."""
        _check(schema, num_rows)
        expressible(schema)
        self._schema = schema
        self._rows = num_rows
        fixed = [field for field in schema if fits_in_place(field.type)]
        self._plan = plan_in_place(pa.schema(fields=fixed, metadata=schema.metadata), num_rows)
        self._bits: dict[str, np.ndarray[Any, Any]] = {}
        self._nulls: dict[str, np.ndarray[Any, Any]] = {}
        self._inner_nulls: dict[str, np.ndarray[Any, Any]] = {}
        self._given: dict[str, pa.ChunkedArray] = {}
        return stream_payload(self._plan.stream)

    @property
    def id(self) -> ObjectID:
        """The id the object will have."""
        return self._builder.id

    @property
    def schema(self) -> pa.Schema:
        """The table's schema."""
        return self._schema

    @property
    def num_rows(self) -> int:
        """The table's rows."""
        return self._rows

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        """The values of a column, writable, zeros at first.

        Raises:
            InvalidArgument: there is no such column, or its type has no fixed width.
            StoreClosed: the table was sealed or aborted.
        """
        column = self._column(name)
        if not column.is_bits:
            return self._view(column.data_at, column.dtype, column.shape)
        self._builder.check()
        if name not in self._bits:
            self._bits[name] = np.zeros(self._rows, np.bool_)
        return self._bits[name]

    def __setitem__(self, name: str, values: Any) -> None:
        """Fill a column: with an array of its type, or one that can be cast to it without loss.

        Raises:
            InvalidArgument: there is no such column, or not one value for each row.
            NotStorable: the values do not fit its type.
        """
        if name in self._plan.columns and isinstance(values, np.ndarray) and values.dtype.kind not in "OTUS":
            view = self[name]
            if values.shape[: view.ndim] != view.shape:
                raise _wrong_length(name, len(values) if values.ndim else 0, self._rows)
            try:
                np.copyto(view, values, casting="same_kind")
            except TypeError as error:
                raise NotStorable(f"the values of column {name!r} do not fit its type: {error}") from error
            return
        field = self._field(name)
        column = column_of(name, values, field.type)
        if len(column) != self._rows:
            raise _wrong_length(name, len(column), self._rows)
        if column.null_count and not field.nullable:
            raise NotStorable(f"the column {name!r} takes no nulls, {column.null_count:,} were given")
        if name in self._plan.columns:
            self._fill(name, column)
        else:
            self._builder.check()
            self._given[name] = column

    def mask(self, name: str) -> np.ndarray[Any, Any]:
        """Which rows of a column are null (True), one byte a row, writable; none at first.

        Raises:
            InvalidArgument: there is no such column, it takes no nulls, or its type has no fixed width.
            StoreClosed: the table was sealed or aborted.
        """
        column = self._column(name)
        self._builder.check()
        if column.mask_at < 0:
            raise InvalidArgument(f"the column {name!r} takes no nulls", hint="its field is not nullable")
        if name not in self._nulls:
            self._nulls[name] = np.zeros(self._rows, np.bool_)
        return self._nulls[name]

    def seal(self) -> ObjectID:
        """Make the table immutable and visible. Idempotent.

        Raises:
            InvalidArgument: a column whose type has no fixed width was not given.
            StoreFull: there is no room for the columns that were given whole.
            StoreClosed: it was aborted.
            BatchEnded: the batch in which it was created is over; it is aborted.
        """
        if self._builder.is_sealed:
            return self._builder.id
        self._builder.check()
        missing = [field.name for field in self._schema if not self._is_there(field.name)]
        if missing:
            raise InvalidArgument(
                f"the column {missing[0]!r} of type {self._field(missing[0]).type} was not given",
                hint="builder[name] = array, for each column whose type has no fixed width",
            )
        self._write_bits()
        if self._given or self._long_metadata:
            return self._seal_with_helper()
        return self._builder.seal()

    def abort(self) -> None:
        """Make the table vanish as if it had never been. Idempotent; does nothing once sealed."""
        self._builder.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abort()
        elif self._builder.is_open:
            try:
                self.seal()
            except BaseException:
                self.abort()
                raise

    # --- inside ---

    def _is_there(self, name: str) -> bool:
        return name in self._plan.columns or name in self._given

    def _field(self, name: str) -> pa.Field:
        if self._schema.get_field_index(name) < 0:
            raise InvalidArgument(
                f"the table has no column {name!r}", hint=f"its columns are {', '.join(self._schema.names)}"
            )
        return self._schema.field(name)

    def _column(self, name: str) -> InPlaceColumn:
        field = self._field(name)
        column = self._plan.columns.get(name)
        if column is None:
            raise InvalidArgument(
                f"the column {name!r} of type {field.type} has no fixed width",
                hint=f"give it whole: builder[{name!r}] = array",
            )
        return column

    def _view(self, at: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        return np.ndarray(shape, dtype, self._builder.buffer, at)

    def _fill(self, name: str, column: pa.ChunkedArray) -> None:
        """Write an Arrow column into its place, nulls into its mask."""
        target = self[name]
        row = 0
        self._inner_nulls.pop(name, None)
        for chunk in column.chunks:
            stop = row + len(chunk)
            target[row:stop] = _values(chunk, target)
            inner = _inner_nulls(chunk)
            if inner is not None:
                self._inner_mask(name)[row:stop] = inner
            if column.null_count:
                self.mask(name)[row:stop] = chunk.is_null().to_numpy(zero_copy_only=False)
            row = stop
        if not column.null_count and name in self._nulls:
            self._nulls[name][:] = False

    def _inner_mask(self, name: str) -> np.ndarray[Any, Any]:
        """Which elements of a column of lists are null."""
        column = self._plan.columns[name]
        if column.inner_mask_at < 0:
            raise NotStorable(f"the lists of column {name!r} take no nulls, some were given")
        if name not in self._inner_nulls:
            self._inner_nulls[name] = np.zeros(column.shape[:2], np.bool_)
        return self._inner_nulls[name]

    def _write_bits(self) -> None:
        """Pack booleans and null masks into their places, and the null counts into the message."""
        if not self._plan.columns:
            return
        raw = np.frombuffer(self._builder.buffer, np.uint8)
        nulls = []
        for name, column in self._plan.columns.items():
            if column.is_bits and name in self._bits:
                _pack(raw, column.data_at, self._bits[name])
            nulls.append(_pack_valid(raw, column.mask_at, self._rows, self._nulls.get(name)))
            if pa.types.is_fixed_size_list(storage(self._field(name).type)):
                inner = self._inner_nulls.get(name)
                elements = self._rows * column.shape[1]
                nulls.append(_pack_valid(raw, column.inner_mask_at, elements, inner))
        message = self._plan.sealed_metadata(nulls)
        at = self._plan.metadata_at
        raw[at : at + len(message)] = np.frombuffer(message, np.uint8)

    def _seal_with_helper(self) -> ObjectID:
        """Seal a table some of whose columns lie in a helper's extent."""
        composition = self._composition()
        helper = new_object(self._new.session, composition.payload, None, None, self._metadata)
        try:
            sealing.write_pending(self._conn, helper, self._deadline)
            parts = (helper, self._new)
            self._new.assembly = Assembly(parts, composition.payload, composition.nbytes)
            return self._builder.seal()
        except BaseException:
            sealing.give_up(self._conn, (helper,))
            raise

    def _composition(self) -> Composition:
        plan = self._plan
        fixed = pa.schema(
            [field for field in self._schema if field.name in plan.columns], self._schema.metadata
        )
        in_place = SegmentSource(self._builder.extent, 0, plan.stream.layout, None, fixed, None)
        places = {name: Piece(in_place, index) for index, name in enumerate(plan.columns)}
        table = pa.Table.from_arrays(
            list(self._given.values()), schema=pa.schema([self._field(name) for name in self._given])
        )
        parts = streams_of(table) if self._given else []
        schemas = [pa.schema([table.schema.field(index) for index in columns]) for _, columns in parts]
        segments = own_segments([(part[0], schema) for part, schema in zip(parts, schemas, strict=True)])
        for segment, (_, columns) in zip(segments, parts, strict=True):
            for position, index in enumerate(columns):
                places[table.schema.field(index).name] = Piece(segment, position)
        wanted = Source(self._schema, self._rows, [(places[field.name],) for field in self._schema])
        return compose(wanted, [stream for stream, _ in parts])


def _values(chunk: pa.Array, target: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The values of an Arrow array in the form of its column's view; whatever stands in null rows."""
    while isinstance(chunk, pa.ExtensionArray):
        chunk = chunk.storage
    if pa.types.is_boolean(chunk.type):
        values: np.ndarray[Any, Any] = chunk.fill_null(False).to_numpy(zero_copy_only=False)
        return values
    rows, tail = len(chunk), target.shape[1:]
    per_row = math.prod(tail)
    first = chunk.offset * per_row
    if pa.types.is_fixed_size_list(chunk.type):
        chunk = chunk.values
        while isinstance(chunk, pa.ExtensionArray):
            chunk = chunk.storage
        first += chunk.offset
    raw = chunk.buffers()[1]
    if raw is None or not rows:
        return np.zeros((rows, *tail), target.dtype)
    whole = np.frombuffer(raw, target.dtype, first + rows * per_row)
    return whole[first:].reshape(rows, *tail)


def _pack(raw: np.ndarray[Any, Any], at: int, values: np.ndarray[Any, Any]) -> None:
    packed = np.packbits(values, bitorder="little")
    raw[at : at + len(packed)] = packed


def _pack_valid(raw: np.ndarray[Any, Any], at: int, length: int, nulls: np.ndarray[Any, Any] | None) -> int:
    """Write the bits of validity, if there is a place for them; returns how many nulls there are."""
    if at >= 0:
        _pack(raw, at, np.ones(length, np.bool_) if nulls is None else ~nulls)
    return int(np.count_nonzero(nulls)) if nulls is not None else 0


def _inner_nulls(chunk: pa.Array) -> np.ndarray[Any, Any] | None:
    """Which elements of fixed-size lists are null, in rows; None for none, or for another type."""
    while isinstance(chunk, pa.ExtensionArray):
        chunk = chunk.storage
    if not pa.types.is_fixed_size_list(chunk.type):
        return None
    size = chunk.type.list_size
    elements = chunk.values.slice(chunk.offset * size, len(chunk) * size)
    if not elements.null_count:
        return None
    found: np.ndarray[Any, Any] = elements.is_null().to_numpy(zero_copy_only=False).reshape(len(chunk), size)
    found = found & chunk.is_valid().to_numpy(zero_copy_only=False)[:, None]
    return found if found.any() else None


def _wrong_length(name: str, given: int, wanted: int) -> InvalidArgument:
    return InvalidArgument(
        f"{given:,} values were given for the {wanted:,} rows of column {name!r}",
        hint="give one value for each row",
    )


def _check(schema: Any, num_rows: Any) -> None:
    if not isinstance(schema, pa.Schema):
        raise InvalidArgument(f"a schema is a pyarrow.Schema, got {type(schema).__name__}")
    if not isinstance(num_rows, int) or isinstance(num_rows, bool) or not 0 <= num_rows < 1 << 40:
        raise InvalidArgument(f"{num_rows!r} is not a number of rows")
    twice = {name for name in schema.names if schema.names.count(name) > 1}
    if twice:
        raise InvalidArgument(f"the schema has several columns {min(twice)!r}")
