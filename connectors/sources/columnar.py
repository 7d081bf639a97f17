"""Formats that know their columns and their parts: Parquet by row groups, Arrow IPC by record batches, ORC by
stripes. Whatever the size of a part, a thread holds one batch of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flightstore.connectors.sources.places import Place
from flightstore.connectors.sources.text import CountingFile, ignore
from flightstore.connectors.sources.units import Advance, Unit, explained

__all__ = ["COLUMNAR", "Opened", "open_columnar", "scanned"]

_BATCH_BYTES = 24 << 20
"""About how much is decoded at a time."""
_TEXT_BYTES = 32
"""What a value without a fixed width is taken to need, if the file's own figures do not say more."""
_RANGES = 8
"""A file of many record batches is read in so many ranges."""

Opened = tuple[pa.Schema, Callable[[Sequence[str] | None], list[Unit]]]
"""A file's schema, and its units given the columns that are wanted (None for all)."""


def _parquet(place: Place, options: dict[str, Any]) -> Opened:
    given = {"pre_buffer": not place.is_local, "memory_map": place.is_local, **options}

    def opened(metadata: Any = None) -> Any:
        source = place.path if place.is_local else place.open()
        return pq.ParquetFile(source, metadata=metadata, **given)

    first = opened()
    metadata, schema = first.metadata, first.schema_arrow
    for field in schema:
        if isinstance(field.type, pa.BaseExtensionType) and pa.types.is_dictionary(field.type.storage_type):
            # Arrow would abort the process.
            raise ValueError(f"Arrow cannot read column {field.name!r}, an extension of dictionaries")

    def units(columns: Sequence[str] | None) -> list[Unit]:
        return [unit(group, columns) for group in range(metadata.num_row_groups)]

    def unit(group: int, columns: Sequence[str] | None) -> Unit:
        about = metadata.row_group(group)
        sizes = [about.column(index).total_compressed_size for index in range(about.num_columns)]
        rows = _batch_rows(schema, about.total_byte_size, about.num_rows)
        names = list(columns) if columns is not None else None

        def batches(advance: Advance) -> Iterator[pa.RecordBatch]:
            file = opened(metadata)
            done = 0
            for batch in file.iter_batches(rows, [group], names, use_threads=False):
                yield batch
                done += batch.num_rows
                advance(sum(sizes) * batch.num_rows // max(about.num_rows, 1))

        return Unit(f"{place.label}, row group {group}", "parquet", sum(sizes), batches)

    return schema, units


def _batch_rows(schema: pa.Schema, group_bytes: int, group_rows: int) -> int:
    """How many rows to decode at a time."""
    width = 0
    for kind in schema.types:
        try:
            width += max(kind.bit_width // 8, 1)
        except ValueError:
            width += _TEXT_BYTES
    width = max(width, group_bytes // max(group_rows, 1), 1)
    rows = max(_BATCH_BYTES // width, 1)
    # Parts of one size: a row group that is a little larger than a batch would leave a crumb.
    return max(-(-group_rows // max(round(group_rows / rows), 1)), 1)


def _ipc_file(place: Place, options: dict[str, Any]) -> Opened:
    def opened() -> Any:
        source = pa.memory_map(place.path) if place.is_local else place.open()
        return pa.ipc.open_file(source, **options)

    reader = opened()
    schema, count = reader.schema, reader.num_record_batches

    def units(_columns: Sequence[str] | None) -> list[Unit]:
        step = 1 if place.file is not None else max(-(-count // _RANGES), 1)
        if place.file is not None:
            step = max(count, 1)  # one reader at a time
        return [unit(at, min(at + step, count)) for at in range(0, count, step)]

    def unit(start: int, stop: int) -> Unit:
        nbytes = place.nbytes * (stop - start) // count

        def batches(advance: Advance) -> Iterator[pa.RecordBatch]:
            file = opened()
            for index in range(start, stop):
                yield file.get_batch(index)
                advance(place.nbytes * (index + 1) // count - place.nbytes * index // count)

        return Unit(f"{place.label}, record batches {start} to {stop - 1}", "arrow", nbytes, batches)

    return schema, units


def _ipc_stream(place: Place, options: dict[str, Any]) -> Opened:
    with pa.ipc.open_stream(place.open(), **options) as first:
        schema = first.schema

    def batches(advance: Advance) -> Iterator[pa.RecordBatch]:
        with pa.ipc.open_stream(CountingFile(place.open(), advance), **options) as stream:
            yield from stream

    return schema, lambda _columns: [Unit(place.label, "arrows", place.nbytes, batches)]


def _ipc(place: Place, options: dict[str, Any]) -> Opened:
    """Either IPC format, or the first version of Feather: a file says which it is."""
    file = place.open()
    magic = bytes(file.read(6))
    if magic == b"ARROW1":
        return _ipc_file(place, options)
    if magic[:4] == b"FEA1":
        return _first_feather(place, options)
    return _ipc_stream(place, options)


def _first_feather(place: Place, options: dict[str, Any]) -> Opened:
    from pyarrow import feather

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the format is old is no news to who has such a file
        table = feather.read_table(place.open(), **options)

    def batches(advance: Advance) -> Iterator[pa.RecordBatch]:
        yield from table.to_batches()
        advance(place.nbytes)

    return table.schema, lambda _columns: [Unit(place.label, "arrow", place.nbytes, batches)]


def _orc(place: Place, options: dict[str, Any]) -> Opened:
    from pyarrow import orc

    def opened(advance: Advance) -> Any:
        return orc.ORCFile(pa.PythonFile(CountingFile(place.open(), advance), mode="r"), **options)

    first = opened(ignore)
    schema, count = first.schema, first.nstripes

    def units(columns: Sequence[str] | None) -> list[Unit]:
        return [unit(number, columns) for number in range(count)]

    def unit(number: int, columns: Sequence[str] | None) -> Unit:
        def batches(advance: Advance) -> Iterator[pa.RecordBatch]:
            yield opened(advance).read_stripe(number, columns=list(columns) if columns is not None else None)

        return Unit(f"{place.label}, stripe {number}", "orc", place.nbytes // count, batches)

    return schema, units


def scanned(
    dataset_format: Any, place: Place, schema: pa.Schema, keys: dict[str, Any], wanted: Any
) -> list[Unit]:
    """The units of a file some of whose rows are wanted: Arrow leaves out what statistics exclude.

    Args:
        dataset_format: The format, as pyarrow.dataset names it.
        place: The file.
        schema: The whole table's.
        keys: Columns that the file's directory gives.
        wanted: The pyarrow expression that rows must meet.
    """
    import pyarrow.dataset as ds

    known: Any = None
    for name, value in keys.items():
        one = (
            ds.field(name).is_null()
            if value is None
            else ds.field(name) == pa.scalar(value, schema.field(name).type)
        )
        known = one if known is None else known & one
    maker = {"parquet": ds.ParquetFileFormat, "arrow": ds.IpcFileFormat, "orc": ds.OrcFileFormat}[
        dataset_format
    ]()
    fragment = maker.make_fragment(place.path, place.filesystem, known)
    pieces = [fragment]
    if dataset_format == "parquet":
        pieces = fragment.split_by_row_group(wanted, schema)

    def unit(piece: Any) -> Unit:
        def batches(advance: Advance) -> Iterator[pa.RecordBatch]:
            scanner = piece.scanner(
                schema, filter=wanted, use_threads=False, batch_readahead=1, fragment_readahead=1
            )
            yield from scanner.to_batches()
            advance(place.nbytes // max(len(pieces), 1))

        groups = getattr(piece, "row_groups", None)
        where = f", row group {groups[0].id}" if groups and dataset_format == "parquet" else ""
        return Unit(f"{place.label}{where}", dataset_format, place.nbytes // max(len(pieces), 1), batches)

    return [unit(piece) for piece in pieces]


def open_columnar(place: Place, file_format: str, options: dict[str, Any]) -> Opened:
    """Look at a file.

    Raises:
        FileUnreadable: it is not in that format.
    """
    with explained(place.label, file_format):
        return COLUMNAR[file_format](place, options)


COLUMNAR: dict[str, Callable[[Place, dict[str, Any]], Opened]] = {
    "parquet": _parquet,
    "arrow": _ipc,
    "arrows": _ipc,
    "orc": _orc,
}
