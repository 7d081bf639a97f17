"""Stored tables as polars' lazy frames: what a query does not need is not looked at. Calls `resolving`.

polars tells a source which columns a query needs, which rows (an expression) and how many. Columns that are
not needed are never decoded. Rows are filtered slice by slice, so that beside the result only a slice's
conversions (text views, say) are in memory; without a filter everything goes over in one piece, shared with
the store.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from flightstore.connectors.polars.resolving import fit, frame_of, table_of
from flightstore.errors import InvalidArgument
from flightstore.objects.base import Object
from flightstore.objects.extras import require
from flightstore.types import ObjectID

if TYPE_CHECKING:
    from flightstore.abc import AbstractStore

__all__ = ["scan"]

SLICE_ROWS = 1 << 20
"""Rows that are filtered at once, unless polars asks for more."""


def scan(ref: Object | str | ObjectID, *, store: AbstractStore | None = None, strict: bool = True) -> Any:
    """A LazyFrame over a stored table, which shares its memory and stays leased as long as the LazyFrame.

    It is the object of this moment, whatever its name means later; columns and types are those of
    ``to_polars(strict=strict)``. Which columns a query needs, its filter and its limit are applied here, so
    that the rest is never decoded; ``explain()`` shows them at the scan. Pickled, a LazyFrame travels as
    store and id and gets the object again where it is unpickled (polars pickles it by cloudpickle).

    Args:
        ref: An object; or a name or id in `store`.
        store: Where `ref` is looked up; None for the user's default store.
        strict: As ``to_polars``.

    Raises:
        MissingExtra: polars is not installed.
        ObjectNotFound: there is no `ref`.
        NotConvertible: polars cannot hold a column; names it and its type.
        InvalidArgument: `ref` is none.
    """
    polars = require("polars", "scan()")
    from polars.io.plugins import register_io_source

    obj = _object(ref, store)
    source = _Source(obj, strict)
    return register_io_source(
        source,
        schema=source.schema(polars),
        is_pure=True,
        explain_name="FLIGHTSTORE",
        explain_detail=repr(obj),
    )


def _object(ref: Object | str | ObjectID, store: AbstractStore | None) -> Object:
    if isinstance(ref, Object):
        return ref
    if not isinstance(ref, str | ObjectID):
        raise InvalidArgument(f"scan() takes an object, a name or an id, not a {type(ref).__name__}")
    if store is not None:
        return store.get(ref)
    from flightstore import connect

    with connect(create=False) as default:
        return default.get(ref)


class _Source:
    """What polars calls for the rows of a stored table; pickles as the object does."""

    def __init__(self, obj: Object, strict: bool) -> None:
        self._obj = obj
        self._strict = strict

    def schema(self, polars: Any) -> Any:
        """Names and types of all columns.

        Raises:
            NotConvertible: polars cannot hold one.
        """
        table, _ = table_of(self._obj)
        # Where types may be changed, into which ones depends on the values.
        return self._frame(polars, table.slice(0, 0) if self._strict else table).schema

    def __call__(
        self, with_columns: list[str] | None, predicate: Any, n_rows: int | None, batch_size: int | None
    ) -> Iterator[Any]:
        polars = require("polars", "a scan")
        table, _ = table_of(self._obj)
        if with_columns is not None:
            table = self._picked(table, with_columns, predicate)
        if predicate is None:
            frame = self._frame(polars, table if n_rows is None else table.slice(0, n_rows))
            yield frame if with_columns is None else frame.select(with_columns)
            return
        step = max(batch_size or 0, SLICE_ROWS)
        left = table.num_rows if n_rows is None else n_rows
        for start in range(0, max(table.num_rows, 1), step):
            found = self._frame(polars, table.slice(start, step)).filter(predicate).head(left)
            yield found if with_columns is None else found.select(with_columns)
            left -= found.height
            if not left:
                return

    def _picked(self, table: pa.Table, with_columns: list[str], predicate: Any) -> pa.Table:
        """The columns that are asked for, and those that the filter looks at."""
        if not self._strict:
            return table  # names may be other ones there
        needed = {*with_columns, *([] if predicate is None else predicate.meta.root_names())}
        return table.select([i for i, name in enumerate(table.schema.names) if name in needed])

    def _frame(self, polars: Any, table: pa.Table) -> Any:
        _, ours = table_of(self._obj)
        return frame_of(polars, table, fit(polars, table, self._strict, ours))
