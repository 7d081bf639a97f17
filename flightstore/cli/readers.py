"""Reading files into Arrow tables.

Reading reports the bytes it has consumed as it goes, so that a progress bar moves. Schemas of CSV and JSON
are inferred from the whole file, not from its first block: a column whose first decimal point comes in row
one million is still a column of floats. Which file is in which format is formats.py's; frames.py reads what
needs polars. Calls pyarrow and msgspec only.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

import msgspec

from flightstore.cli import frames
from flightstore.cli.formats import format_of, packing_of
from flightstore.cli.output import Advance
from flightstore.cli.packing import unpacked_source
from flightstore.errors import FlightStoreError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["FileUnreadable", "read_arrays", "read_table"]

_BLOCK_BYTES = 8 << 20
_LARGEST_BLOCK_BYTES = (1 << 31) - 1
_BEGINNING_BYTES = 4096
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_MAGIC = {
    "gz": b"\x1f\x8b",
    "bz2": b"BZh",
    "zst": b"\x28\xb5\x2f\xfd",
    "lz4": b"\x04\x22\x4d\x18",
    "xz": b"\xfd7zXZ\0",
}
"""How packed files begin (Brotli's have no sign)."""
_MAGIC_BYTES = max(map(len, _MAGIC.values()))


class FileUnreadable(FlightStoreError, ValueError):
    """The file's contents are not what its format says."""


class CountingFile(io.RawIOBase):
    """A binary file that reports how many bytes were read from it."""

    def __init__(self, file: IO[bytes], advance: Advance) -> None:
        super().__init__()
        self._file = file
        self._advance = advance

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
        file_format: The name of a format that holds tables, as formats.py writes it (``csv.gz``).
        label: The file's name, for messages.
        advance: Called with the number of bytes consumed since the last call.
        nulls: CSV and TSV only: text that stands for a missing value, besides the empty field.

    Raises:
        FileUnreadable: the file is not in that format, is truncated, or contradicts itself.
        MissingExtra: the format needs a library that is not installed.
    """
    import pyarrow as pa

    name, packing = format_of(file_format).name, packing_of(file_format)
    try:
        if name in _TEXTS:
            _refuse_packed(file, name, packing)
            return _TEXTS[name](file, advance, packing, nulls)
        return _READERS[name](file, advance)
    except pa.ArrowMemoryError:
        raise
    except (pa.ArrowException, OSError, ValueError, EOFError, *_packing_errors(packing)) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise _unreadable(label, file_format, error) from error


def read_arrays(file: IO[bytes], file_format: str, label: str) -> Any:
    """A NumPy array (npy), or a mapping of several (npz).

    Files that hold pickled objects are refused, for unpickling runs code.

    Raises:
        FileUnreadable: the file is not in that format, or holds pickles.
    """
    import zipfile

    import numpy as np

    try:
        loaded = np.load(file, allow_pickle=False)
        several = isinstance(loaded, np.lib.npyio.NpzFile)
        if several != (file_format == "npz"):
            raise ValueError(f"it is an {'npz' if several else 'npy'} file")
        return {name: loaded[name] for name in loaded.files} if several else loaded
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise _unreadable(label, file_format, error) from error


def _refuse_packed(file: IO[bytes], name: str, packing: str) -> None:
    """Refuse a packed file that is taken for plain text: as CSV, any bytes can be read somehow."""
    magic = file.read(_MAGIC_BYTES)
    file.seek(0)
    found = next((kind for kind, begins in _MAGIC.items() if magic.startswith(begins)), "")
    if found and not packing:
        raise ValueError(f"it is packed; its format is {name}.{found}")


def _unreadable(label: str, file_format: str, error: Exception) -> FileUnreadable:
    text = str(error).strip()
    reason = text.splitlines()[0] if text else type(error).__name__
    hint = "name the right format with --format, or store the bytes as they are with --raw"
    return FileUnreadable(f"{label} cannot be read as {file_format}: {reason}", hint=hint)


def _packing_errors(packing: str) -> tuple[type[Exception], ...]:
    """Errors that a packing raises beside those that all do."""
    if packing != "xz":
        return ()
    import lzma

    return (lzma.LZMAError,)


# --- formats with a schema of their own ---


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
    """Either IPC format, or the first version of Feather: a file says which it is."""
    import pyarrow as pa

    magic = file.read(6)
    file.seek(0)
    if magic == b"ARROW1":
        reader = pa.ipc.open_file(CountingFile(file, advance))
        batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        return pa.Table.from_batches(batches, reader.schema)
    if magic[:4] == b"FEA1":
        return _read_first_feather(file, advance)
    with pa.ipc.open_stream(CountingFile(file, advance)) as stream:
        return pa.Table.from_batches(list(stream), stream.schema)


def _read_first_feather(file: IO[bytes], advance: Advance) -> pa.Table:
    from pyarrow import feather

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the format is old is no news to who has such a file
        return feather.read_table(CountingFile(file, advance))


def _read_orc(file: IO[bytes], advance: Advance) -> pa.Table:
    import pyarrow as pa
    from pyarrow import orc

    reader = orc.ORCFile(pa.PythonFile(CountingFile(file, advance), mode="r"))
    stripes = [reader.read_stripe(i) for i in range(reader.nstripes)]
    return pa.Table.from_batches(stripes, reader.schema)


# --- text: types are inferred ---


def _read_delimited(
    file: IO[bytes], advance: Advance, packing: str, nulls: Sequence[str], delimiter: str
) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv

    # Only the empty field is null by itself: Arrow's list (NA, null, ...) would eat Namibia's country code.
    # In quotes, even that is text, so that "" and nothing stay two things.
    convert = csv.ConvertOptions(
        null_values=["", *nulls], strings_can_be_null=True, quoted_strings_can_be_null=False
    )

    beginning = _beginning(file, packing)
    blank_is_null = _has_one_column(beginning, delimiter)
    encoding = "utf-16" if beginning.startswith(_UTF16) else "utf-8"

    def attempt(block_bytes: int, many_lines: bool, advance: Advance) -> pa.Table:
        source = unpacked_source(CountingFile(file, advance), packing)
        parse = csv.ParseOptions(
            delimiter=delimiter, newlines_in_values=many_lines, ignore_empty_lines=not blank_is_null
        )
        read = csv.ReadOptions(block_size=block_bytes, encoding=encoding)
        return csv.read_csv(source, read, parse, convert)

    try:
        return _with_larger_blocks(file, advance, lambda size, tell: attempt(size, False, tell))
    except pa.ArrowInvalid as error:
        # A quoted value with line ends in it may span blocks. Arrow notices, and can look out for such
        # values, which costs a quarter of its speed: hence only now.
        first = error
    file.seek(0)
    try:
        return _with_larger_blocks(file, _ignore, lambda size, tell: attempt(size, True, tell))
    except pa.ArrowInvalid:
        raise first from None


def _beginning(file: IO[bytes], packing: str) -> bytes:
    """The first bytes of the text, for a look; the file is wound back."""
    text: bytes = unpacked_source(CountingFile(file, _ignore), packing).read(_BEGINNING_BYTES)
    file.seek(0)
    return text


def _has_one_column(beginning: bytes, delimiter: str) -> bool:
    """Whether a file has one column only: there, a blank line is a row, whose field is missing."""
    lines = beginning.splitlines()
    return len(lines) > 1 and bool(lines[0]) and delimiter.encode() not in lines[0]


def _read_csv(file: IO[bytes], advance: Advance, packing: str, nulls: Sequence[str]) -> pa.Table:
    return _read_delimited(file, advance, packing, nulls, ",")


def _read_tsv(file: IO[bytes], advance: Advance, packing: str, nulls: Sequence[str]) -> pa.Table:
    return _read_delimited(file, advance, packing, nulls, "\t")


def _read_jsonl(file: IO[bytes], advance: Advance, packing: str, _nulls: Sequence[str]) -> pa.Table:
    import pyarrow as pa
    from pyarrow import json

    if not _beginning(file, packing):
        return pa.table({})

    def attempt(block_bytes: int, advance: Advance) -> pa.Table:
        source = unpacked_source(CountingFile(file, advance), packing)
        return json.read_json(source, json.ReadOptions(block_size=block_bytes))

    return _with_larger_blocks(file, advance, attempt)


def _read_json(file: IO[bytes], advance: Advance, packing: str, _nulls: Sequence[str]) -> pa.Table:
    """An array of records; or records one after the other, since such files are called .json, too."""
    import pyarrow as pa
    from pyarrow import json

    text = unpacked_source(CountingFile(file, advance), packing).read().removeprefix(b"\xef\xbb\xbf")
    if text[:_BEGINNING_BYTES].lstrip()[:1] == b"[":
        # Arrow reads lines: the records are put on lines of their own, their numbers and texts unread.
        records = msgspec.json.decode(text, type=list[msgspec.Raw])
        text = b"\n".join([msgspec.json.format(bytes(record), indent=-1) for record in records])
        if not records:
            return pa.table({})
    elif not text.strip():
        raise ValueError("it is empty")

    def attempt(block_bytes: int, _advance: Advance) -> pa.Table:
        options = json.ParseOptions(newlines_in_values=True)
        return json.read_json(io.BytesIO(text), json.ReadOptions(block_size=block_bytes), options)

    return _with_larger_blocks(file, _ignore, attempt)


def _ignore(_count: int) -> None:
    """An Advance for a second look at bytes that were reported."""


def _with_larger_blocks(
    file: IO[bytes], advance: Advance, attempt: Callable[[int, Advance], pa.Table]
) -> pa.Table:
    """Parse with blocks that hold the longest line: Arrow cannot parse one that spans three blocks."""
    import pyarrow as pa

    block_bytes = _BLOCK_BYTES
    while True:
        try:
            return attempt(block_bytes, advance)
        except pa.ArrowInvalid as error:
            if "straddling" not in str(error) or block_bytes >= _LARGEST_BLOCK_BYTES:
                raise
        block_bytes, advance = min(block_bytes * 16, _LARGEST_BLOCK_BYTES), _ignore
        file.seek(0)


_TEXTS: Mapping[str, Callable[[IO[bytes], Advance, str, Sequence[str]], Any]] = {
    "csv": _read_csv,
    "tsv": _read_tsv,
    "json": _read_json,
    "jsonl": _read_jsonl,
}

_READERS: Mapping[str, Callable[[IO[bytes], Advance], Any]] = {
    "parquet": _read_parquet,
    "arrow": _read_ipc,
    "arrows": _read_ipc,
    "orc": _read_orc,
    "avro": frames.read_avro,
    "xlsx": frames.read_workbook,
    "ods": frames.read_workbook,
}
