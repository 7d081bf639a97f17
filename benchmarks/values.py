"""The values that are stored, made anew in each process that needs them, and proof that one came back whole.

pandas and polars are imported where a value needs them. Every column has memory of its own, as columns that
were computed or read have; only a pandas block is one piece.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

COLUMNS = 8
CHUNKS = 16
WIDE_COLUMNS, WIDE_CHUNKS, WIDE_ROWS = 1_000, 10, 100
TEXT = "order 4711"
MIXED_ROW_BYTES = 3 * 8 + 2 * 8 + 8 + 1 + len(TEXT) + 8
POLARS_ROW_BYTES = 7 * 8 + len(TEXT) + 16


def small_bytes(size_bytes: int) -> bytes:
    """Bytes of every value in turn."""
    return bytes(i % 256 for i in range(size_bytes))


def array(size_bytes: int) -> Any:
    """A vector of float64."""
    return np.arange(size_bytes // 8, dtype=np.float64)


def one_row(columns: int) -> Any:
    """One row of orders: numbers and short texts in turn."""
    kinds: list[Callable[[int], Any]] = [
        lambda i: pa.array([i * 1001], pa.int64()),
        lambda i: pa.array([i + 0.25], pa.float64()),
        lambda i: pa.array([f"customer {i:04}"], pa.string()),
        lambda i: pa.array([i], pa.int32()),
    ]
    return pa.table({f"column_{i}": kinds[i % len(kinds)](i) for i in range(columns)})


def table(size_bytes: int, chunks: int = 1) -> Any:
    """An Arrow table of eight float64 columns."""
    rows = max(size_bytes // COLUMNS // 8 // chunks, 1)

    def column(number: int) -> Any:
        return pa.chunked_array(
            [np.arange(rows, dtype=np.float64) + number * chunk for chunk in range(chunks)]
        )

    return pa.table({f"column_{i}": column(i) for i in range(COLUMNS)})


def wide(size_bytes: int) -> Any:
    """A table of many columns in ten chunks."""
    columns = wide_columns(size_bytes)
    chunks = [np.arange(WIDE_ROWS, dtype=np.float64) + chunk for chunk in range(WIDE_CHUNKS)]
    return pa.table({f"column_{i}": pa.chunked_array(chunks) for i in range(columns)})


def wide_columns(size_bytes: int) -> int:
    """Columns of the wide table: 1,000, or fewer where `size_bytes` does not take so many."""
    return min(WIDE_COLUMNS, max(size_bytes // (WIDE_ROWS * WIDE_CHUNKS * 8), 10))


def pandas_block(size_bytes: int) -> Any:
    """A pandas frame whose eight float columns are one consolidated block."""
    import pandas as pd

    rows = max(size_bytes // COLUMNS // 8, 1)
    return pd.DataFrame({f"column_{i}": np.arange(rows, dtype=np.float64) + i for i in range(COLUMNS)}).copy()


def pandas_mixed(size_bytes: int) -> Any:
    """A pandas frame of numbers, times, truth values and text."""
    import pandas as pd

    rows = max(size_bytes // MIXED_ROW_BYTES, 1)
    numbers = np.arange(rows)
    frame: dict[str, Any] = {f"float_{i}": numbers + 0.5 * i for i in range(3)}
    frame |= {f"integer_{i}": numbers * (i + 1) for i in range(2)}
    frame |= {"time": numbers.view("M8[ns]"), "flag": numbers % 2 == 0}
    frame["text"] = _text(rows)
    return pd.DataFrame(frame)


def _text(rows: int) -> Any:
    """A column of text as pandas keeps it, in Arrow's memory; older versions need to be told."""
    import pandas as pd

    text = pa.array([TEXT], pa.large_string()).take(pa.array(np.zeros(rows, np.int64)))
    old = int(pd.__version__.partition(".")[0]) < 3
    mapper = {pa.large_string(): pd.ArrowDtype(pa.large_string())}.get if old else None
    return pa.table({"text": text}).to_pandas(types_mapper=mapper)["text"]


def polars_frame(size_bytes: int) -> Any:
    """A polars frame of seven columns of numbers and one of text."""
    import polars as pl

    rows = max(size_bytes // POLARS_ROW_BYTES, 1)
    numbers = np.arange(rows)
    columns = {f"column_{i}": numbers + 0.5 * i for i in range(COLUMNS - 1)}
    return pl.DataFrame(columns).with_columns(pl.Series("text", [TEXT]).new_from_index(0, rows))


MAKERS: dict[str, Callable[[int], Any]] = {
    "bytes": small_bytes,
    "array": array,
    "row16": lambda size_bytes: one_row(16),
    "row1": lambda size_bytes: one_row(1),
    "table": table,
    "table16": lambda size_bytes: table(size_bytes, CHUNKS),
    "wide": wide,
    "pandas block": pandas_block,
    "pandas mixed": pandas_mixed,
    "polars": polars_frame,
}


@lru_cache(maxsize=1)
def make(name: str, size_bytes: int) -> Any:
    """The value of that name; the last one is remembered, so that the stores of one process share it."""
    return MAKERS[name](size_bytes)


def kind_of(value: Any) -> str:
    """``bytes``, ``array``, ``table``, ``pandas`` or ``polars``."""
    module = type(value).__module__.partition(".")[0]
    if module in ("pandas", "polars"):
        return module
    if isinstance(value, (pa.Table, pa.RecordBatch)):
        return "table"
    return "array" if isinstance(value, np.ndarray) else "bytes"


def size_of(value: Any) -> int:
    """Bytes of data."""
    kind = kind_of(value)
    if kind == "pandas":
        return int(value.memory_usage(index=False).sum())
    if kind == "polars":
        return int(value.estimated_size())
    return len(value) if kind == "bytes" else int(value.nbytes)


def digest(value: Any) -> Any:
    """What two equal values have in common: shape, names, first and last of each column."""
    kind = kind_of(value)
    if kind in ("bytes", "array"):
        view = memoryview(value).cast("B")
        return len(view), bytes(view[:64]), bytes(view[-64:])
    if kind == "pandas":
        return value.shape, list(value.columns), [str(cell) for row in (0, -1) for cell in value.iloc[row]]
    if kind == "polars":
        return value.shape, value.columns, [str(cell) for row in (0, -1) for cell in value.row(row)]
    names = value.schema.names
    last = value.num_rows - 1
    return (
        value.num_rows,
        names,
        [value.column(i)[row].as_py() for row in (0, last) for i in range(len(names))],
    )


def read_all(value: Any) -> float:
    """Read every number of a table or frame once; the largest."""
    if kind_of(value) == "table":
        return max(float(chunk.to_numpy().max()) for column in value.columns for chunk in column.chunks)
    return float(value.to_numpy().max())


def with_column(value: Any, name: str, column: Any) -> Any:
    """The Arrow table with one more column; nothing is copied."""
    return value.append_column(name, pa.array(column))


def column_bytes(size_bytes: int) -> int:
    """Bytes of the column that is added to a table of `size_bytes`."""
    return max(size_bytes // COLUMNS // 8, 1) * 8
