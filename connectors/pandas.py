"""pandas: data frames, series and indexes, exactly as they were put, sharing the store's memory.

The work is done in ``flightstore.connectors._pandas``, which needs pandas; what is here is loaded without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from flightstore.connectors import Connector
from flightstore.connectors._pandas.facts import adapt
from flightstore.connectors._pandas.layout import value_columns
from flightstore.objects.extras import require

if TYPE_CHECKING:
    from flightstore.objects.base import Object
    from flightstore.types import ConversionReport

__all__ = ["CONNECTOR", "adapt", "build", "report", "resolve", "value_columns"]


def build(value: Any, *, pickle: bool) -> pa.Table:
    """The Arrow table of a data frame, a series or an index; it shares the value's memory.

    Nothing about the value is lost: indexes with their frequencies and unused levels, labels of any type,
    dtypes, NaN as opposed to null, attrs, flags. Index levels are columns after the values.

    Args:
        value: What is to be stored.
        pickle: Whether labels, attrs and objects that Arrow cannot hold may be pickled, one by one.

    Raises:
        NotStorable: a column, a label or attrs cannot be stored; names it, and the row.
    """
    from flightstore.connectors._pandas import frames

    kind = type(value).__name__
    encode = {"DataFrame": frames.encode_frame, "Series": frames.encode_series}.get(
        kind, frames.encode_lone_index
    )
    table: pa.Table = encode(value, may_pickle=pickle)
    return table


def resolve(obj: Object, *, dtype_backend: str | None = None, strict: bool = True, **options: Any) -> Any:
    """A stored object as pandas has it; what shares the store's memory can be modified all the same.

    An object that was put as a frame, series or index comes back as exactly that. Any other table becomes a
    data frame as pandas reads Arrow's types.

    Args:
        obj: A table; or an object whose value is a frame, series or index already.
        dtype_backend: None for NumPy's dtypes; "numpy_nullable" or "pyarrow" for pandas' nullable ones or
            Arrow's, as in ``pandas.read_parquet``. "pyarrow" shares every column.
        strict: False converts what pandas cannot hold, as nearly as can be, where it would else be an error.
        options: Handed to ``pyarrow.Table.to_pandas``, which then does the conversion.

    Raises:
        MissingExtra: pandas is not installed.
        NotConvertible: pandas cannot hold a column, or the object is no table; names the column and its type.
        InvalidArgument: no such `dtype_backend`.
    """
    require("pandas", "to_pandas()")
    from flightstore.connectors._pandas.conversion import convert

    return convert(obj, dtype_backend, strict, options)


def report(
    obj: Object, *, dtype_backend: str | None = None, strict: bool = True, **options: Any
) -> ConversionReport:
    """What `resolve` shares with the store and what it copies, found by doing it and looking at the
    addresses.

    Bytes of Python objects are counted by their references.

    Raises:
        As `resolve`.
    """
    require("pandas", "conversion_report()")
    from flightstore.connectors._pandas.report import measure

    return measure(obj, dtype_backend, strict, options)


CONNECTOR = Connector(
    name="pandas",
    types=(
        "pandas.DataFrame",
        "pandas.Series",
        "pandas.Index",
        "pandas.RangeIndex",
        "pandas.MultiIndex",
        "pandas.CategoricalIndex",
        "pandas.DatetimeIndex",
        "pandas.TimedeltaIndex",
        "pandas.PeriodIndex",
        "pandas.IntervalIndex",
    ),
    build=build,
    resolve=resolve,
    report=report,
    values=value_columns,
    adapt=adapt,
)
