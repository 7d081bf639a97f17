"""DuckDB: stored tables in SQL by their names, and results back into the store.

DuckDB scans the store's memory as a pyarrow dataset: it asks for the columns that a query needs, and hands
over filters where it knows that Arrow's comparisons mean the same as its own; the others it applies itself.

Names are found as DuckDB finds those of Python variables ("replacement scans"): :func:`query` lays out the
tables that a statement may mean as variables of the frame that calls DuckDB. So nothing is registered, a
table of the connection itself or of a ``with`` clause comes first, and the objects stay leased exactly as
long as the relation that was made of them.

What DuckDB cannot hold is found out before it is asked, from the types (`_REFUSED`): some of it would end its
whole connection, some would change values silently.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as datasets
from pyarrow import types

from flightstore.connectors import Connector
from flightstore.connectors._parts import grouped, put_parts
from flightstore.errors import InvalidArgument, NotConvertible, NotStorable, ObjectNotFound
from flightstore.objects.extras import require

if TYPE_CHECKING:
    from flightstore.abc import AbstractStore
    from flightstore.objects.base import Object

__all__ = ["CONNECTOR", "dataset", "from_duckdb", "query", "register", "to_duckdb"]

BATCH_ROWS = 122_880
"""Rows of a batch that DuckDB hands over: one of its row groups."""
DECIMAL_DIGITS = 38
_QUOTED, _TEXT = re.compile(r'"((?:[^"]|"")*)"'), re.compile(r"'((?:[^']|'')*)'")
_WORD = re.compile(r"[^\W\d][\w$]*")


# --- SQL over a store ---


def query(
    sql: str, *, store: AbstractStore | None = None, con: Any = None, params: Any = None, strict: bool = True
) -> Any:
    """The relation of a SQL statement in which names of stored tables stand for these.

    ``query("select * from orders")``; a name that is no identifier in double quotes: ``from "2030/orders"``.
    Names mean the objects of this moment: putting one anew changes nothing about the relation, which keeps
    them, and their memory, as long as it lives. Tables and views of the connection, and those of a ``with``
    clause, come before stored ones. Names are compared exactly, upper and lower case included.

    Args:
        sql: One statement.
        store: Where the tables are; None for the user's default store.
        con: A DuckDB connection; None for a new one in memory.
        params: Values of the statement's parameters.
        strict: As :func:`dataset`.

    Returns:
        A ``DuckDBPyRelation``; None for a statement that gives no rows.

    Raises:
        MissingExtra: DuckDB is not installed.
        NotConvertible: DuckDB cannot hold a column of a table that is named; names it and its type.
        InvalidArgument: the connection does not look for Python's variables.
        duckdb.Error: whatever DuckDB finds wrong with the statement.
    """
    duckdb = require("duckdb", "query()")
    if con is None:
        con = duckdb.connect()
    if store is None:
        from flightstore import connect

        with connect(create=False) as store:
            tables = dict(_named_tables(duckdb, sql, store, strict))
    else:
        tables = dict(_named_tables(duckdb, sql, store, strict))
    try:
        return _with_variables(con, sql, params, tables)
    except duckdb.CatalogException as error:
        enabled = "select current_setting('python_enable_replacements')"
        if not tables or con.sql(enabled).fetchall()[0][0]:
            raise
        raise InvalidArgument(
            "this DuckDB connection does not look for tables outside of itself",
            hint="con.execute('set python_enable_replacements = true'), or register(con, ...)",
        ) from error


def _with_variables(con: Any, sql: str, params: Any, variables: dict[str, Any]) -> Any:
    """``con.sql(...)``, called from a frame that has these variables: any text may be the name of one."""
    call = {"_con": con, "_sql": sql, "_params": params}
    return eval("_con.sql(_sql, params=_params)", call, variables)


def _named_tables(
    duckdb: Any, sql: str, store: AbstractStore, strict: bool
) -> Iterator[tuple[str, datasets.Dataset]]:
    """The stored tables that a statement may mean: those whose names are among its words."""
    for name in _words(duckdb, sql):
        try:
            obj = store.get(name)
        except (ObjectNotFound, InvalidArgument):  # no name of an object, or none at all
            continue
        if obj.kind == "table":
            yield name, _named(name, obj, strict)


def _named(name: str, obj: Object, strict: bool) -> datasets.Dataset:
    try:
        return dataset(obj, strict=strict)
    except NotConvertible as error:
        raise NotConvertible(f"table {name!r}: {error.message}", hint=error.hint) from error


def _words(duckdb: Any, sql: str) -> list[str]:
    """The words of a statement that may be names of tables, as DuckDB divides it; each once."""
    tokens = duckdb.tokenize(sql)
    ends = [start for start, _ in tokens[1:]] + [len(sql.encode())]
    raw, found = sql.encode(), dict[str, None]()
    for (start, kind), end in zip(tokens, ends, strict=True):
        text = raw[start:end].decode(errors="replace")
        if kind in (duckdb.token_type.numeric_const, duckdb.token_type.operator, duckdb.token_type.comment):
            continue
        for pattern, quote in ((_QUOTED, '"'), (_TEXT, "'")):
            if match := pattern.match(text):
                found[match[1].replace(quote * 2, quote)] = None
                break
        else:
            if match := _WORD.match(text):
                found[match[0]] = None
    return list(found)


def register(
    con: Any, pattern: str | None = None, *, store: AbstractStore | None = None, strict: bool = True
) -> list[str]:
    """Make stored tables views of a DuckDB connection, so that any of its statements finds them.

    A view means the object of this moment, which stays leased until the view is replaced or dropped
    (``con.unregister(name)``) or the connection closed. To query a store, :func:`query` is simpler: it takes
    nothing that the statement does not name.

    Args:
        con: A DuckDB connection.
        pattern: A shell pattern of names, as ``store.list`` takes it; None for all tables.
        store: Where the tables are; None for the user's default store.
        strict: As :func:`dataset`.

    Returns:
        The names of the views, in order.

    Raises:
        MissingExtra: DuckDB is not installed.
        InvalidArgument: two of the names differ in upper and lower case only: DuckDB takes them for one.
        NotConvertible: DuckDB cannot hold a column of a table; nothing was registered.
    """
    require("duckdb", "register()")
    if store is None:
        from flightstore import connect

        with connect(create=False) as default:
            return register(con, pattern, store=default, strict=strict)
    found: dict[str, datasets.Dataset] = {}
    folded: dict[str, str] = {}
    for info in store.list(pattern):
        if info.name is None or info.kind != "table":
            continue
        if (other := folded.setdefault(info.name.lower(), info.name)) != info.name:
            raise InvalidArgument(
                f"{other!r} and {info.name!r} are one name to DuckDB",
                hint="register them by narrower patterns",
            )
        found[info.name] = _named(info.name, store.get(info.id), strict)
    for name, source in found.items():
        con.register(name, source)
    return list(found)


def to_duckdb(obj: Object, con: Any = None, *, strict: bool = True) -> Any:
    """A stored table as a relation, which shares its memory and keeps it.

    Args:
        obj: A stored table.
        con: The DuckDB connection it is of; None for a new one in memory.
        strict: As :func:`dataset`.

    Raises:
        MissingExtra: DuckDB is not installed.
        NotConvertible: it is no table, or DuckDB cannot hold a column; names it and its type.
    """
    duckdb = require("duckdb", "to_duckdb()")
    source = dataset(obj, strict=strict)
    return (duckdb.connect() if con is None else con).from_arrow(source)


def from_duckdb(
    relation: Any,
    store: AbstractStore,
    name: str | None = None,
    *,
    metadata: Any = None,
    timeout: float | None = 0,
) -> Object:
    """Store a relation's rows as they are computed; private memory holds some 32 MiB of them at a time.

    ``store.put(relation)`` does so too, but DuckDB computes all rows before it hands over the first.

    Raises:
        As ``store.put``; nothing is left behind then. duckdb.Error: the query failed.
    """
    reader = relation.to_arrow_reader(BATCH_ROWS)
    return put_parts(store, grouped(reader), name, metadata, timeout)


# --- what DuckDB holds ---


def dataset(obj: Object, *, strict: bool = True) -> datasets.Dataset:
    """A stored table as a pyarrow dataset of types that DuckDB has; shares its memory.

    Changed in any case, and exact: half floats become floats, decimals of hundreds plain ones. Zones of times
    become UTC, dictionaries and run ends their values: DuckDB has no such types.

    Args:
        obj: A stored table.
        strict: Refuse what would change or lose values. Otherwise wide decimals become text where 38 digits
            do not hold them, intervals and durations lose what is below a microsecond, the later of two
            columns of one name gets another.

    Raises:
        NotConvertible: it is no table, or DuckDB cannot hold a column; names it and its type.
    """
    if not hasattr(obj, "to_arrow") or not hasattr(obj, "num_columns"):
        raise NotConvertible(f"{obj!r} is a {obj.kind}, no table", hint="obj.value() gives it as it was put")
    table = obj.to_arrow()
    if not table.num_columns:
        raise NotConvertible("DuckDB has no tables without columns", hint="obj.num_rows says how many rows")
    names = _names(table.schema.names, strict)
    columns = [_fitted(name, column, strict) for name, column in zip(names, table.columns, strict=True)]
    if names == table.schema.names and all(a is b for a, b in zip(columns, table.columns, strict=True)):
        return datasets.dataset(table.replace_schema_metadata())
    return datasets.dataset(pa.Table.from_arrays(columns, names))


def _names(names: list[str], strict: bool) -> list[str]:
    """The names, different for DuckDB too, which knows no upper and lower case, and no NUL."""
    taken: dict[str, str] = {}
    found = []
    for name in names:
        new, count = name.replace("\0", "\N{SYMBOL FOR NULL}") or "_", 1
        if strict and new != name:
            raise NotConvertible(
                f"DuckDB has no columns of the name {name!r}", hint="strict=False calls it otherwise"
            )
        if strict and new.lower() in taken:
            raise NotConvertible(
                f"columns {taken[new.lower()]!r} and {name!r} are of one name to DuckDB",
                hint="strict=False calls the later one otherwise; or rename() it",
            )
        plain = new
        while new.lower() in taken:
            count += 1
            new = f"{plain}_{count}"
        taken[new.lower()] = name
        found.append(new)
    return found


def _fitted(name: str, column: pa.ChunkedArray, strict: bool) -> pa.ChunkedArray:
    """The column as DuckDB can hold it."""
    kind = column.type
    if types.is_float16(kind):
        return column.cast(pa.float32())
    if types.is_decimal(kind) and (
        types.is_decimal256(kind) or kind.scale < 0 or kind.scale > kind.precision
    ):
        return _decimal(name, column, strict)
    if strict and _is_finer(kind):
        if _loses(column):
            raise _refusal(name, kind, ": it would lose what is below a microsecond", "strict=False lets it")
        return column
    why = _refused(kind, strict, nested=False)
    if why:
        raise _refusal(name, kind, why, "leave it out: obj.select(...); obj.to_arrow() holds everything")
    return column


def _refusal(name: str, kind: pa.DataType, why: str, hint: str) -> NotConvertible:
    return NotConvertible(f"column {name!r} is of type {kind}, which DuckDB cannot hold{why}", hint=hint)


def _decimal(name: str, column: pa.ChunkedArray, strict: bool) -> pa.ChunkedArray:
    """Decimals of at most 38 digits, before the point and after; text where these do not hold the values, and
    the caller lets it.
    """
    kind = column.type
    scale = min(max(kind.scale, 0), DECIMAL_DIGITS)
    digits = max(kind.precision - min(kind.scale, 0), scale)
    try:
        return column.cast(pa.decimal128(min(digits, DECIMAL_DIGITS), scale))
    except (pa.ArrowException, ValueError) as error:
        if strict:
            raise _refusal(name, kind, f": {error}", "strict=False makes it text") from error
        return column.cast(pa.string())


def _is_finer(kind: pa.DataType) -> bool:
    """Whether values may be finer than DuckDB's intervals, which count microseconds."""
    return bool(types.is_interval(kind) or (types.is_duration(kind) and kind.unit == "ns"))


def _loses(column: pa.ChunkedArray) -> bool:
    """Whether values below a microsecond are there."""
    for chunk in column.chunks:
        width = chunk.type.bit_width // 64  # an interval is months and days, then nanoseconds
        words = np.frombuffer(chunk.buffers()[1] or b"", np.int64).reshape(-1, width)
        finer = words[chunk.offset : chunk.offset + len(chunk), -1] % 1000 != 0
        if pc.any(pc.and_(pa.array(finer), chunk.is_valid())).as_py():
            return True
    return False


def _refused(kind: pa.DataType, strict: bool, *, nested: bool = True) -> str:
    """Why DuckDB cannot hold a type, at any depth; empty if it can."""
    if isinstance(kind, pa.BaseExtensionType):
        return _refused(kind.storage_type, strict)
    for check, why in _REFUSED:
        if check(kind):
            return why
    if nested and strict and _is_finer(kind):
        return ": inside another, it could lose what is below a microsecond"
    if types.is_struct(kind):
        folded = [kind.field(i).name.lower() for i in range(kind.num_fields)]
        if len(set(folded)) != len(folded):
            return ": two of its fields are of one name to DuckDB"
        if any("\0" in name or not name for name in folded):
            return ": a field has no name, or a NUL in it"
    if types.is_dictionary(kind):
        if _has(kind.value_type, _is_composite):
            return ": it misreads dictionaries of anything but plain values"
        return _refused(kind.value_type, strict)
    if types.is_union(kind) and list(kind.type_codes) != list(range(kind.num_fields)):
        return ": it numbers the members of a union itself"
    if types.is_fixed_size_list(kind) and _has(kind.value_type, _is_encoded):
        return ": it takes codes for values where a dictionary or run ends are in arrays"
    if any(check(kind) for check in _LISTS) and types.is_run_end_encoded(kind.value_type):
        return ": it fails where lists over run ends have no items"
    if types.is_run_end_encoded(kind) and _has(kind.value_type, _is_composite):
        return ": it misreads run ends of anything but plain values"
    inner = [kind.field(i).type for i in range(kind.num_fields)]
    if types.is_run_end_encoded(kind):
        inner = [kind.value_type]
    return next((why for one in inner if (why := _refused(one, strict))), "")


def _is_encoded(kind: pa.DataType) -> bool:
    return bool(types.is_dictionary(kind) or types.is_run_end_encoded(kind))


def _is_composite(kind: pa.DataType) -> bool:
    return bool(types.is_nested(kind) or _is_encoded(kind))


def _has(kind: pa.DataType, check: Callable[[pa.DataType], Any]) -> bool:
    """Whether a type, or one in it at any depth, is such a one."""
    if isinstance(kind, pa.BaseExtensionType):
        return _has(kind.storage_type, check)
    if types.is_dictionary(kind) and _has(kind.value_type, check):
        return True
    return bool(check(kind)) or any(_has(kind.field(i).type, check) for i in range(kind.num_fields))


_LISTS = (types.is_list, types.is_large_list, types.is_list_view, types.is_large_list_view)
_REFUSED: tuple[tuple[Callable[[pa.DataType], bool], str], ...] = (
    (types.is_float16, " inside another"),
    (types.is_decimal256, " inside another"),
    (lambda kind: types.is_decimal(kind) and not 0 <= kind.scale <= kind.precision, " inside another"),
    (lambda kind: types.is_union(kind) and kind.mode == "dense", ": it knows sparse unions only"),
)
"""Types at any depth, and why DuckDB has none of these."""


def resolve(obj: Object, con: Any = None, *, strict: bool = True) -> Any:
    """See :func:`to_duckdb`."""
    return to_duckdb(obj, con, strict=strict)


def build(value: Any, *, pickle: bool) -> Any:
    """DuckDB's relations are stored as the tables they yield, by what all Arrow producers share."""
    raise NotStorable("no value is of DuckDB's making")


CONNECTOR = Connector(name="duckdb", types=(), build=build, resolve=resolve)
