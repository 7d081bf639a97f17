"""Formats that polars reads and writes: Avro, and workbooks (xlsx, ods). Needs its extras only when called.

polars' own errors become ValueErrors here, so that callers need not know its classes. Types that a format
cannot hold are settled before a table is handed over (conversion.py): polars panics on some.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import IO, TYPE_CHECKING, Any

from flightstore.connectors.sources.units import Advance
from flightstore.errors import InvalidArgument, MissingExtra

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["read_avro", "read_workbook", "write_avro", "write_workbook"]

_ROWS, _COLUMNS, _CHARACTERS = 1_048_575, 16_384, 32_767
"""What a sheet holds below its header, and a cell."""
_EXACT = 1 << 53
"""Whole numbers up to here are exact in a workbook, whose numbers are all floats of 64 bits."""


def read_avro(file: IO[bytes], advance: Advance) -> pa.Table:
    """An Avro file as a table."""
    polars = _require("polars", "polars", "Avro")
    data = file.read()
    advance(len(data))
    with _failures():
        return polars.read_avro(io.BytesIO(data)).to_arrow()


def write_avro(table: pa.Table, file: IO[bytes], advance: Advance) -> None:
    """Write a table of types that Avro has."""
    polars = _require("polars", "polars", "Avro")
    # To memory first: given a file, polars writes behind the back of Python's buffer.
    content = io.BytesIO()
    # polars cannot read the empty packed block that it writes for no rows.
    compression = "deflate" if table.num_rows else "uncompressed"
    with _failures():
        frame = polars.from_arrow(table, rechunk=False)
        frame.write_avro(content, compression=compression, name="row")
    file.write(content.getbuffer())
    advance(table.nbytes)


def read_workbook(file: IO[bytes], advance: Advance) -> pa.Table:
    """The first sheet of a workbook as a table; its first row names the columns."""
    polars = _require("polars", "excel", "workbooks")
    _require("fastexcel", "excel", "reading workbooks")
    data = file.read()
    advance(len(data))
    # It logs that a column is empty, and Python prints what nobody listens to.
    logging.getLogger("fastexcel").addHandler(logging.NullHandler())
    with _failures():
        frame = polars.read_excel(
            io.BytesIO(data),
            engine="calamine",
            infer_schema_length=None,
            drop_empty_rows=False,
            drop_empty_cols=False,
            raise_if_empty=False,
        )
    return frame.to_arrow()


def write_workbook(table: pa.Table, file: IO[bytes], advance: Advance) -> None:
    """Write a table as the only sheet of a workbook.

    Raises:
        InvalidArgument: it does not fit a sheet, or a value a cell; names the column.
    """
    polars = _require("polars", "excel", "workbooks")
    _require("xlsxwriter", "excel", "writing workbooks")
    _check_sheet(table)
    content = io.BytesIO()
    with _failures():
        polars.from_arrow(table, rechunk=False).write_excel(content, autofilter=False)
    file.write(content.getbuffer())
    advance(table.nbytes)


def _check_sheet(table: pa.Table) -> None:
    import pyarrow as pa
    from pyarrow.compute import call_function

    hint = "choose another format with --format, parquet for one"
    if table.num_rows > _ROWS or table.num_columns > _COLUMNS:
        size = f"{table.num_rows:,} rows and {table.num_columns:,} columns"
        raise InvalidArgument(f"a sheet holds {_ROWS:,} rows and {_COLUMNS:,} columns, not {size}", hint=hint)
    names = [name.lower() for name in table.column_names]
    if len(set(names)) < len(names):
        raise InvalidArgument("xlsx cannot hold two columns of one name (in any case of letters)", hint=hint)
    for field, column in zip(table.schema, table.columns, strict=True):
        if pa.types.is_integer(field.type):
            extremes = call_function("min_max", [column]).as_py().values()
            bad = any(value is not None and abs(value) > _EXACT for value in extremes)
            why = "whole numbers beyond 2^53, which a workbook rounds"
        elif pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            longest = call_function("max", [call_function("utf8_length", [column])]).as_py()
            bad = longest is not None and longest > _CHARACTERS
            why = f"a text of {longest:,} characters; a cell holds {_CHARACTERS:,}" if bad else ""
        else:
            continue
        if bad:
            raise InvalidArgument(f"column {field.name!r} has {why}", hint=hint)


def _require(library: str, extra: str, purpose: str) -> Any:
    try:
        return import_module(library)
    except ImportError as error:
        raise MissingExtra(
            f"{purpose} needs {library}, which cannot be imported: {error}",
            hint=f"pip install 'flightstore[{extra}]'",
        ) from error


@contextmanager
def _failures() -> Iterator[None]:
    """Turn errors of polars and its helpers, panics included, into ValueErrors."""
    try:
        yield
    except BaseException as error:
        library = type(error).__module__.partition(".")[0]
        if library not in ("polars", "pyo3_runtime", "fastexcel", "_fastexcel", "xlsxwriter"):
            raise
        raise ValueError(str(error)) from error
