"""File formats: which file is in which format, and reading files into Arrow tables.

A format is chosen by extension or by name (--format). Reading reports the bytes it has consumed as it
goes, so that a progress bar moves. Schemas of CSV and JSON lines are inferred from the whole file, not
from its first block: a column whose first decimal point comes in row one million is still a column of
floats. Writing is in writers.py. Calls pyarrow only.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from flightstore.cli.output import Advance
from flightstore.errors import FlightStoreError, InvalidArgument

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["EXTENSIONS", "FORMATS", "FileUnreadable", "detect_format", "read_table", "stem"]

EXTENSIONS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv.gz",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".arrows": "arrows",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".npy": "npy",
}
"""Format of each extension we know."""

FORMATS = ("parquet", "csv", "csv.gz", "arrow", "arrows", "jsonl", "npy", "raw")
"""Names of the formats. ``arrow`` is the IPC file format, ``arrows`` the IPC stream format."""

_BLOCK_BYTES = 8 << 20
_LARGEST_BLOCK_BYTES = (1 << 31) - 1


class FileUnreadable(FlightStoreError, ValueError):
    """The file's contents are not what its format says."""


def detect_format(path: str) -> str | None:
    """The format that a file's name tells, or None."""
    name = Path(path).name.lower()
    return next(
        (EXTENSIONS[end] for end in sorted(EXTENSIONS, key=len, reverse=True) if name.endswith(end)), None
    )


def stem(path: str) -> str:
    """A file's name without its extension: the name an object gets when it is given none."""
    name = Path(path).name
    for end in sorted(EXTENSIONS, key=len, reverse=True):
        if name.lower().endswith(end) and len(name) > len(end):
            return name[: -len(end)]
    return Path(name).stem


class CountingFile(io.RawIOBase):
    """A binary file that reports how many bytes were read from it.

    Seeking back does not report bytes twice: only progress beyond the furthest point read counts, which
    is right for readers that go forward and near enough for those that jump (Parquet).
    """

    def __init__(self, file: IO[bytes], advance: Advance) -> None:
        super().__init__()
        self._file = file
        self._advance = advance
        self._reported = 0
        self._read = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._file.seekable()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._advance(len(data))
        return data

    def readall(self) -> bytes:
        return self.read()


def read_table(
    file: IO[bytes], file_format: str, label: str, advance: Advance, nulls: Sequence[str] = ()
) -> pa.Table:
    """Read a whole file as an Arrow table.

    Args:
        file: The open file; it must be seekable.
        file_format: One of FORMATS, except ``raw`` and ``npy``.
        label: The file's name, for messages.
        advance: Called with the number of bytes consumed since the last call.
        nulls: CSV only: text that stands for a missing value, besides the empty field.

    Raises:
        FileUnreadable: the file is not in that format, is truncated, or contradicts itself.
    """
    import pyarrow as pa

    try:
        if file_format in ("csv", "csv.gz"):
            table = _read_csv(file, advance, packed=file_format == "csv.gz", nulls=nulls)
        else:
            table = _READERS[file_format](file, advance)
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        hint = "name the right format with --format, or store the bytes as they are with --raw"
        raise FileUnreadable(f"{label} cannot be read as {file_format}: {reason}", hint=hint) from error
    return contiguous(table)


def contiguous(table: pa.Table) -> pa.Table:
    """The table with every column in one piece, as far as its type allows.

    pandas knows no chunks: it can use a column of the store without a copy only if it lies in one piece.
    Column by column, so that the pieces of one are given up before the next is copied.
    """
    import pyarrow as pa

    schema, columns = table.schema, table.columns
    if all(column.num_chunks <= 1 for column in columns):
        return table
    del table
    for index, field in enumerate(schema):
        # A table's combine_chunks, not a column's, leaves several chunks where strings exceed 32-bit offsets.
        alone = pa.Table.from_arrays([columns[index]], schema=pa.schema([field]))
        columns[index] = alone.combine_chunks().column(0)
    return pa.Table.from_arrays(columns, schema=schema)


def _read_parquet(file: IO[bytes], advance: Advance) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    reader = pq.ParquetFile(file)
    metadata = reader.metadata
    tables = []
    for group in range(metadata.num_row_groups):
        tables.append(reader.read_row_group(group))
        columns = metadata.row_group(group)
        advance(sum(columns.column(i).total_compressed_size for i in range(columns.num_columns)))
    return pa.concat_tables(tables) if tables else reader.schema_arrow.empty_table()


def _read_ipc(file: IO[bytes], advance: Advance) -> pa.Table:
    """Either IPC format: a file says which it is."""
    import pyarrow as pa

    magic = file.read(6)
    file.seek(0)
    if magic == b"ARROW1":
        reader = pa.ipc.open_file(CountingFile(file, advance))
        batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        return pa.Table.from_batches(batches, reader.schema)
    with pa.ipc.open_stream(CountingFile(file, advance)) as stream:
        return pa.Table.from_batches(list(stream), stream.schema)


def _read_csv(file: IO[bytes], advance: Advance, *, packed: bool, nulls: Sequence[str]) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv

    # Only the empty field is null by itself: Arrow's list (NA, null, ...) would eat Namibia's country code.
    # In quotes, even that is text, so that "" and nothing stay two things.
    convert = csv.ConvertOptions(
        null_values=["", *nulls], strings_can_be_null=True, quoted_strings_can_be_null=False
    )

    def attempt(block_bytes: int) -> pa.Table:
        source: Any = pa.PythonFile(CountingFile(file, advance), mode="r")
        if packed:
            source = pa.CompressedInputStream(source, "gzip")
        return csv.read_csv(source, csv.ReadOptions(block_size=block_bytes), convert_options=convert)

    return _with_larger_blocks(file, attempt)


def _read_jsonl(file: IO[bytes], advance: Advance) -> pa.Table:
    import pyarrow as pa
    from pyarrow import json

    if file.seek(0, os.SEEK_END) == 0:
        return pa.table({})
    file.seek(0)

    def attempt(block_bytes: int) -> pa.Table:
        source = pa.PythonFile(CountingFile(file, advance), mode="r")
        return json.read_json(source, json.ReadOptions(block_size=block_bytes))

    return _with_larger_blocks(file, attempt)


def _with_larger_blocks(file: IO[bytes], attempt: Callable[[int], pa.Table]) -> pa.Table:
    """Parse with blocks that hold the longest line: Arrow cannot parse one that spans three blocks."""
    import pyarrow as pa

    block_bytes = _BLOCK_BYTES
    while True:
        try:
            return attempt(block_bytes)
        except pa.ArrowInvalid as error:
            if "straddling" not in str(error) or block_bytes >= _LARGEST_BLOCK_BYTES:
                raise
        block_bytes = min(block_bytes * 16, _LARGEST_BLOCK_BYTES)
        file.seek(0)


_READERS: dict[str, Callable[[IO[bytes], Advance], Any]] = {
    "parquet": _read_parquet,
    "arrow": _read_ipc,
    "arrows": _read_ipc,
    "jsonl": _read_jsonl,
}


def check_format(name: str | None, label: str) -> str:
    """`name` itself, unless there is none.

    Raises:
        InvalidArgument: the format of `label` is not known.
    """
    if name is None:
        known = ", ".join(sorted(EXTENSIONS))
        raise InvalidArgument(
            f"{label}: the extension tells no format (known: {known})",
            hint="name it with --format, or store the bytes as they are with --raw",
        )
    return name
