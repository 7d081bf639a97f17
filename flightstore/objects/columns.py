"""New tables of stored columns: with_columns, select, drop, rename, concat, as pure functions.

Each takes stored tables apart (`composition.source_of`), says which columns the new one has and where their
rows lie, and leaves it to `composition.compose` to lay that out. Rows are written for new columns only.

A table that a connector built (a pandas frame, say) stays one: the columns that hold no values but an index
are kept by a selection, and the connector adapts its metadata to the new schema. Where that connector is not
installed the result is a plain table. May call objects.connector, encoding, composition and schemas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
import pyarrow as pa

from flightstore.errors import InvalidArgument, MissingExtra, NotStorable
from flightstore.objects.base import KIND_COMPOSED, KIND_TABLE, Object, Payload
from flightstore.objects.composition import Composition, Piece, Source, compose, own_segments, source_of
from flightstore.objects.connector import TYPE_KEYS, Connector, connector_for, connector_named
from flightstore.objects.encoding import encode_table, streams_of
from flightstore.objects.ipc import Stream
from flightstore.objects.schemas import storage

__all__ = [
    "column_of",
    "composed",
    "concat",
    "drop",
    "new_columns",
    "rename",
    "select",
    "source_parts",
    "with_columns",
]


def select(obj: Object, columns: Iterable[str]) -> Composition:
    """The columns of these names, in this order; those of an index are kept.

    Raises:
        InvalidArgument: there is no such column, or several, or `obj` is no table.
    """
    source, connector = _source(obj), _connector(obj)
    chosen = [_position(source.schema, name, obj) for name in _names(columns)]
    kept = [index for index in _index_columns(source.schema, connector) if index not in chosen]
    return _made_of(obj, connector, source, [*chosen, *kept])


def drop(obj: Object, columns: Iterable[str]) -> Composition:
    """All columns but those of these names.

    Raises:
        InvalidArgument: as :func:`select`.
    """
    source = _source(obj)
    dropped = {_position(source.schema, name, obj) for name in _names(columns)}
    kept = [index for index in range(len(source.schema)) if index not in dropped]
    return _made_of(obj, _connector(obj), source, kept)


def rename(obj: Object, names: Mapping[str, str]) -> Composition:
    """The same columns, some under new names.

    Raises:
        InvalidArgument: there is no such column, or several, or `obj` is no table.
    """
    source = _source(obj)
    fields = list(source.schema)
    for old, new in names.items():
        if not isinstance(new, str):
            raise InvalidArgument(f"a column's name is a str, got {type(new).__name__} for {old!r}")
        index = _position(source.schema, old, obj)
        fields[index] = fields[index].with_name(new)
    schema = pa.schema(fields, source.schema.metadata)
    return composed(obj, _connector(obj), source._replace(schema=schema))


def concat(objects: Sequence[Object]) -> Composition:
    """The rows of several tables, one after the other.

    Raises:
        InvalidArgument: there is none, or their columns differ in name, order or type.
    """
    if not objects:
        raise InvalidArgument("there is nothing to concatenate", hint="name at least one table")
    sources = [_source(obj) for obj in objects]
    first = sources[0]
    for obj, source in zip(objects[1:], sources[1:], strict=True):
        _check_alike(objects[0], first.schema, obj, source.schema)
    fields = [
        field.with_nullable(any(source.schema.field(index).nullable for source in sources))
        for index, field in enumerate(first.schema)
    ]
    columns = [
        tuple(piece for source in sources for piece in source.columns[index]) for index in range(len(fields))
    ]
    rows = sum(source.num_rows for source in sources)
    wanted = Source(pa.schema(fields, first.schema.metadata), rows, columns)
    origins = {obj._live.record.origin for obj in objects}
    return composed(objects[0], _connector(objects[0]) if len(origins) == 1 else None, wanted)


def with_columns(obj: Object, columns: Any) -> Composition:
    """The table with more columns; those of a name that it has replace its own, in their places.

    Args:
        obj: A stored table.
        columns: A mapping of names to arrays (Arrow, pandas or polars series, NumPy, lists) or to stored
            tables of one column; or a frame or stored table, all of whose columns are meant.

    Raises:
        InvalidArgument: a column has not as many rows as the table, or its name is there twice.
        NotStorable: Arrow cannot hold one.
    """
    source, connector = _source(obj), _connector(obj)
    added, streams = _added(columns, connector)
    fields, placed = list(source.schema), list(source.columns)
    for part in added:
        for field, pieces in zip(part.schema, part.columns, strict=True):
            _check_rows(field.name, part.num_rows, source.num_rows, _describe(obj))
            names = [one.name for one in fields]
            if names.count(field.name) > 1:
                raise InvalidArgument(f"{_describe(obj)} has several columns {field.name!r}")
            if field.name in names:
                index = names.index(field.name)
                fields[index], placed[index] = field, pieces
            else:
                fields.append(field)
                placed.append(pieces)
    wanted = Source(pa.schema(fields, source.schema.metadata), source.num_rows, placed)
    return composed(obj, connector, wanted, streams)


def new_columns(columns: Any, origin: str, num_rows: int, what: str) -> Payload:
    """New columns as a table of their own: adding that one, stored, to a stored table does what
    :func:`with_columns` would do here. For those who do not have the table at hand.

    Args:
        columns: As for :func:`with_columns`.
        origin: The connector that built the table, or nothing.
        num_rows: The table's rows.
        what: The table, for errors.

    Raises:
        InvalidArgument, NotStorable: as :func:`with_columns`.
    """
    connector = _installed(origin)
    stored, fresh = _sorted(columns, connector)
    for obj, name in stored:
        if obj.kind != "table":
            raise InvalidArgument(f"{_describe(obj)} is a {obj.kind}, not a table")
        table = obj.to_arrow()  # type: ignore[attr-defined]
        if name is not None:
            _check_single(table.schema, name, obj)
        fields = [field if name is None else field.with_name(name) for field in table.schema]
        fresh += zip(fields, table.columns, strict=True)
    for field, column in fresh:
        _check_rows(field.name, len(column), num_rows, what)
    schema = pa.schema([field for field, _ in fresh])
    whole = pa.Table.from_arrays([column for _, column in fresh], schema=schema)
    return encode_table(whole, dictionaries=connector is None)


# --- the values of new columns ---


def _added(columns: Any, connector: Connector | None) -> tuple[list[Source], list[Stream]]:
    """The new columns as stored tables taken apart, and the streams of those that are not stored yet."""
    found, fresh = _sorted(columns, connector)
    stored = [_source(obj) if name is None else _named(_source(obj), name, obj) for obj, name in found]
    if not fresh:
        return stored, []
    own, streams = _encoded(fresh, dictionaries=connector is None)
    return [*stored, *own], streams


_Fresh: TypeAlias = list[tuple[pa.Field, pa.ChunkedArray]]


def _sorted(columns: Any, connector: Connector | None) -> tuple[list[tuple[Object, str | None]], _Fresh]:
    """New columns that are stored (the object, and the name for its only column), and those that are not."""
    stored: list[tuple[Object, str | None]] = []
    fresh: _Fresh = []
    if isinstance(columns, Mapping):
        for name, value in columns.items():
            if not isinstance(name, str):
                raise InvalidArgument(f"a column's name is a str, got {type(name).__name__}")
            if isinstance(value, Object):
                stored.append((value, name))
            else:
                fresh.append(_column(name, value, connector))
    elif isinstance(columns, Object):
        stored.append((columns, None))
    else:
        table = _frame(columns, connector)
        fresh = list(zip(table.schema, table.columns, strict=True))
    return stored, fresh


def _encoded(fresh: _Fresh, *, dictionaries: bool) -> tuple[list[Source], list[Stream]]:
    """New columns as streams, those of each number of rows apart (whoever is wrong is named later).

    Dictionaries may lose entries if `dictionaries`: a frame library's categories may not.
    """
    parts: list[tuple[Stream, pa.Schema, list[int]]] = []
    by_rows: dict[int, list[int]] = {}
    for index, (_, column) in enumerate(fresh):
        by_rows.setdefault(len(column), []).append(index)
    for chosen in by_rows.values():
        schema = pa.schema([fresh[index][0] for index in chosen])
        table = pa.Table.from_arrays([fresh[index][1] for index in chosen], schema=schema)
        for stream, columns in streams_of(table, dictionaries=dictionaries):
            part = pa.schema([schema.field(column) for column in columns])
            parts.append((stream, part, [chosen[column] for column in columns]))
    segments = own_segments([(stream, schema) for stream, schema, _ in parts])
    places: dict[int, Piece] = {
        index: Piece(segment, position)
        for segment, (_, _, chosen) in zip(segments, parts, strict=True)
        for position, index in enumerate(chosen)
    }
    sources = [
        Source(pa.schema([field]), len(column), [(places[index],)])
        for index, (field, column) in enumerate(fresh)
    ]
    return sources, [stream for stream, _, _ in parts]


def _check_single(schema: pa.Schema, name: str, obj: Object) -> None:
    if len(schema) != 1:
        raise InvalidArgument(
            f"{_describe(obj)} has {len(schema)} columns, one is wanted for {name!r}",
            hint="pass the object itself to add all of them",
        )


def _check_rows(name: str, given: int, wanted: int, what: str) -> None:
    if given != wanted:
        raise InvalidArgument(
            f"the column {name!r} has {given:,} rows, {what} has {wanted:,}",
            hint="give one value for each row",
        )


def _named(source: Source, name: str, obj: Object) -> Source:
    _check_single(source.schema, name, obj)
    return source._replace(schema=pa.schema([source.schema.field(0).with_name(name)]))


def _column(name: str, value: Any, connector: Connector | None) -> tuple[pa.Field, pa.ChunkedArray]:
    """A value of a mapping as a column."""
    builder = connector_for(type(value))
    if builder is None:
        column = _array(name, value, None)
        return pa.field(name, column.type), column
    table = _built(builder, value, connector)
    if table.num_columns != 1:
        raise NotStorable(f"the value of column {name!r} has {table.num_columns} columns")
    return table.schema.field(0).with_name(name), table.column(0)


def column_of(name: str, value: Any, kind: pa.DataType) -> pa.ChunkedArray:
    """A value as a column of a type; anything that :func:`with_columns` takes.

    Raises:
        NotStorable: Arrow makes no array of it, or cannot cast it to the type without loss.
    """
    column = (
        _array(name, value, kind) if connector_for(type(value)) is None else _column(name, value, None)[1]
    )
    if column.type == kind:
        return column
    try:
        return column.cast(kind)
    except (pa.ArrowException, NotImplementedError) as error:
        raise NotStorable(
            f"the values of column {name!r}, of type {column.type}, do not fit {kind}: {error}"
        ) from error


def _array(name: str, value: Any, kind: pa.DataType | None) -> pa.ChunkedArray:
    if isinstance(value, pa.ChunkedArray):
        return value
    try:
        if isinstance(value, str | bytes):
            raise TypeError("a single text is no column")
        array = value if isinstance(value, pa.Array) else pa.array(value, type=kind)
    except (pa.ArrowException, TypeError, ValueError, NotImplementedError, OverflowError) as error:
        raise NotStorable(
            f"the value of column {name!r}, a {type(value).__name__}, is no array for Arrow: {error}",
            hint="give a list, a NumPy array of one dimension, a series or an Arrow array",
        ) from error
    return array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array], type=array.type)


def _frame(value: Any, connector: Connector | None) -> pa.Table:
    """A frame as an Arrow table of its columns."""
    builder = connector_for(type(value))
    if builder is not None:
        return _built(builder, value, connector)
    if isinstance(value, pa.Table):
        return value
    if isinstance(value, pa.RecordBatch):
        return pa.Table.from_batches([value])
    try:
        return pa.table(value)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise NotStorable(
            f"a {type(value).__name__} is neither a mapping of names to arrays nor a table: {error}"
        ) from error


def _built(builder: Connector, value: Any, connector: Connector | None) -> pa.Table:
    """What a connector builds of a value, without its index; with its metadata in a table of its own only."""
    table = builder.build(value, pickle=False)
    if not isinstance(table, pa.Table):
        raise NotStorable(f"a {type(value).__name__} is not stored as a table, so it has no columns")
    index = set(_index_columns(table.schema, builder))
    table = table.select([column for column in range(table.num_columns) if column not in index])
    if connector is not builder:
        plain = pa.schema([_without_metadata(field) for field in table.schema])
        table = pa.Table.from_arrays(table.columns, schema=plain)
    return table


def _without_metadata(field: pa.Field) -> pa.Field:
    return field.remove_metadata()


# --- common ---


def source_parts(obj: Object) -> tuple[Source, Connector | None]:
    """A stored table taken apart, and the connector that built it.

    Raises:
        InvalidArgument: the object is no table.
    """
    return _source(obj), _connector(obj)


def _source(obj: Object) -> Source:
    handle = obj._live
    if handle.record.kind not in (KIND_TABLE, KIND_COMPOSED):
        raise InvalidArgument(f"{_describe(obj)} is a {obj.kind}, not a table")
    return source_of(handle)


def _connector(obj: Object) -> Connector | None:
    """The connector that built a table, if it is installed."""
    return _installed(obj._live.record.origin)


def _installed(origin: str) -> Connector | None:
    try:
        return connector_named(origin) if origin else None
    except MissingExtra:
        return None


def _index_columns(schema: pa.Schema, connector: Connector | None) -> list[int]:
    """Columns that hold no values of a frame, but its index."""
    if connector is None or connector.values is None:
        return []
    values = set(connector.values(schema))
    return [index for index in range(len(schema)) if index not in values]


def _names(columns: Iterable[str]) -> list[str]:
    names = [columns] if isinstance(columns, str) else list(columns)
    for name in names:
        if not isinstance(name, str):
            raise InvalidArgument(f"a column's name is a str, got {type(name).__name__}")
        if names.count(name) > 1:
            raise InvalidArgument(f"the column {name!r} is named twice")
    return names


def _position(schema: pa.Schema, name: str, obj: Object) -> int:
    found = schema.get_all_field_indices(name)
    if len(found) == 1:
        return int(found[0])
    if found:
        raise InvalidArgument(f"{_describe(obj)} has {len(found)} columns {name!r}")
    there = ", ".join([repr(one) for one in schema.names[:20]]) + (", ..." if len(schema) > 20 else "")
    raise InvalidArgument(f"{_describe(obj)} has no column {name!r}", hint=f"its columns are {there}")


def _describe(obj: Object) -> str:
    return f"the object {obj.name!r}" if obj.name else f"the object {obj.id}"


def _check_alike(first: Object, wanted: pa.Schema, obj: Object, schema: pa.Schema) -> None:
    if schema.names != wanted.names:
        raise InvalidArgument(
            f"{_describe(obj)} has the columns {schema.names}, {_describe(first)} has {wanted.names}",
            hint="select() or rename() them first",
        )
    for field, other in zip(wanted, schema, strict=True):
        one, two = list(_marks(field)), list(_marks(other))
        if field.type != other.type or one != two:
            raise InvalidArgument(
                f"the column {field.name!r} is {_kind(field, one)} in {_describe(first)} and "
                f"{_kind(other, two)} in {_describe(obj)}",
                hint="cast one of them and put it again",
            )


def _marks(field: pa.Field, path: str = "") -> Iterator[tuple[str, bytes, bytes]]:
    """(which inner field, key, value) of all metadata that are part of a column's type."""
    metadata = field.metadata or {}
    yield from ((path, key, metadata[key]) for key in sorted(TYPE_KEYS & metadata.keys()))
    kind = storage(field.type)
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    for index in range(kind.num_fields):
        inner = kind.field(index)
        yield from _marks(inner, f"{path}.{inner.name}")


def _kind(field: pa.Field, marks: list[tuple[str, bytes, bytes]]) -> str:
    """The type of a column, in words."""
    told = [
        f"{path} {key.decode()}: {value[:40].decode(errors='replace')}".strip() for path, key, value in marks
    ]
    return f"{field.type} ({', '.join(told)})" if told else str(field.type)


def _made_of(obj: Object, connector: Connector | None, source: Source, columns: list[int]) -> Composition:
    schema = pa.schema([source.schema.field(index) for index in columns], source.schema.metadata)
    return composed(
        obj, connector, Source(schema, source.num_rows, [source.columns[index] for index in columns])
    )


def composed(
    obj: Object, connector: Connector | None, wanted: Source, streams: Sequence[Stream] = ()
) -> Composition:
    """A new object of columns of `obj`, which it keeps until it is stored; the connector adapts metadata."""
    adapt: Callable[[pa.Schema, int], pa.Schema] | None = connector.adapt if connector is not None else None
    if adapt is not None:
        wanted = wanted._replace(schema=adapt(wanted.schema, wanted.num_rows))
    composition = compose(wanted, streams)
    origin = connector.name if connector is not None else ""
    payload = msgspec.structs.replace(composition.payload, origin=origin, keepalive=obj)
    return composition._replace(payload=payload)
