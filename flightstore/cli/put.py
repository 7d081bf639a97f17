"""`flightstore put`: files and standard input into the store.

Tables are read whole and put in one piece; raw bytes are read straight into the store's memory
(`create`), with no copy in between. Either way nothing is visible before it is complete, and an
interrupted put leaves nothing.
"""

from __future__ import annotations

import io
import os
import stat
import sys
import time
from dataclasses import dataclass, replace
from typing import IO, Any

import click

from flightstore.cli import files
from flightstore.cli.context import common_options, open_store, settings
from flightstore.cli.output import (
    human_bytes,
    human_count,
    human_rate,
    info_document,
    print_json,
    print_table,
    progress,
)
from flightstore.errors import FlightStoreError, InvalidArgument
from flightstore.types import ObjectInfo

__all__ = ["put"]

_COPY_BYTES = 4 << 20
"""Raw files are read in pieces of this size: large enough for full speed, small enough for a bar to move."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file to put."""

    path: str
    """The file, ``-`` for standard input."""
    name: str
    """The name its object gets."""
    file_format: str
    """One of files.FORMATS."""
    nulls: tuple[str, ...] = ()
    """Text that stands for a missing value in CSV."""


@click.command(
    epilog="""\b
Examples:
    flightstore put orders.parquet
    flightstore put jan.csv feb.csv.gz
    flightstore put big.parquet --name orders --timeout 30
    curl -s https://example.org/model.bin | flightstore put - --name model
    zcat log.gz | flightstore put - --name log --format jsonl"""
)
@click.argument("files_", metavar="FILE...", nargs=-1, required=True)
@click.option("--name", help="Name of the object [default: the file's name without its extension].")
@click.option("--format", "format_", type=click.Choice(files.FORMATS), help="Format [default: by extension].")
@click.option("--raw", is_flag=True, help="Store the bytes as they are (the same as --format raw).")
@click.option(
    "--null", "nulls", metavar="TEXT", multiple=True, help="CSV text that means a missing value [repeatable]."
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=0,
    metavar="S",
    help="Wait this many seconds for room [default: 0].",
)
@common_options
def put(
    files_: tuple[str, ...],
    name: str | None,
    format_: str | None,
    raw: bool,
    nulls: tuple[str, ...],
    timeout: float,
) -> int:
    """Put files into the store.

    Parquet, CSV (also .csv.gz), Arrow IPC (.arrow, .feather, .arrows), JSON lines (.jsonl, .ndjson) and
    NumPy (.npy) files are told by their extension; --raw takes any file as bytes. FILE `-` is standard
    input, as bytes unless --format says otherwise. An object that has the name already is replaced; its
    readers keep it.
    """
    sources = plan(files_, name=name, file_format="raw" if raw else format_, nulls=nulls)
    stored: list[tuple[Source, ObjectInfo, float]] = []
    try:
        with open_store(create=True) as store:
            for source in sources:
                started = time.perf_counter()
                info = store.stat(put_one(store, source, timeout))
                stored.append((source, info, time.perf_counter() - started))
    finally:
        # Also when a later file fails: what has been stored stays, and the caller must know what it is.
        if stored:
            _report(stored)
    return 0


def plan(
    paths: tuple[str, ...], *, name: str | None, file_format: str | None, nulls: tuple[str, ...] = ()
) -> list[Source]:
    """Decide name and format of every file before anything is stored.

    Raises:
        InvalidArgument: a format cannot be told, or two files would get one name.
    """
    if name is not None and len(paths) > 1:
        raise click.UsageError("--name goes with one FILE", click.get_current_context(silent=True))
    sources = [replace(_plan_one(path, name, file_format), nulls=nulls) for path in paths]
    taken: dict[str, str] = {}
    for source in sources:
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
    found = file_format or files.detect_format(path)
    return Source(path, files.stem(path) if name is None else name, files.check_format(found, path))


def put_one(store: Any, source: Source, timeout: float) -> Any:
    """Store one file and return the object's id."""
    if source.path == "-":
        return _put_stream(store, source, sys.stdin.buffer, timeout)
    with open(source.path, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            return _put_stream(store, source, file, timeout)
        return _put_file(store, source, file, status.st_size, timeout)


def _put_file(store: Any, source: Source, file: IO[bytes], size_bytes: int, timeout: float) -> Any:
    with progress(source.path, size_bytes) as advance:
        if source.file_format == "raw":
            return _put_raw(store, source, file, size_bytes, timeout, advance)
        if source.file_format == "npy":
            return store.put(_read_npy(file, source.path), source.name, timeout=timeout)
        table = files.read_table(file, source.file_format, source.path, advance, source.nulls)
        # Within the bar's block: it stays, full, while the table is copied into the store.
        return store.put(table, source.name, timeout=timeout)


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


def _put_stream(store: Any, source: Source, stream: IO[bytes], timeout: float) -> Any:
    """Store what cannot be seeked (a pipe, a terminal): read it to its end first."""
    with progress("standard input", None) as advance:
        pieces = bytearray()
        while piece := stream.read(_COPY_BYTES):
            pieces += piece
            advance(len(piece))
    if source.file_format == "raw":
        return store.put(pieces, source.name, timeout=timeout)
    file = io.BytesIO(pieces)
    return _put_file(store, source, file, len(pieces), timeout)


def _read_npy(file: IO[bytes], label: str) -> Any:
    """A NumPy array from a file; one that holds pickled objects is refused, for unpickling runs code."""
    import numpy as np

    try:
        return np.load(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        hint = "store the bytes as they are with --raw"
        raise files.FileUnreadable(f"{label} cannot be read as npy: {error}", hint=hint) from error


def _report(stored: list[tuple[Source, ObjectInfo, float]]) -> None:
    if settings().json:
        objects = [
            {**info_document(info), "file": source.path, "format": source.file_format, "seconds": seconds}
            for source, info, seconds in stored
        ]
        print_json({"objects": objects})
        return
    rows = [
        [
            info.name or "",
            str(info.id),
            info.kind,
            human_count(info.num_rows),
            human_bytes(info.nbytes),
            f"{seconds:.3f} s",
            human_rate(info.nbytes, seconds),
        ]
        for _source, info, seconds in stored
    ]
    columns = ("name", "id", "kind", "rows", "size", "time", "rate")
    print_table(columns, rows, right=frozenset({"rows", "size", "time", "rate"}))
