"""From a stored object to pandas: which way it goes, and what is refused before anything is converted.

May call frames, defaults, sharing and layout.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import pyarrow as pa

from flightstore.connectors._pandas.decode import is_exact_only
from flightstore.connectors._pandas.defaults import BACKENDS, Conversion, nullable_dtype, refusal
from flightstore.connectors._pandas.frames import decode_table
from flightstore.connectors._pandas.layout import KEY, Layout, known_layout
from flightstore.connectors._pandas.sharing import protect
from flightstore.connectors._pandas.standard import STANDARD_KEY
from flightstore.errors import InvalidArgument, NotConvertible
from flightstore.objects.base import Object

__all__ = [
    "convert",
    "convert_table",
    "is_for_arrow",
    "refuse",
    "table_of",
    "wanted_of",
    "why_refused",
]


def convert(obj: Object, dtype_backend: str | None, strict: bool, options: dict[str, Any]) -> Any:
    """The object as pandas has it; see ``flightstore.connectors.pandas.resolve``."""
    wanted = wanted_of(dtype_backend, strict)
    table = table_of(obj)
    if table is None:
        return _own_value(obj)
    return convert_table(table, wanted, options)


def wanted_of(dtype_backend: str | None, strict: bool) -> Conversion:
    """What the caller asks for.

    Raises:
        InvalidArgument: no such backend.
    """
    if dtype_backend not in BACKENDS:
        raise InvalidArgument(
            f"dtype_backend must be one of {', '.join(map(repr, BACKENDS))}, not {dtype_backend!r}"
        )
    return Conversion(dtype_backend, strict)


def table_of(obj: Any) -> pa.Table | None:
    """The object's table; None if it is none."""
    if not hasattr(obj, "__arrow_c_stream__"):
        return None
    table: pa.Table = obj.to_arrow() if hasattr(obj, "to_arrow") else pa.table(obj)
    return table


def _own_value(obj: Object) -> Any:
    """The value of an object that is no table, where pandas made it."""
    value = obj.value() if obj.kind == "object" else None
    if isinstance(value, pd.DataFrame | pd.Series | pd.Index):
        return value
    raise NotConvertible(
        f"{obj!r} holds no table: pandas cannot take it as it is",
        hint="take obj.value(), and make a frame of that",
    )


def convert_table(table: pa.Table, wanted: Conversion, options: dict[str, Any]) -> Any:
    """A table as pandas has it.

    Raises:
        NotConvertible: pandas cannot hold a column.
    """
    layout = known_layout(table.schema)
    if wanted.strict:
        refuse(table, layout, wanted)
    if options or is_for_arrow(table):
        return _by_arrow(table, wanted, options)
    return decode_table(table, layout, wanted)


def is_for_arrow(table: pa.Table) -> bool:
    """Whether it is the table of a frame that pyarrow converted: then pyarrow knows best how to go back."""
    metadata = table.schema.metadata or {}
    return STANDARD_KEY in metadata and KEY not in metadata


def why_refused(column: pa.ChunkedArray, position: int, layout: Layout, wanted: Conversion) -> str:
    """Why pandas cannot hold a column, empty if it can."""
    facts, dtype = layout.fields[position], layout.dtypes[position]
    if dtype is not None and (dtype.kind in "fmM" or not column.null_count):
        return ""
    if facts and "dtype" in facts and (wanted.backend is None or is_exact_only(facts)):
        return ""
    return refusal(column, wanted)


def refuse(table: pa.Table, layout: Layout, wanted: Conversion) -> None:
    """Raise NotConvertible for the first column that pandas cannot hold as it is."""
    for position in layout.doubtful:
        column = table.column(position)
        reason = why_refused(column, position, layout, wanted)
        if reason:
            raise NotConvertible(
                f"column {table.schema.field(position).name!r} of type {column.type}: {reason}",
                hint=_remedy(reason),
            )


def _remedy(reason: str) -> str:
    nullable = "dtype_backend='numpy_nullable' or 'pyarrow' holds them, " if "2**53" in reason else ""
    return f"{nullable}strict=False converts the column as nearly as can be, obj.to_arrow() is exact"


def _by_arrow(table: pa.Table, wanted: Conversion, options: dict[str, Any]) -> Any:
    mapper = {None: None, "numpy_nullable": nullable_dtype, "pyarrow": pd.ArrowDtype}[wanted.backend]
    options = {"split_blocks": True, "types_mapper": mapper, **options}
    try:
        return protect(table.to_pandas(**options))
    except (pa.ArrowException, ValueError, NotImplementedError) as error:
        if isinstance(error, MemoryError):
            raise
        raise NotConvertible(
            f"Arrow cannot make a pandas frame of a table of schema {str(table.schema)[:500]}: {error}",
            hint="take obj.to_arrow(), and convert its columns",
        ) from error
