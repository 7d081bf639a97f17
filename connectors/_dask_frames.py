"""Dask's data frames over stored tables, and stored tables of their partitions. Needs pandas and Dask.

A partition is a slice of the stored table, converted as the whole would be. Two things are not to be seen in
a slice: which rows of a range index it has, and that elsewhere in a column of whole numbers there are nulls,
which makes it one of floats. Both are found out once, from the whole table.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dask
import dask.dataframe as frames
import numpy as np
import pandas as pd
import pyarrow as pa

from flightstore.connectors._pandas.conversion import convert_table, is_for_arrow, refuse, wanted_of
from flightstore.connectors._pandas.layout import known_layout
from flightstore.connectors._pandas.standard import STANDARD_KEY
from flightstore.errors import NotConvertible, NotStorable
from flightstore.objects.base import Object
from flightstore.types import ObjectID

if TYPE_CHECKING:
    from flightstore.abc import AbstractBatch, AbstractStore

__all__ = ["composed", "frame_of", "ids_of"]


@dataclass(frozen=True)
class _Rows:
    """What the task of a partition does; pickles as the object does."""

    obj: Any
    rows: int
    """In a partition."""
    meta: Any
    """The frame or series, without rows."""
    extent: range | None
    """The index, if it is a range."""
    strict: bool

    def __call__(self, start: int) -> Any:
        table = self.obj.to_arrow().slice(start, self.rows)
        part = convert_table(table, wanted_of(None, self.strict), {})
        if self.extent is not None:
            part.index = pd.RangeIndex(self.extent[start : start + self.rows], name=self.meta.index.name)
        if isinstance(part, pd.Series):
            return part if part.dtype == self.meta.dtype else part.astype(self.meta.dtype)
        wanted = self.meta.dtypes.items()
        others = {name: dtype for name, dtype in wanted if part.dtypes[name] != dtype}
        return part.astype(others) if others else part


def frame_of(obj: Any, rows: int, strict: bool) -> Any:
    """The Dask frame or series of a stored table, `rows` in each partition."""
    table = obj.to_arrow()
    if strict:
        refuse(table, known_layout(table.schema), wanted_of(None, strict))
    meta, extent = _meta(table, strict), _extent(table)
    if isinstance(meta, pd.Index):
        raise NotConvertible("Dask has no index without a frame", hint="obj.to_pandas() is the index")
    if isinstance(meta, pd.DataFrame) and not meta.columns.is_unique:
        twice = meta.columns[meta.columns.duplicated()][0]
        raise NotConvertible(
            f"there are several columns {twice!r}: Dask takes each label once", hint="rename()"
        )
    starts = list(range(0, max(table.num_rows, 1), rows))
    divisions = None
    if extent is not None and extent and extent.step > 0:
        divisions = (*[extent[start] for start in starts], extent[-1])
    task = _Rows(obj, rows, meta, extent, strict)
    with dask.config.set({"dataframe.convert-string": False}):  # dtypes stay what they are
        return frames.from_map(task, starts, meta=meta, divisions=divisions, label="flightstore")


def _first_null(column: pa.ChunkedArray) -> int:
    """The first row that is null, where that makes NumPy's dtype another one: so of whole numbers and
    booleans; else -1.
    """
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
        column = pa.chunked_array([chunk.storage for chunk in column.chunks], kind)
    if pa.types.is_dictionary(kind) and _is_whole(kind.value_type):
        if not any(chunk.dictionary.null_count for chunk in column.chunks):
            return -1  # categories: codes say what is null
        column, kind = column.cast(kind.value_type), kind.value_type
    if not _is_whole(kind) or not column.null_count:
        return -1
    row: int = column.is_null().index(True).as_py()
    return row


def _is_whole(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_boolean(kind))


def _meta(table: pa.Table, strict: bool) -> Any:
    """The frame or series without its rows: of dtypes that take all values of the table."""
    rows = {0, *[row for column in table.columns if (row := _first_null(column)) >= 0]}
    try:
        some = table.take(pa.array(sorted(rows)))
    except pa.ArrowException:  # no rows at all, or of a type that Arrow does not gather
        some = pa.concat_tables([table.slice(row, 1) for row in sorted(rows)])
    found = convert_table(some, wanted_of(None, strict), {})
    if isinstance(found, pd.Index):
        return found
    extent = _extent(table)
    found = found.iloc[:0]
    if extent is not None:
        found.index = pd.RangeIndex(0, name=found.index.name)
    return found


def _extent(table: pa.Table) -> range | None:
    """The index of a table of pandas' or anybody else's, if it is a range."""
    rows = table.num_rows
    if is_for_arrow(table):
        indexes = json.loads(table.schema.metadata[STANDARD_KEY])["index_columns"]
        known = indexes[0] if indexes else {}
        if not isinstance(known, dict):
            return None
        found = range(known.get("start", 0), known.get("stop", rows), known.get("step", 1))
    else:
        layout = known_layout(table.schema)
        index = layout.whole["index"]
        if index["kind"] != "range":
            return None if layout.levels else range(rows)
        found = range(*index["range"])
    return found if len(found) == rows else range(rows)


def ids_of(collection: Any, put: Callable[[Any], bytes]) -> list[bytes]:
    """What `put` gives for each partition, in their order."""
    lazy = collection.map_partitions(_one, put, meta=pd.Series([], dtype=object), enforce_metadata=False)
    return list(lazy.compute())


def _one(part: Any, put: Callable[[Any], bytes]) -> pd.Series:
    return pd.Series([put(part)], dtype=object)


def composed(
    parts: list[ObjectID],
    store: AbstractStore,
    batch: AbstractBatch,
    name: str | None,
    metadata: Any,
    timeout: float | None,
) -> Object:
    """One table of the partitions of a frame or series, in their order.

    Raises:
        NotStorable: a partition is no table.
        InvalidArgument: partitions are not alike; names the column.
    """
    objects: list[Any] = [store.get(part) for part in parts]
    for number, one in enumerate(objects):
        if one.kind != "table":
            raise NotStorable(
                f"partition {number} cannot be stored as a table, only as a pickle",
                hint="store.put(value, pickle=False) of one partition names the column",
            )
    objects = [one for one in objects if one.num_rows] or objects[:1]
    extents = [_extent(one.to_arrow()) for one in objects]
    if not _follow(extents):
        objects = [_with_own_index(one, store, batch, timeout) for one in objects]
    return store.concat(objects, name, metadata=metadata, timeout=timeout)


def _follow(extents: list[range | None]) -> bool:
    """Whether joining the rows leaves the index right: levels are joined, ranges counted from 0."""
    if len(extents) == 1 or all(extent is None for extent in extents):
        return True
    end = 0
    for extent in extents:
        if extent is None or extent.start != end or extent.step != 1:
            return False
        end = extent.stop
    return True


def _with_own_index(one: Any, store: AbstractStore, batch: AbstractBatch, timeout: float | None) -> Object:
    """The partition once more, its index a column."""
    value = one.value()
    if not isinstance(value, pd.DataFrame | pd.Series):
        value = one.to_pandas()
    value.index = pd.Index(np.asarray(value.index), name=value.index.name)
    with batch.activate():
        return store.get(store.put(value, timeout=timeout))
