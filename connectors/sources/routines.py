"""Cutting, joining and sorting stored tables.

What can be composed is: parts share the memory of what they were made of. What cannot is copied, once, and
straight into the store's memory, batch by batch. All parts become visible in one commit, or none. What was
copied and what is shared is told by ``parts.report``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from flightstore.connectors._pandas.facts import adapt
from flightstore.connectors.sources.grouping import check_columns, codes_of, take
from flightstore.connectors.sources.hashing import hash_rows
from flightstore.connectors.sources.sharing import shared_bytes
from flightstore.errors import InvalidArgument

if TYPE_CHECKING:
    from flightstore.abc import AbstractStore
    from flightstore.objects.base import Object
    from flightstore.objects.table import Table

__all__ = ["Parts", "RoutineReport", "chunk", "concat", "partition", "repartition", "sort_within"]

_GATHERED_BYTES = 256 << 20
_SMALLEST_GROUP_BYTES, _LARGEST_GROUP_BYTES = 256 << 10, 16 << 20
_BATCH_ROWS = 1 << 18
_SAMPLE = 1 << 20
_MOST_PARTS = 65_536
Numbers = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class RoutineReport:
    """What a routine copied, and what its results share with what they were made of."""

    copied_bytes: int
    """Bytes of the parts that were written anew."""
    shared_bytes: int
    """Bytes of the parts that lie in the memory of the tables they were made of."""


class Parts(list[Any]):
    """The tables that a routine made, in order: references on stored objects."""

    report: RoutineReport
    """What was copied and what is shared."""

    def __init__(self, parts: Iterable[Any], report: RoutineReport) -> None:
        super().__init__(parts)
        self.report = report


def concat(
    objs: Iterable[Any],
    *,
    store: AbstractStore | None = None,
    name: str | None = None,
    metadata: Any = None,
    timeout: float | None = 0,
) -> Table:
    """The rows of several stored tables, one after the other, as one. Nothing is copied: `Store.concat`.

    Args:
        objs: Stored tables of the same columns: objects, names or ids.
        store: Where they are; None for the default store.
        name: The new object's name.
        metadata: As for `Store.put`.
        timeout: As for `Store.put`.
    """
    return _store(store).concat(objs, name, metadata=metadata, timeout=timeout)  # type: ignore[return-value]


def chunk(
    obj: Any,
    *,
    rows: int | None = None,
    nbytes: int | None = None,
    store: AbstractStore | None = None,
    name: str | None = None,
    metadata: Any = None,
    timeout: float | None = 0,
) -> Parts:
    """Cut a table into runs of rows, of so many rows or about so many bytes each.

    Streams that lie within one chunk are shared with the table; rows of those that are cut through are
    copied. So a table that `read` made, or `concat`, is cut for little; one that was put whole is copied.

    Args:
        obj: A stored table: object, name or id.
        rows: Rows of each chunk but the last.
        nbytes: Instead: bytes, from which rows are reckoned by the table's average.
        store: Where it is; None for the default store.
        name: The chunks are named ``name/0``, ``name/1``, ...; None leaves them without names.
        metadata: As for `Store.put`, for each chunk.
        timeout: As for `Store.put`.

    Raises:
        InvalidArgument: neither, or both, of `rows` and `nbytes` are given, or there would be more than
        65,536.
    """
    store = _store(store)
    table = _table(store, obj)
    if (rows is None) == (nbytes is None):
        raise InvalidArgument("say how large chunks are: rows=, or nbytes=")
    if nbytes is not None:
        _check_count(nbytes, "nbytes")
        rows = max(nbytes * table.num_rows // max(table.nbytes, 1), 1)
    _check_count(rows, "rows")
    assert rows is not None
    return _split_rows(store, table, list(range(rows, table.num_rows, rows)), name, metadata, timeout)


def partition(
    obj: Any,
    *,
    by: Literal["hash", "range", "rows", "column", "value"],
    n: int | None = None,
    columns: Sequence[Any] | str | None = None,
    boundaries: Sequence[Any] | None = None,
    store: AbstractStore | None = None,
    name: str | None = None,
    metadata: Any = None,
    timeout: float | None = 0,
) -> Parts:
    """Divide a table. Every row (or column) is in exactly one part, and keeps its order there.

    Args:
        obj: A stored table: object, name or id.
        by: ``hash``: rows of equal values in `columns` go to the same of `n` parts, by a hash that is the
            same everywhere and in every version (`flightstore.connectors.sources.hashing` says which). Rows
            are copied. ``range``: by the values of one column; `boundaries` are the first values of the second,
            third, ... part, or are reckoned for `n` parts of about as many rows. Nulls and NaN go to the
            last. Rows are copied. ``value``: a part for each combination of values in `columns`, in the order
            in which they first occur. Rows are copied.
            ``rows``: `n` runs of rows, as even as can be; shares what `chunk` shares.
            ``column``: by columns: `columns` is a list of lists of names, or `n` groups of neighbours.
            Nothing is copied.
        n: How many parts.
        columns: What to divide by.
        boundaries: For ``range``, ascending.
        store: Where it is; None for the default store.
        name: The parts are named ``name/0``, ``name/1``, ...; None leaves them without names.
        metadata: As for `Store.put`, for each part.
        timeout: As for `Store.put`.

    Returns:
        The parts; empty ones included, so that part *i* of one table goes with part *i* of another.

    Raises:
        InvalidArgument: there are no such columns; their type cannot be divided by; `n` is missing.
    """
    store = _store(store)
    table = _table(store, obj)
    if by in ("rows", "column"):
        if by == "rows":
            _check_count(n, "n")
            assert n is not None
            cuts = [table.num_rows * part // n for part in range(1, n)]
            return _split_rows(store, table, cuts, name, metadata, timeout)
        groups = _column_groups(table, n, columns)
        made = store.split(
            table, columns=groups, names=_names(name, len(groups)), metadata=metadata, timeout=timeout
        )
        return Parts(made, _report([table], made))
    arrow = table.to_arrow()
    names = [columns] if isinstance(columns, str) else list(columns or ())
    check_columns(arrow.schema, names)
    count, number = _rule(arrow, by, names, n, boundaries)
    return _distribute(store, arrow, count, number, name, metadata, timeout)


def repartition(
    objs: Iterable[Any],
    n: int,
    *,
    store: AbstractStore | None = None,
    name: str | None = None,
    metadata: Any = None,
    timeout: float | None = 0,
) -> Parts:
    """The rows of several tables, in order, as `n` tables of as many rows as can be even.

    Streams that lie within one part are shared; rows of those that are cut through are copied.

    Args:
        objs: Stored tables of the same columns: objects, names or ids.
        n: How many parts.
        store: Where they are; None for the default store.
        name: The parts are named ``name/0``, ``name/1``, ...
        metadata: As for `Store.put`, for each part.
        timeout: As for `Store.put`.
    """
    store = _store(store)
    whole = concat(objs, store=store, timeout=timeout)
    try:
        return partition(whole, by="rows", n=n, store=store, name=name, metadata=metadata, timeout=timeout)
    finally:
        store.delete(whole.id)


def sort_within(
    objs: Any,
    by: str | Sequence[str | tuple[str, str]],
    *,
    store: AbstractStore | None = None,
    name: str | None = None,
    metadata: Any = None,
    timeout: float | None = 0,
) -> Parts:
    """Each of some tables, its rows sorted. Rows are copied.

    The order of equal rows is kept; nulls come last.

    Args:
        objs: Stored tables: objects, names or ids; one, or several.
        by: A column, or several, each as its name or ``(name, "ascending" | "descending")``.
        store: Where they are; None for the default store.
        name: They are named ``name/0``, ``name/1``, ...
        metadata: As for `Store.put`, for each.
        timeout: As for `Store.put`.
    """
    store = _store(store)
    listed = list(objs) if isinstance(objs, list | tuple) else [objs]
    tables = [_table(store, obj).to_arrow() for obj in listed]
    keys = [by] if isinstance(by, str) else list(by)
    order = [(key, "ascending") if isinstance(key, str) else key for key in keys]
    for table in tables:
        check_columns(table.schema, [key for key, _ in order])
    streams = _Streams(store, [table.schema for table in tables], name, metadata, timeout)
    with streams:
        for number, table in enumerate(tables):
            indices = _sorted(table, order)
            for at in range(0, len(indices), _BATCH_ROWS):
                for batch in _gathered(table, indices[at : at + _BATCH_ROWS]):
                    streams.write(number, batch)
        return streams.seal()


def _sorted(table: pa.Table, order: Sequence[tuple[str, str]]) -> Numbers:
    import pyarrow.compute as pc

    try:
        found: Numbers = pc.sort_indices(table.select([key for key, _ in order]), sort_keys=order).to_numpy()
        return found
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InvalidArgument(f"the table cannot be sorted by {order}: {error}") from error


def _gathered(table: pa.Table, indices: Numbers) -> list[pa.RecordBatch]:
    """Rows from anywhere in a table."""
    whole = table.combine_chunks() if table.nbytes < 1 << 20 else table
    batches = whole.to_batches()
    if len(batches) == 1:
        return take(batches[0], indices)
    # One batch after the other, then put in order: joining texts of all batches could exceed Arrow's offsets.
    ends = np.cumsum([batch.num_rows for batch in batches])
    which = np.searchsorted(ends, indices, side="right")
    picked: list[pa.RecordBatch] = []
    sources = np.argsort(which, kind="stable")
    for number in np.unique(which).tolist():
        rows = indices[which == number] - (ends[number - 1] if number else 0)
        picked += take(batches[number], rows)
    back = np.empty(len(indices), np.int64)
    back[sources] = np.arange(len(indices))
    joined = pa.Table.from_batches(picked, table.schema).combine_chunks().to_batches()
    return [one for batch in joined for one in take(batch, back)]


# --- by the values of rows ---


def _rule(
    table: pa.Table, by: str, names: list[str], n: int | None, boundaries: Sequence[Any] | None
) -> tuple[int, Callable[[pa.RecordBatch, int], Numbers]]:
    """How many parts there are, and the function that says in which the rows of a batch go."""
    if by == "value":
        codes, values = codes_of(table, names)
        _check_count(len(values) or 1, "the number of values")
        return len(values), lambda batch, at: codes[at : at + batch.num_rows]
    if by == "hash":
        _check_count(n, "n")
        assert n is not None
        count = np.uint64(n)
        return int(count), lambda batch, _at: hash_rows([batch.column(name) for name in names]) % count
    if by != "range":
        raise InvalidArgument(f"by={by!r}: take hash, range, value, rows or column")
    if len(names) != 1:
        raise InvalidArgument("a range is of one column", hint="columns='x'")
    limits = _limits(table.column(names[0]), n, boundaries)
    return len(limits) + 1, lambda batch, _at: _in_range(batch.column(names[0]), limits)


def _limits(column: pa.ChunkedArray, n: int | None, boundaries: Sequence[Any] | None) -> pa.Array:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    try:
        if boundaries is not None:
            if n is not None and n != len(boundaries) + 1:
                raise InvalidArgument(
                    f"{len(boundaries)} boundaries make {len(boundaries) + 1} parts, not {n}"
                )
            limits = pa.array(boundaries, kind)
        else:
            _check_count(n, "n")
            assert n is not None
            step = max(len(column) // _SAMPLE, 1)
            picked = [chunk.take(pa.array(np.arange(0, len(chunk), step))) for chunk in column.chunks]
            sample = pa.chunked_array(picked, column.type).cast(kind).drop_null().combine_chunks()
            if isinstance(sample, pa.ChunkedArray):
                sample = pa.concat_arrays(sample.chunks) if sample.num_chunks else pa.array([], kind)
            ordered = sample.sort()
            places = [len(ordered) * part // n for part in range(1, n)] if len(ordered) else []
            limits = ordered.take(pa.array(places, pa.int64()))
            if not len(ordered):
                limits = pa.nulls(n - 1, kind)
        if not limits.sort().equals(limits):
            raise InvalidArgument("the boundaries do not ascend")
        return limits
    except (pa.ArrowException, TypeError) as error:
        raise InvalidArgument(f"values of type {kind} have no ranges: {error}") from error


def _in_range(column: pa.Array, limits: pa.Array) -> Numbers:
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    number = np.zeros(len(column), np.int64)
    for limit in limits:
        beyond = pc.greater_equal(column, limit).fill_null(True)
        number += beyond.to_numpy(zero_copy_only=False)
    last = column.is_null(nan_is_null=True).to_numpy(zero_copy_only=False)
    number[last] = len(limits)
    return number


def _distribute(
    store: AbstractStore,
    table: pa.Table,
    count: int,
    number: Callable[[pa.RecordBatch, int], Numbers],
    name: str | None,
    metadata: Any,
    timeout: float | None,
) -> Parts:
    """Copy rows to their parts: first all numbers (2 bytes a row), so that each part's rows are known."""
    batches = table.to_batches(max_chunksize=_BATCH_ROWS)
    ends = np.cumsum([0, *[batch.num_rows for batch in batches]]).tolist()
    numbers = [number(batch, at).astype(np.uint16) for batch, at in zip(batches, ends, strict=False)]
    totals = sum((np.bincount(one, minlength=count) for one in numbers), np.zeros(count, np.int64))
    schemas = [adapt(table.schema, int(total)) for total in totals]
    with _Streams(store, schemas, name, metadata, timeout) as streams:
        for batch, parts in zip(batches, numbers, strict=True):
            order = np.argsort(parts, kind="stable")
            bounds = np.concatenate(([0], np.cumsum(np.bincount(parts, minlength=count)))).tolist()
            sorted_rows = pa.Table.from_batches(take(batch, order), batch.schema)
            for part in np.unique(parts).tolist():
                start, stop = bounds[part], bounds[part + 1]
                for rows in sorted_rows.slice(start, stop - start).to_batches():
                    streams.write(part, rows)
        return streams.seal()


class _Streams:
    """Tables that are written at the same time and sealed together."""

    def __init__(
        self,
        store: AbstractStore,
        schemas: Sequence[pa.Schema],
        name: str | None,
        metadata: Any,
        timeout: float | None,
    ) -> None:
        self._store = store
        self._timeout = timeout
        group = min(max(_GATHERED_BYTES // max(len(schemas), 1), _SMALLEST_GROUP_BYTES), _LARGEST_GROUP_BYTES)
        self._writers: list[Any] = []
        self._schemas = schemas
        for schema, called in zip(schemas, _names(name, len(schemas)), strict=True):
            self._writers.append(
                store.create_stream(schema, called, metadata=metadata, timeout=timeout, group_bytes=group)
            )

    def write(self, number: int, batch: pa.RecordBatch) -> None:
        """Append rows to a table."""
        self._writers[number].write(batch.replace_schema_metadata(self._schemas[number].metadata))

    def seal(self) -> Parts:
        """Make all visible."""
        ids = self._store.seal_many(self._writers, timeout=self._timeout)
        parts = self._store.get_many(ids)
        return Parts(parts, RoutineReport(sum(part.nbytes for part in parts), 0))

    def __enter__(self) -> _Streams:
        return self

    def __exit__(self, *exc: object) -> None:
        for writer in self._writers:
            writer.abort()


# --- common ---


def _split_rows(
    store: AbstractStore,
    table: Table,
    cuts: list[int],
    name: str | None,
    metadata: Any,
    timeout: float | None,
) -> Parts:
    _check_count(len(cuts) + 1, "the number of parts")
    made = store.split(
        table, rows=cuts, names=_names(name, len(cuts) + 1), metadata=metadata, timeout=timeout
    )
    return Parts(made, _report([table], made))


def _report(sources: Sequence[Any], made: Sequence[Object]) -> RoutineReport:
    total = sum(part.nbytes for part in made)
    tables: list[Any] = [*sources]
    memory = [one.to_arrow() for one in tables]
    parts: list[Any] = [*made]
    shared = sum(shared_bytes(part.to_arrow(), memory) for part in parts)
    return RoutineReport(max(total - shared, 0), min(shared, total))


def _column_groups(table: Table, n: int | None, columns: Any) -> list[list[str]]:
    if columns is not None and not isinstance(columns, str):
        groups = [[one] if isinstance(one, str) else list(one) for one in columns]
        if n is None or n == len(groups):
            return groups
        raise InvalidArgument(f"{len(groups)} groups of columns are not {n}")
    _check_count(n, "n")
    assert n is not None
    names = table.column_names
    bounds = [len(names) * part // n for part in range(n + 1)]
    return [names[bounds[part] : bounds[part + 1]] for part in range(n)]


def _names(name: str | None, count: int) -> list[str | None]:
    return [f"{name}/{number}" if name is not None else None for number in range(count)]


def _check_count(value: Any, what: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidArgument(f"{what} is {value!r}: give a whole number from 1")
    if what in ("n", "the number of parts", "the number of values") and value > _MOST_PARTS:
        raise InvalidArgument(f"{value:,} parts are more than {_MOST_PARTS:,}")


def _store(store: AbstractStore | None) -> AbstractStore:
    if store is not None:
        return store
    from flightstore import connect

    return connect()


def _table(store: AbstractStore, obj: Any) -> Table:
    from flightstore.objects.base import Object

    found = obj if isinstance(obj, Object) else store.get(obj)
    if found.kind != "table":
        raise InvalidArgument(f"{found!r} is a {found.kind}, no table")
    return found  # type: ignore[return-value]
