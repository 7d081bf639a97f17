"""What reading is made of: a *plan* says what a table's columns are and in which *units* its rows can be
read.

A unit (a row group, a stripe, a file) is read by one thread, batch by batch; several are read at the same
time. Units are opened when their turn comes. A reader that learns in the middle that it took the file for
something else raises `Again`: what was written is given up, and the plan is made anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from flightstore.errors import FlightStoreError

__all__ = ["Advance", "Again", "FileUnreadable", "Plan", "Unit", "conformed", "explained", "unreadable"]

Advance = Callable[[int], None]
"""Called with the number of bytes consumed since the last call."""


class FileUnreadable(FlightStoreError, ValueError):
    """The file's contents are not what its format says."""


class Again(Exception):
    """What is known about a file by now makes another plan of it."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Rows that one thread reads."""

    label: str
    """What it is, for messages: the file, and where in it."""
    file_format: str
    """The format's name, as formats.py writes it."""
    nbytes: int
    """Bytes of the file that it takes, for the progress."""
    batches: Callable[[Advance], Iterator[pa.RecordBatch]]
    """Reads it; reports the bytes it has consumed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A table that can be read."""

    schema: pa.Schema
    units: Sequence[Unit]


def unreadable(label: str, file_format: str, error: Exception | str) -> FileUnreadable:
    """The error for a file that is not what it should be."""
    text = str(error).strip()
    reason = text.splitlines()[0] if text else type(error).__name__
    hint = "name the right format (format=, or --format), or put the bytes as they are (--raw)"
    return FileUnreadable(f"{label} cannot be read as {file_format}: {reason}", hint=hint)


@contextmanager
def explained(label: str, file_format: str) -> Iterator[None]:
    """Turn what Arrow and others say about a file's contents into FileUnreadable, which names the place."""
    import lzma

    try:
        yield
    except (FlightStoreError, pa.ArrowMemoryError):
        raise
    except (pa.ArrowException, OSError, ValueError, EOFError, lzma.LZMAError) as error:
        if isinstance(error, FileNotFoundError | PermissionError | InterruptedError) or (
            isinstance(error, OSError) and error.errno is not None
        ):
            raise
        raise unreadable(label, file_format, error) from error


def conformed(
    batches: Iterator[pa.RecordBatch], schema: pa.Schema, keys: dict[str, Any]
) -> Iterator[pa.RecordBatch]:
    """Batches of one file as batches of the whole table: its columns, in its types.

    Args:
        batches: As the file has them.
        schema: The table's.
        keys: Columns that the file's directory gives, and their value.
    """
    for batch in batches:
        if not keys and batch.schema.equals(schema):
            yield batch
            continue
        columns = []
        for field in schema:
            index = batch.schema.get_field_index(field.name)
            if field.name in keys:
                column = pa.repeat(pa.scalar(keys[field.name], field.type), batch.num_rows)
            elif index < 0:
                column = pa.nulls(batch.num_rows, field.type)
            else:
                column = batch.column(index)
                column = column if column.type == field.type else column.cast(field.type)
            columns.append(column)
        if columns:
            yield pa.RecordBatch.from_arrays(columns, schema=schema)
        else:
            yield batch.select([]).replace_schema_metadata(schema.metadata)
