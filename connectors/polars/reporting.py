"""What a conversion to polars shares: measured on its result, by the addresses of the buffers."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pyarrow import types

from flightstore.connectors.polars.building import parts
from flightstore.connectors.polars.markers import OWN_KEYS, is_text_dictionary
from flightstore.connectors.polars.resolving import (
    CODES,
    EMPTY_ARRAYS,
    OBJECTS,
    Column,
    fit,
    frame_of,
    table_of,
)
from flightstore.connectors.polars.wide import export_wide, has_wide
from flightstore.objects.base import Object
from flightstore.objects.extras import require
from flightstore.types import ColumnConversion, ConversionReport

__all__ = ["report"]


def report(obj: Object, *, strict: bool = True) -> ConversionReport:
    """What ``to_polars(strict=strict)`` shares and what it copies, and why: does it, and looks.

    Raises:
        MissingExtra, NotConvertible: as ``to_polars``.
    """
    polars = require("polars", "the conversion report")
    table, ours = table_of(obj)
    columns = fit(polars, table, strict, ours)
    series = frame_of(polars, table, columns).iter_columns()
    found = zip(table.schema, table.columns, columns, series, strict=True)
    return ConversionReport("polars", tuple(_measured(*one) for one in found))


def _measured(given: pa.Field, data: pa.ChunkedArray, column: Column, series: Any) -> ColumnConversion:
    stored = _Ranges([buffer for chunk in data.chunks for buffer in chunk.buffers() if buffer is not None])
    shared = copied = 0
    if column.how == OBJECTS:
        copied = data.get_total_buffer_size()
    else:
        for address, size in _spans(series):
            if stored.hold(address, size):
                shared += size
            else:
                copied += size
    reason = _reason(given, column, series, copied)
    if column.how == CODES and data.num_chunks:
        copied += data.chunk(0).dictionary.get_total_buffer_size()
    return ColumnConversion(given.name, str(given.type), shared, copied, reason)


class _Ranges:
    """Ranges of memory."""

    def __init__(self, buffers: list[pa.Buffer]) -> None:
        found = sorted((buffer.address, buffer.address + buffer.size) for buffer in buffers)
        self._starts = [start for start, _ in found]
        self._ends = [end for _, end in found]

    def hold(self, address: int, size: int) -> bool:
        """Whether one of them holds a span."""
        at = bisect_right(self._starts, address) - 1
        return at >= 0 and address + size <= self._ends[at]


def _spans(series: Any) -> set[tuple[int, int]]:
    """Address and size of each buffer of a series."""
    series = series.alias("")  # whatever the name has, Arrow's C interface may not take it
    if _has(series.dtype, "Categorical", "Enum"):
        series = series.to_physical()
    wide = _has(series.dtype, "Int128", "UInt128")
    column = export_wide(series)[1] if wide else pa.chunked_array(series)
    found = [buffer for chunk in column.chunks for buffer in chunk.buffers()]
    return {(buffer.address, buffer.size) for buffer in found if buffer is not None and buffer.size}


def _has(dtype: Any, *kinds: str) -> bool:
    return any(type(part).__name__ in kinds for _, part in parts(dtype))


# --- in words ---


def _reason(given: pa.Field, column: Column, series: Any, copied: int) -> str:
    """Why something is copied, and what changes or is lost; empty if nothing."""
    if column.how == OBJECTS:
        return "Python objects are unpickled"
    said = [note.removeprefix(f"{given.name}: ") for note in column.notes]
    if column.how == CODES:
        said.append("polars keeps the categories itself" + (" and numbers them anew" if copied else ""))
    elif column.how == EMPTY_ARRAYS:
        said.append("polars reads no arrays of width 0: they are made anew")
    else:
        said += dict.fromkeys(words for kind in _kinds(column.field) if (words := _words(kind)))
    if copied and not said:
        said.append("null masks of fields are made anew" if _has_struct(column.field) else "polars copies it")
    if isinstance(given.type, pa.BaseExtensionType) and not hasattr(series.dtype, "ext_name"):
        said.append(f"the extension type {given.type.extension_name} is lost")
    if not given.nullable:
        said.append("that it holds no nulls is lost")
    if lost := sorted(_metadata_keys(given) - OWN_KEYS):
        said.append("its metadata is lost: " + ", ".join([key.decode(errors="replace") for key in lost]))
    return "; ".join(said)


def _kinds(field: pa.Field) -> Iterator[pa.DataType]:
    """The types of a field at any depth; not those of 128-bit integers."""
    kind = field.type
    if has_wide(field) and types.is_fixed_size_binary(kind):
        return
    yield kind
    if isinstance(kind, pa.BaseExtensionType):
        yield from _kinds(pa.field("", kind.storage_type))
    for i in range(kind.num_fields):
        yield from _kinds(kind.field(i))


def _metadata_keys(field: pa.Field) -> set[bytes]:
    """Keys of the metadata of a field and of those in it."""
    kind = field.type
    found = set(field.metadata or {})
    return found.union(*[_metadata_keys(kind.field(i)) for i in range(kind.num_fields)])


def _words(kind: pa.DataType) -> str:
    """What polars itself does about a type that it takes."""
    if types.is_string(kind) or types.is_large_string(kind):
        return "polars holds strings as views: they are made, the text is shared"
    if types.is_binary(kind) or types.is_large_binary(kind):
        return "polars holds binaries as views: they are made, the bytes are shared"
    if types.is_fixed_size_binary(kind):
        return "binaries of fixed size become Binary"
    if types.is_list(kind) or types.is_map(kind):
        return "offsets become 64 bits wide"
    if types.is_date64(kind):
        return "date64 becomes Datetime of milliseconds"
    if is_text_dictionary(kind):
        return "polars keeps the categories itself and numbers them anew"
    return "the dictionary is decoded" if types.is_dictionary(kind) else ""


def _has_struct(field: pa.Field) -> bool:
    return any(types.is_struct(kind) for kind in _kinds(field))
