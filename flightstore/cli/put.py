"""`flightstore put`: files and standard input into the store.

Tables go into the store as they are read (`flightstore.connectors.sources`), or, to be cut, are read whole
and put in parts (partition.py) that become visible in one commit; raw bytes are read straight into the
store's memory (`create`), with no copy in between. Either way nothing is visible before it is complete, and
an interrupted put leaves nothing.
"""

from __future__ import annotations

import glob
import io
import os
import stat
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import IO, Any

import click

from flightstore.cli.context import common_options, open_store, session_option, settings
from flightstore.cli.formats import FormatName, format_for, format_of, stem
from flightstore.cli.output import (
    human_bytes,
    human_count,
    human_rate,
    info_document,
    print_json,
    print_table,
    printable,
    progress,
)
from flightstore.cli.partition import Partitioning, PartitionSpec, partitions
from flightstore.errors import FlightStoreError, InvalidArgument
from flightstore.types import ObjectInfo

__all__ = ["put"]

_COPY_BYTES = 4 << 20
"""Raw files are read in pieces of this size: large enough for full speed, small enough for a bar to move."""
_NAMED = 5
"""So many of the objects that an earlier put left are named."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file to put."""

    path: str
    """The file, ``-`` for standard input."""
    name: str
    """The name its object gets, or what the names of its objects begin with."""
    file_format: str
    """A format's name, as formats.py writes it."""
    nulls: tuple[str, ...] = ()
    """Text that stands for a missing value in CSV."""
    partitioning: Partitioning | None = None
    """How to cut it; None for one object."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of one file."""

    source: Source
    objects: list[ObjectInfo]
    seconds: float


@click.command(
    epilog="""\b
Examples:
    flightstore put orders.parquet
    flightstore put jan.csv feb.csv.gz
    flightstore put big.parquet --name orders --timeout 30
    flightstore put orders.parquet --partition 8
    flightstore put orders.parquet --partition by=country
    curl -s https://example.org/model.bin | flightstore put - --name model
    zcat log.gz | flightstore put - --name log --format jsonl"""
)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path())
@click.option("--name", help="Name of the object [default: the file's name without its extension].")
@click.option("--format", "format_", type=FormatName(), help="Format [default: by extension].")
@click.option("--raw", is_flag=True, help="Store the bytes as they are (the same as --format raw).")
@click.option(
    "--null", "nulls", metavar="TEXT", multiple=True, help="CSV text that means a missing value [repeatable]."
)
@click.option(
    "--partition",
    "partitioning",
    type=PartitionSpec(),
    metavar="HOW",
    help="Cut each table: K parts, rows=N in a part, or by=COLUMN.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=0,
    metavar="S",
    help="Wait this many seconds for room [default: 0].",
)
@session_option
@common_options
def put(
    files: tuple[str, ...],
    name: str | None,
    format_: str | None,
    raw: bool,
    nulls: tuple[str, ...],
    partitioning: Partitioning | None,
    timeout: float,
) -> int:
    """Put files into the store.

    The format is told by the extension or by --format: parquet, orc, avro, arrow (.arrow, .feather, .ipc),
    arrows, csv, tsv, json, jsonl, xlsx, ods, npy, npz. Text may be packed (.csv.gz, .jsonl.zst; also bz2,
    lz4, br, xz). --raw takes any file as bytes. FILE `-` is standard input, as bytes unless --format says
    otherwise. An object that has the name already is replaced; its readers keep it.

    --partition makes several objects of each table, all visible at once: `8` makes NAME/0 to NAME/7,
    `rows=100000` as many as it takes, `by=country` one for each value (NAME/country=DE). A directory is not
    taken, be it laid out like this or not.
    """
    sources = plan(
        files, name=name, file_format="raw" if raw else format_, nulls=nulls, partitioning=partitioning
    )
    stored: list[Stored] = []
    try:
        with open_store(create=True) as store:
            for source in sources:
                started = time.perf_counter()
                objects = [store.stat(object_id) for object_id in put_one(store, source, timeout)]
                stored.append(Stored(source, objects, time.perf_counter() - started))
                _warn_of_others(store, stored[-1])
    finally:
        # Also when a later file fails: what has been stored stays, and the caller must know what it is.
        if stored:
            _report(stored)
    return 0


def plan(
    paths: tuple[str, ...],
    *,
    name: str | None,
    file_format: str | None,
    nulls: tuple[str, ...] = (),
    partitioning: Partitioning | None = None,
) -> list[Source]:
    """Decide name and format of every file before anything is stored.

    Raises:
        InvalidArgument: a format cannot be told, or cannot be cut, or two files would get one name.
    """
    if name is not None and len(paths) > 1:
        raise click.UsageError("--name goes with one FILE", click.get_current_context(silent=True))
    sources = [
        replace(_plan_one(path, name, file_format), nulls=nulls, partitioning=partitioning) for path in paths
    ]
    taken: dict[str, str] = {}
    for source in sources:
        if partitioning and format_of(source.file_format).holds != "table":
            raise InvalidArgument(
                f"{source.path} holds no table ({source.file_format}): --partition cuts tables",
                hint="put it without --partition",
            )
        other = taken.setdefault(source.name, source.path)
        if other != source.path or sum(s.name == source.name for s in sources) > 1:
            raise InvalidArgument(
                f"{other} and {source.path} would both be named {source.name!r}",
                hint="put them one by one, with --name",
            )
    return sources


def _plan_one(path: str, name: str | None, file_format: str | None) -> Source:
    if path == "-":
        if name is None:
            raise InvalidArgument("standard input has no name", hint="give one with --name")
        return Source(path, name, file_format or "raw")
    return Source(path, stem(path) if name is None else name, file_format or format_for(path))


def put_one(store: Any, source: Source, timeout: float) -> Sequence[Any]:
    """Store one file and return the ids of its objects, in the order of their names."""
    if source.path == "-":
        return _put_stream(store, source, sys.stdin.buffer, timeout)
    with open(source.path, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            return _put_stream(store, source, file, timeout)
        return _put_file(store, source, file, status.st_size, timeout)


def _put_file(store: Any, source: Source, file: IO[bytes], size_bytes: int, timeout: float) -> Sequence[Any]:
    with progress(source.path, size_bytes) as advance:
        if source.file_format == "raw":
            return (_put_raw(store, source, file, size_bytes, timeout, advance),)
        if format_of(source.file_format).holds == "table" and source.partitioning is None:
            return (_put_table(store, source, file, timeout, advance),)
        # Within the bar's block: it stays, full, while the values are copied into the store.
        values: Sequence[Any] = store.put_many(_read(source, file, advance), timeout=timeout)
        return values


def _put_table(store: Any, source: Source, file: IO[bytes], timeout: float, advance: Any) -> Any:
    """Read a table straight into the store's memory."""
    from flightstore.connectors.sources.reading import read_into

    options: dict[str, Any] = {}
    if source.nulls and format_of(source.file_format).name in ("csv", "tsv"):
        options["null_values"] = ["", *source.nulls]
    told = 0

    def moved(done: int, _total: int) -> None:
        nonlocal told
        advance(done - told)
        told = done

    where = file if source.path == "-" or isinstance(file, io.BytesIO) else (source.path,)
    return read_into(
        store,
        where,
        name=source.name,
        format=source.file_format,
        progress=moved,
        timeout=timeout,
        label=source.path,
        **options,
    )


def _read(source: Source, file: IO[bytes], advance: Any) -> dict[str, Any]:
    """What is in a file, by the names it gets in the store."""
    from flightstore.cli import readers

    holds = format_of(source.file_format).holds
    if holds == "table":
        table = readers.read_table(file, source.file_format, source.path, advance, source.nulls)
        if source.partitioning is None:
            return {source.name: table}
        return partitions(table, source.partitioning, source.name)
    arrays = readers.read_arrays(file, source.file_format, source.path)
    if holds == "tensor":
        return {source.name: arrays}
    if not arrays:
        raise readers.FileUnreadable(f"{source.path} holds no arrays", hint="there is nothing to put")
    return {f"{source.name}/{key}": array for key, array in arrays.items()}


def _put_raw(
    store: Any, source: Source, file: IO[bytes], size_bytes: int, timeout: float, advance: Any
) -> Any:
    """Read a file of known size straight into the store's memory."""
    if size_bytes == 0:
        return store.put(b"", source.name, timeout=timeout)
    with store.create(size_bytes, source.name, timeout=timeout) as blob:
        at = 0
        while at < size_bytes:
            count = file.readinto(blob.buffer[at : at + _COPY_BYTES])  # type: ignore[attr-defined]
            if not count:
                raise FlightStoreError(
                    f"{source.path} became shorter while it was read ({at:,} of {size_bytes:,} bytes)",
                    hint="put it again when nobody writes to it",
                )
            at += count
            advance(count)
    return blob.id


def _put_stream(store: Any, source: Source, stream: IO[bytes], timeout: float) -> Sequence[Any]:
    """Store what cannot be seeked (a pipe, a terminal): read it to its end first."""
    with progress("standard input", None) as advance:
        pieces = bytearray()
        while piece := stream.read(_COPY_BYTES):
            pieces += piece
            advance(len(piece))
    if source.file_format == "raw":
        return (store.put(pieces, source.name, timeout=timeout),)
    file = io.BytesIO(pieces)
    return _put_file(store, source, file, len(pieces), timeout)


def _warn_of_others(store: Any, stored: Stored) -> None:
    """Tell of objects beside the parts that are none of them: an earlier cut may have made more parts."""
    name = stored.source.name
    if stored.source.partitioning is None:
        return
    parts = {info.name for info in stored.objects}
    left = [info.name for info in store.list(f"{glob.escape(name)}/*") if info.name not in parts]
    if left:
        named = ", ".join(left[:_NAMED]) + (", ..." if len(left) > _NAMED else "")
        count = f"{len(left):,} object{'s are' if len(left) > 1 else ' is'}"
        click.echo(
            f"warning: {printable(f'below {name}/, {count} not of this put')}: {printable(named)}", err=True
        )


def _report(stored: list[Stored]) -> None:
    if settings().json:
        objects = [
            {
                **info_document(info),
                "file": one.source.path,
                "format": one.source.file_format,
                "seconds": one.seconds,
            }
            for one in stored
            for info in one.objects
        ]
        print_json({"objects": objects})
        return
    rows = [row for one in stored for row in _rows(one)]
    columns = ("name", "id", "kind", "rows", "size", "time", "rate")
    print_table(columns, rows, right=frozenset({"rows", "size", "time", "rate"}))


def _rows(stored: Stored) -> list[list[str]]:
    """The objects of one file; time and rate are the whole file's, and stand in its last line."""
    rows = [
        [i.name or "", str(i.id), i.kind, human_count(i.num_rows), human_bytes(i.nbytes), "", ""]
        for i in stored.objects
    ]
    nbytes = sum(info.nbytes for info in stored.objects)
    rows[-1][-2:] = [f"{stored.seconds:.3f} s", human_rate(nbytes, stored.seconds)]
    return rows
