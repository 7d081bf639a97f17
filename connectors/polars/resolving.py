"""Any stored table as a polars frame over the store's memory. Calls the rest of this package.

polars is never called with what it cannot hold. Most columns go over in one call, shared as polars shares
them. Taken one by one: categories, whose codes polars would copy although they can be shared; and what
`building` stored under a marker.
"""

from __future__ import annotations

import pickle
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from flightstore.connectors.polars.converting import convert
from flightstore.connectors.polars.fitting import Judge, has_extension, is_held, unique_names
from flightstore.connectors.polars.markers import (
    ENUM_KEYS,
    KEY,
    OBJECT,
    SERIES,
    categories_of,
    is_text_dictionary,
    marker,
)
from flightstore.connectors.polars.wide import has_wide, import_wide
from flightstore.errors import NotConvertible
from flightstore.objects.base import Object
from flightstore.objects.extras import require

__all__ = ["CODES", "EMPTY_ARRAYS", "OBJECTS", "Column", "fit", "frame_of", "resolve", "table_of"]

TOGETHER, CODES, WIDE, OBJECTS, EMPTY_ARRAYS = "together", "codes", "wide", "objects", "empty arrays"


class Column(NamedTuple):
    """A column that polars can hold, and how it goes over."""

    field: pa.Field
    data: pa.ChunkedArray
    how: str = TOGETHER
    notes: tuple[str, ...] = ()
    """What had to be changed."""
    is_given: bool = False
    """Whether it is just as the table has it, its name apart."""

    @property
    def cut(self) -> tuple[int, ...]:
        """Where its chunks end; those of one chunk are all cut alike."""
        return () if self.data.num_chunks <= 1 else tuple([len(chunk) for chunk in self.data.chunks])


def resolve(obj: Object, *, strict: bool = True) -> Any:
    """The data frame, or the series that was put as one; shares the store's memory wherever polars can.

    The memory lives as long as the frame, or anything made of it that shares it.

    Args:
        obj: A stored table, whoever put it.
        strict: Refuse types that polars has no equal of. Otherwise they are converted, keeping all values;
            `fitting` lists into what, and ``obj.conversion_report("polars", strict=False)`` tells it.

    Raises:
        MissingExtra: polars is not installed.
        NotConvertible: polars cannot hold it; names the column and its type.
    """
    polars = require("polars", "to_polars()")
    table, ours = table_of(obj)
    frame = frame_of(polars, table, fit(polars, table, strict, ours))
    is_series = (table.schema.metadata or {}).get(KEY) == SERIES and table.num_columns == 1
    return frame.to_series() if is_series and ours else frame


def table_of(obj: Object) -> tuple[pa.Table, bool]:
    """The stored table, and whether `building` made it: of nobody else's making a pickle is unpickled.

    Raises:
        NotConvertible: it is no table.
    """
    if not hasattr(obj, "to_arrow") or not hasattr(obj, "num_columns"):
        raise NotConvertible(f"{obj!r} is a {obj.kind}, no table", hint="obj.value() gives it as it was put")
    return obj.to_arrow(), obj._live.record.origin == "polars"


def fit(polars: Any, table: pa.Table, strict: bool, ours: bool = False) -> list[Column]:
    """The columns as polars can hold them.

    Raises:
        NotConvertible: as :func:`resolve`.
    """
    names = _names(table.schema.names, strict)
    return [
        _fitted(polars, field if field.name == name else field.with_name(name), data, strict, ours)
        for field, name, data in zip(table.schema, names, table.columns, strict=True)
    ]


def frame_of(polars: Any, table: pa.Table, columns: list[Column]) -> Any:
    """The data frame of a table's fitted columns."""
    groups: dict[tuple[int, ...], list[Column]] = {}  # columns cut alike go over together, and stay so
    for column in columns:
        if column.how is TOGETHER:
            groups.setdefault(column.cut, []).append(column)
    if len(groups) <= 1 and sum(map(len, groups.values())) == len(columns):
        names = [column.field.name for column in columns]
        if columns and all(column.is_given for column in columns) and names == table.schema.names:
            return _over(polars, table)
        return _together(polars, columns, table.num_rows)
    made = {cut: iter(_together(polars, some, table.num_rows).iter_columns()) for cut, some in groups.items()}
    series = [
        next(made[one.cut]) if one.how is TOGETHER else _MAKERS[one.how](polars, one) for one in columns
    ]
    names = [one.field.name for one in columns]
    if _need_other(names):
        series = [one.alias(f"{i}") for i, one in enumerate(series)]
    return _renamed(polars.DataFrame(series), names)


def _renamed(frame: Any, names: list[str]) -> Any:
    """The frame with these names; it had others if it could not be made with them."""
    if _need_other(names):
        frame.columns = names
    return frame


def _need_other(names: list[str]) -> bool:
    """Whether polars would change names: one of no text gets some, one with a NUL ends there."""
    return "" in names or "\0" in "".join(names)


def _names(names: list[str], strict: bool) -> list[str]:
    if len(set(names)) == len(names):
        return names
    if strict:
        twice = next(name for name in names if names.count(name) > 1)
        raise NotConvertible(
            f"there are {names.count(twice)} columns {twice!r}, and polars takes each name once",
            hint="to_polars(strict=False) renames the later ones; or rename() them",
        )
    return unique_names(names)


def _fitted(polars: Any, field: pa.Field, data: pa.ChunkedArray, strict: bool, ours: bool) -> Column:
    if is_held(field.type):
        if ours and marker(field) == OBJECT:
            return Column(field, data, OBJECTS)
        if not _has_metadata(field):
            return Column(field, data, is_given=True)
    if is_text_dictionary(field.type):
        return _categories(polars, field, data, strict)
    if types.is_fixed_size_list(field.type) and not field.type.list_size and not has_extension(field.type):
        judge = _judge(polars, strict)
        inner = judge.field(field.type.value_field, f"{field.name}[]")
        return Column(field.with_type(pa.list_(inner, 0)), data, EMPTY_ARRAYS, tuple(judge.notes))
    column = _changed(polars, field, data, strict)
    return column._replace(how=WIDE) if has_wide(column.field) else column


def _has_metadata(field: pa.Field) -> bool:
    """Whether a field, or one in it, has metadata."""
    kind = field.type
    return field.metadata is not None or any(_has_metadata(kind.field(i)) for i in range(kind.num_fields))


def _judge(polars: Any, strict: bool, decimals_as_text: bool = False) -> Judge:
    return Judge(strict, lambda zone: _knows_zone(polars, zone), decimals_as_text)


def _changed(
    polars: Any, field: pa.Field, data: pa.ChunkedArray, strict: bool, as_text: bool = False
) -> Column:
    """A column whose type has to be looked at."""
    judge = _judge(polars, strict, as_text)
    new = judge.field(field, field.name)
    try:
        chunks = [convert(chunk, new.type) for chunk in data.chunks]
    except pa.ArrowInvalid as error:
        if judge.narrows:
            return _changed(polars, field, data, strict, as_text=True)
        raise NotConvertible(
            f"column {field.name!r} of type {field.type} has values that polars cannot hold: {error}",
            hint="take it as Arrow: obj.to_arrow()",
        ) from error
    new, notes = _without_foreign_values(new, chunks, field.name, strict)
    if notes:
        chunks = [convert(chunk, new.type) for chunk in chunks]
    return Column(new, pa.chunked_array(chunks, new.type), TOGETHER, (*judge.notes, *notes))


@lru_cache(maxsize=256)
def _knows_zone(polars: Any, zone: str) -> bool:
    if zone.lower() in ("utc", "+00:00"):
        return True
    moment = polars.Series([0]).cast(polars.Datetime("us"))
    try:
        moment.dt.convert_time_zone(zone)
    except polars.exceptions.ComputeError:
        return False
    return True


# --- categories (made without a name: polars takes some names for patterns) ---


def _categories(polars: Any, field: pa.Field, data: pa.ChunkedArray, strict: bool) -> Column:
    """A Categorical or an Enum."""
    judge = _judge(polars, strict)
    new, notes = _without_foreign_values(judge.field(field, field.name), data.chunks, field.name, strict)
    return Column(new, data, CODES, (*judge.notes, *notes))


def _without_foreign_values(
    field: pa.Field, chunks: list[pa.Array], path: str, strict: bool
) -> tuple[pa.Field, list[str]]:
    """The field; a Categorical in place of an Enum that lacks values of its column: polars makes them null.

    Raises:
        NotConvertible: there are such values, at any depth, and the caller is strict.
    """
    if not is_text_dictionary(field.type):
        return _looked_into(field, chunks, path, strict)
    key = next((key for key in ENUM_KEYS if key in (field.metadata or {})), None)
    known = categories_of(field.metadata[key]) if key is not None else None
    if known is None or all(_are_known(chunk.dictionary, known) for chunk in chunks):
        return field, []
    if strict:
        raise NotConvertible(
            f"column {path!r} is an Enum of other categories than its values have",
            hint="to_polars(strict=False) makes it a Categorical",
        )
    return field.remove_metadata(), [f"{path}: an Enum with other values becomes Categorical"]


def _are_known(values: pa.Array, known: tuple[str, ...]) -> bool:
    text = pa.large_string()
    return not len(values) or bool(pc.all(pc.is_in(values.cast(text), pa.array(known, text))).as_py())


def _looked_into(
    field: pa.Field, chunks: list[pa.Array], path: str, strict: bool
) -> tuple[pa.Field, list[str]]:
    kind = field.type
    found: list[str] = []
    if types.is_struct(kind):
        parts = [[chunk.field(i) for chunk in chunks] for i in range(kind.num_fields)]
        fields = [kind.field(i) for i in range(kind.num_fields)]
    elif types.is_map(kind):
        parts = [[chunk.keys for chunk in chunks], [chunk.items for chunk in chunks]]
        fields = [kind.key_field, kind.item_field]
    elif types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        parts, fields = [[chunk.values for chunk in chunks]], [kind.value_field]
    else:
        return field, found
    news = []
    for one, inside in zip(fields, parts, strict=True):
        new, notes = _without_foreign_values(one, inside, f"{path}.{one.name}", strict)
        news.append(new)
        found += notes
    return (field.with_type(_of(kind, news)), found) if found else (field, found)


def _of(kind: pa.DataType, fields: list[pa.Field]) -> pa.DataType:
    """A nested type of the same kind with other fields."""
    if types.is_struct(kind):
        return pa.struct(fields)
    if types.is_map(kind):
        return pa.map_(*fields)
    if types.is_fixed_size_list(kind):
        return pa.list_(fields[0], kind.list_size)
    return pa.large_list(fields[0]) if types.is_large_list(kind) else pa.list_(fields[0])


def _codes(polars: Any, column: Column) -> Any:
    """Categories whose codes are the store's memory, where this process numbers them as the store does."""
    field, data = column.field, column.data
    dtype = _together(polars, [Column(field, data.slice(0, 0))], 0).dtypes[0]
    first = data.chunk(0).dictionary if data.num_chunks else pa.array([], field.type.value_type)
    known = _numbered(polars, first, dtype)
    if known is None or not all(chunk.dictionary.equals(first) for chunk in data.chunks):
        return _series(polars, column)
    physical = known.to_physical().dtype
    chunks = [_as_unsigned(chunk.indices, known.len()) for chunk in data.chunks]
    codes = _series(polars, Column(pa.field("", chunks[0].type), pa.chunked_array(chunks)))
    if codes.dtype != physical or not hasattr(codes.cat, "to"):
        return _series(polars, column)
    return codes.cat.to(dtype).alias(field.name)


def _numbered(polars: Any, values: pa.Array, dtype: Any) -> Any:
    """The values as categories, if their codes are 0, 1, 2, ... in this process; else None."""
    if not len(values) or values.null_count:
        return None
    for some in (values.slice(0, 1), values):  # the first one tells most often
        text = _series(polars, Column(pa.field("", some.type), pa.chunked_array([some])))
        known = text.cast(dtype)
        if not np.array_equal(known.to_physical().to_numpy(), np.arange(len(some))):
            return None
    return known


def _as_unsigned(indices: pa.Array, entries: int) -> pa.Array:
    """Codes as polars numbers them: unsigned, of the same width."""
    unsigned = {1: pa.uint8(), 2: pa.uint16(), 4: pa.uint32(), 8: pa.uint64()}[indices.type.byte_width]
    return indices.view(unsigned)


# --- the other ways ---


def _together(polars: Any, columns: list[Column], num_rows: int) -> Any:
    """Columns that polars takes as they are, in one call."""
    if not columns:
        return _over(polars, pa.table({"": pa.nulls(num_rows)}).select([]))
    schema = pa.schema([column.field for column in columns])
    return _over(polars, pa.Table.from_arrays([column.data for column in columns], schema=schema))


def _over(polars: Any, table: pa.Table) -> Any:
    """A table that polars takes as it is, under whatever names."""
    names = table.schema.names
    if table.schema.metadata is not None:  # of no use to polars, which panics if it is no UTF-8
        table = table.replace_schema_metadata()
    if _need_other(names):
        schema = pa.schema([field.with_name(f"{i}") for i, field in enumerate(table.schema)])
        table = pa.Table.from_arrays(table.columns, schema=schema)
    try:
        return _renamed(polars.from_arrow(table, rechunk=False), names)
    except Exception as error:
        kinds = ", ".join([f"{field.name!r}: {field.type}" for field in table.schema][:20])
        raise NotConvertible(
            f"polars refuses these columns ({kinds}): {error}", hint="take it as Arrow: obj.to_arrow()"
        ) from error


def _series(polars: Any, column: Column) -> Any:
    return _together(polars, [column], len(column.data)).to_series()


def _wide(polars: Any, column: Column) -> Any:
    name = column.field.name
    return import_wide(polars, column.field.with_name(""), column.data).alias(name)


def _objects(polars: Any, column: Column) -> Any:
    values = [None if value is None else pickle.loads(value) for value in column.data.to_pylist()]
    return polars.Series(column.field.name, values, dtype=polars.Object)


def _empty_arrays(polars: Any, column: Column) -> Any:
    """Arrays of width 0, which polars does not read from Arrow: only which ones are null."""
    inner = column.field.type.value_field
    kind = _series(polars, Column(inner, pa.chunked_array([], inner.type))).dtype
    pair = polars.Series("", [[], None], dtype=polars.Array(kind, 0))
    nulls = column.data.is_null().combine_chunks()
    return pair.gather(polars.Series(nulls.cast(pa.uint32()))).alias(column.field.name)


_MAKERS = {CODES: _codes, WIDE: _wide, OBJECTS: _objects, EMPTY_ARRAYS: _empty_arrays}
