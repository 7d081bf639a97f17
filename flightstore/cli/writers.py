"""Writing Arrow tables to files and to stdout, and files that appear whole or not at all.

Calls pyarrow and msgspec only.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec

from flightstore.cli.output import Advance
from flightstore.errors import InvalidArgument

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["STREAMABLE", "atomic_file", "write_table"]

STREAMABLE = frozenset({"arrows", "csv", "csv.gz", "jsonl", "raw", "npy"})
"""Formats that can be written to a pipe."""

_BATCH_ROWS = 65_536


@contextmanager
def atomic_file(path: str) -> Iterator[IO[bytes]]:
    """A file that appears under `path` when the block ends well; otherwise nothing is left.

    It is written under a hidden temporary name in the same directory and renamed, so whatever was there
    before stays until the new file is whole. Only a SIGKILL leaves the temporary file (``.NAME.*.part``).
    """
    target = Path(path)
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            yield file
        part.replace(target)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def write_table(table: pa.Table, file: IO[bytes], file_format: str, advance: Advance) -> None:
    """Write a table to a binary file.

    Args:
        table: The table.
        file: Where to; it need not be seekable for the formats in STREAMABLE.
        file_format: One of files.FORMATS, except ``raw`` and ``npy``.
        advance: Called with the number of the table's bytes written since the last call.

    Raises:
        InvalidArgument: the format cannot hold a column of the table; names the column.
    """
    import pyarrow as pa

    try:
        _WRITERS[file_format](table, file, advance)
    except pa.ArrowException as error:
        raise InvalidArgument(f"{file_format} cannot hold this table: {error}", hint=_HINT) from error


def _batches(table: pa.Table, advance: Advance) -> Iterator[pa.RecordBatch]:
    """The table in batches of a size at which a bar moves smoothly."""
    for batch in table.to_batches(max_chunksize=_BATCH_ROWS):
        yield batch
        advance(batch.nbytes)


def _write_parquet(table: pa.Table, file: IO[bytes], advance: Advance) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(file, table.schema) as writer:
        # Each batch becomes a row group: a million rows, as pyarrow's own default has it.
        for batch in table.to_batches(max_chunksize=1 << 20):
            writer.write_batch(batch)
            advance(batch.nbytes)


def _write_arrow(table: pa.Table, file: IO[bytes], advance: Advance) -> None:
    import pyarrow as pa

    # The file format has one dictionary per column; chunks may bring several.
    table = table.unify_dictionaries()
    with pa.ipc.new_file(file, table.schema) as writer:
        for batch in _batches(table, advance):
            writer.write_batch(batch)


def _write_arrows(table: pa.Table, file: IO[bytes], advance: Advance) -> None:
    import pyarrow as pa

    with pa.ipc.new_stream(file, table.schema) as writer:
        for batch in _batches(table, advance):
            writer.write_batch(batch)


def _write_csv(table: pa.Table, file: IO[bytes], advance: Advance) -> None:
    from pyarrow import csv

    table = _decoded(table)
    for field in table.schema:
        if not _fits_csv(field.type):
            message = f"column {field.name!r} ({field.type}) cannot be written as CSV"
            raise InvalidArgument(message, hint=_HINT)
    with csv.CSVWriter(file, table.schema) as writer:
        for batch in _batches(table, advance):
            writer.write_batch(batch)


def _write_csv_gz(table: pa.Table, file: IO[bytes], advance: Advance) -> None:
    import gzip

    with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=6, mtime=0) as packed:
        _write_csv(table, packed, advance)  # type: ignore[arg-type]


def _write_jsonl(table: pa.Table, file: IO[bytes], advance: Advance) -> None:
    names = table.column_names
    if len(set(names)) < len(names):
        raise InvalidArgument("JSON cannot hold two columns of one name", hint=_HINT)
    encode_lines = msgspec.json.Encoder(enc_hook=str).encode_lines
    table = _times_as_text(_decoded(table))
    for batch in _batches(table, advance):
        file.write(encode_lines(batch.to_pylist()))


def _decoded(table: pa.Table) -> pa.Table:
    """The table with dictionary and run-end encoded columns as plain ones."""
    import pyarrow as pa

    for index, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type) or pa.types.is_run_end_encoded(field.type):
            plain = table.column(index).cast(field.type.value_type)
            table = table.set_column(index, field.with_type(plain.type), plain)
    return table


def _times_as_text(table: pa.Table) -> pa.Table:
    """The table with times and decimals as text: Python's datetime would lose nanoseconds."""
    import pyarrow as pa

    for index, field in enumerate(table.schema):
        kind = field.type
        exact = pa.types.is_timestamp(kind) or pa.types.is_time(kind) or pa.types.is_decimal(kind)
        if exact:
            table = table.set_column(index, field.name, table.column(index).cast(pa.string()))
        elif pa.types.is_duration(kind):
            table = table.set_column(index, field.name, table.column(index).cast(pa.int64()))
    return table


def _fits_csv(kind: Any) -> bool:
    import pyarrow as pa

    return not (pa.types.is_nested(kind) or pa.types.is_union(kind))


_HINT = "choose another format with --format (arrow and arrows hold every type)"

_WRITERS: dict[str, Callable[[Any, IO[bytes], Advance], None]] = {
    "parquet": _write_parquet,
    "csv": _write_csv,
    "csv.gz": _write_csv_gz,
    "arrow": _write_arrow,
    "arrows": _write_arrows,
    "jsonl": _write_jsonl,
}
