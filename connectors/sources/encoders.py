"""Writing Arrow tables to binary files, in each format.

Columns are brought to types that the format has first (conversion.py). Calls pyarrow and msgspec only.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import IO, TYPE_CHECKING, Any

import msgspec

from flightstore.connectors.sources import frames
from flightstore.connectors.sources.conversion import HINT, converted
from flightstore.connectors.sources.formats import format_of, packing_of
from flightstore.connectors.sources.packing import packed_sink
from flightstore.connectors.sources.units import Advance
from flightstore.errors import InvalidArgument

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["write_table"]

_BATCH_ROWS = 65_536


def write_table(
    table: pa.Table,
    file: IO[bytes],
    file_format: str,
    advance: Advance,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Write a table to a binary file.

    Args:
        table: The table.
        file: Where to; it need not be seekable for the formats that stream.
        file_format: The name of a format that holds tables and is written, as formats.py writes it.
        advance: Called with the number of the table's bytes written since the last call.
        options: For Arrow's writer of the format.

    Raises:
        InvalidArgument: the format cannot hold a column of the table; names the column. There is no such
            option.
        MissingExtra: the format needs a library that is not installed.
    """
    import pyarrow as pa

    name = format_of(file_format).name
    write = _WRITERS[name]
    if options:
        if name not in _WITH_OPTIONS:
            raise InvalidArgument(f"writing {name} takes no options, got {', '.join(options)}")
        write = partial(write, **options)
    table = converted(table, name)
    try:
        with packed_sink(file, packing_of(file_format)) as sink:
            write(table, sink, advance)
    except InvalidArgument:
        raise
    except TypeError as error:
        if not options:
            raise
        raise InvalidArgument(f"{name} cannot be written with {dict(options)}: {error}") from error
    except (pa.ArrowException, ValueError, OSError) as error:
        what = _culprit(table, write)
        if isinstance(error, OSError) and (error.errno is not None or not what):
            raise
        what = what or "this table"
        raise InvalidArgument(f"{name} cannot hold {what}: {error}", hint=HINT) from error


def _culprit(table: pa.Table, write: Callable[[Any, IO[bytes], Advance], None]) -> str:
    """The first column that cannot be written, as errors name it; empty if each can by itself."""
    import pyarrow as pa

    for index, field in enumerate(table.schema):
        try:
            write(table.select([index]), io.BytesIO(), lambda _count: None)
        except (pa.ArrowException, ValueError, OSError):
            return f"column {field.name!r} ({field.type})"
    return ""


def _check_names(table: pa.Table) -> None:
    names = table.column_names
    if len(set(names)) < len(names):
        raise InvalidArgument("JSON cannot hold two columns of one name", hint=HINT)


def _batches(table: pa.Table, advance: Advance) -> Iterator[pa.RecordBatch]:
    """The table in batches of a size at which a bar moves smoothly."""
    for batch in table.to_batches(max_chunksize=_BATCH_ROWS):
        yield batch
        advance(batch.nbytes)


def _write_parquet(
    table: pa.Table, file: IO[bytes], advance: Advance, row_group_size: int = 1 << 20, **options: Any
) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(file, table.schema, **options) as writer:
        # Row groups of a million rows, as pyarrow's own default has it.
        for at in range(0, table.num_rows, row_group_size):
            group = table.slice(at, row_group_size)
            writer.write_table(group, row_group_size)
            advance(group.nbytes)


def _write_arrow(table: pa.Table, file: IO[bytes], advance: Advance, **options: Any) -> None:
    import pyarrow as pa

    # The file format has one dictionary per column; chunks may bring several.
    table = table.unify_dictionaries()
    with pa.ipc.new_file(file, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for batch in _batches(table, advance):
            writer.write_batch(batch)


def _write_arrows(table: pa.Table, file: IO[bytes], advance: Advance, **options: Any) -> None:
    import pyarrow as pa

    with pa.ipc.new_stream(file, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for batch in _batches(table, advance):
            writer.write_batch(batch)


def _write_orc(table: pa.Table, file: IO[bytes], advance: Advance, **options: Any) -> None:
    import pyarrow as pa
    from pyarrow import orc

    with orc.ORCWriter(file, **{"compression": "zstd", **options}) as writer:
        writer.write(table.slice(0, 0))
        for batch in _batches(table, advance):
            writer.write(pa.Table.from_batches([batch]))


def _write_csv(table: pa.Table, file: IO[bytes], advance: Advance, **options: Any) -> None:
    _write_delimited(table, file, advance, **{"delimiter": ",", **options})


def _write_tsv(table: pa.Table, file: IO[bytes], advance: Advance, **options: Any) -> None:
    _write_delimited(table, file, advance, **{"delimiter": "\t", **options})


def _write_delimited(table: pa.Table, file: IO[bytes], advance: Advance, **options: Any) -> None:
    from pyarrow import csv

    with csv.CSVWriter(file, table.schema, write_options=csv.WriteOptions(**options)) as writer:
        for batch in _batches(table, advance):
            writer.write_batch(batch)


def _write_jsonl(table: pa.Table, file: IO[bytes], advance: Advance) -> None:
    for lines in _json_lines(table, advance):
        file.write(lines)


def _write_json(table: pa.Table, file: IO[bytes], advance: Advance) -> None:
    """An array of records, one a line."""
    before = b"[\n"
    for lines in _json_lines(table, advance):
        # No record has a line end in it: JSON writes those in texts as escapes.
        file.write(before + lines[:-1].replace(b"\n", b",\n"))
        before = b",\n"
    file.write(b"[]\n" if before == b"[\n" else b"\n]\n")


def _json_lines(table: pa.Table, advance: Advance) -> Iterator[bytes]:
    _check_names(table)
    encode_lines = msgspec.json.Encoder(enc_hook=str).encode_lines
    for batch in _batches(table, advance):
        if batch.num_rows:
            yield encode_lines(batch.to_pylist())


_WITH_OPTIONS = frozenset({"parquet", "arrow", "arrows", "orc", "csv", "tsv"})
_WRITERS: Mapping[str, Callable[..., None]] = {
    "parquet": _write_parquet,
    "csv": _write_csv,
    "tsv": _write_tsv,
    "json": _write_json,
    "jsonl": _write_jsonl,
    "arrow": _write_arrow,
    "arrows": _write_arrows,
    "orc": _write_orc,
    "avro": frames.write_avro,
    "xlsx": frames.write_workbook,
}
