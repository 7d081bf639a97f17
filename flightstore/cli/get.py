"""`flightstore get` and `head`: an object as a file or as a stream on stdout; its beginning on a terminal."""

from __future__ import annotations

import sys
import time
from typing import IO, Any

import click

from flightstore.cli import exits, writers
from flightstore.cli.completion import OBJECT
from flightstore.cli.context import (
    common_options,
    open_store,
    parse_ref,
    session_option,
    settings,
)
from flightstore.cli.formats import FormatName, detect_format, format_for, format_of
from flightstore.cli.output import Advance, human_bytes, human_rate, print_json, progress
from flightstore.cli.preview import Wanted, describe, preview_document, show, text_rows
from flightstore.connectors.sources.packing import Unclosed
from flightstore.errors import InvalidArgument

__all__ = ["get", "head"]

_COPY_BYTES = 4 << 20
_DEFAULT_FORMAT = {"table": "arrows", "blob": "raw", "tensor": "npy"}
"""What goes to a pipe when no format is asked for."""

unpickling = click.option(
    "--pickle", "unpickle", is_flag=True, help="Show Python objects, which runs code their creators chose."
)


@click.command(
    epilog="""\b
Examples:
    flightstore get orders
    flightstore get orders -o orders.parquet
    flightstore get orders --format csv | head
    flightstore get orders --format jsonl.gz > orders.jsonl.gz
    flightstore get id:1f0a5c7e9b2d4f6081a3c5e7f9b1d3f5 -o weights.npy
    flightstore get model --timeout 30 > model.bin"""
)
@click.argument("ref", type=OBJECT)
@click.option("-o", "--output", metavar="FILE", type=click.Path(), help="File to write; `-` for stdout.")
@click.option("--format", "format_", type=FormatName(), help="Format [default: by extension].")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=0,
    metavar="S",
    help="Wait this many seconds for the object to appear [default: 0].",
)
@unpickling
@session_option
@common_options
def get(ref: str, output: str | None, format_: str | None, timeout: float, unpickle: bool) -> int:
    """Get an object: into a file, to stdout, or as a preview.

    REF is a name, or an id written id:<hex>. With -o the format follows FILE's extension; the file
    appears when it is whole, never half-written. Without -o, a terminal shows the first rows; a pipe gets
    the object itself (a table as an Arrow IPC stream, a blob as its bytes, an array as .npy) or what
    --format says. With --json and no -o, the preview is JSON.
    """
    to_stdout = output == "-" or (output is None and (format_ is not None or not sys.stdout.isatty()))
    if settings().json and output is None and format_ is None:
        to_stdout = False
    if settings().json and to_stdout:
        raise click.UsageError("--json describes; it cannot share stdout with the object: add -o FILE")
    with open_store() as store, store.get(parse_ref(ref), timeout=timeout) as obj:
        if output is not None and output != "-":
            _to_file(obj, output, format_ or detect_format(output))
        elif to_stdout:
            chosen = format_ or _default_format(obj)
            _check_streamable(chosen)
            write_object(obj, sys.stdout.buffer, chosen, lambda _count: None)
            sys.stdout.buffer.flush()
        elif not settings().json:
            show(obj, Wanted(unpickle=unpickle))
        else:
            document = describe(obj)
            print_json(document | {"preview": text_rows(obj)} if obj.kind == "table" else document)
    return exits.OK


@click.command(
    epilog="""\b
Examples:
    flightstore head orders
    flightstore head orders -n 3 --columns id,price
    flightstore head orders --tail
    flightstore head orders --json | jq -c '.values[]'"""
)
@click.argument("ref", type=OBJECT)
@click.option(
    "-n",
    "--rows",
    type=click.IntRange(min=0),
    default=10,
    metavar="ROWS",
    help="How many rows (entries of an array, 16 bytes of a blob) [default: 10].",
)
@click.option(
    "--columns",
    metavar="A,B",
    multiple=True,
    help="These columns of a table, in this order [repeatable].",
)
@click.option("--tail", is_flag=True, help="The last rows instead of the first.")
@unpickling
@session_option
@common_options
def head(ref: str, rows: int, columns: tuple[str, ...], tail: bool, unpickle: bool) -> int:
    """Show the first rows of a table, or the beginning of anything else.

    Columns that do not fit the terminal are counted, long values are cut; into a pipe go all columns. An
    array shows its first entries, a blob its first bytes. Python objects are told by their pickle, which
    is not run unless --pickle says so. Only what is shown is read.
    """
    wanted = Wanted(rows, tail, columns, unpickle)
    with open_store() as store, store.get(parse_ref(ref)) as obj:
        if columns and obj.kind != "table":
            raise InvalidArgument(f"{ref} is no table but a {obj.kind}: it has no columns")
        if settings().json:
            print_json(preview_document(obj, wanted))
        else:
            show(obj, wanted)
    return exits.OK


def _default_format(obj: Any) -> str:
    if obj.kind not in _DEFAULT_FORMAT:
        raise InvalidArgument(
            f"{_label(obj)} is a Python object, which has no file format",
            hint="read it in Python: flightstore.connect().get(...).value()",
        )
    return _DEFAULT_FORMAT[obj.kind]


def _check_streamable(file_format: str) -> None:
    if not format_of(file_format).streams:
        raise InvalidArgument(
            f"{file_format} cannot be written to a pipe",
            hint="write it to a file with -o, or use --format arrows, csv or jsonl",
        )


def _to_file(obj: Any, path: str, file_format: str | None) -> None:
    chosen = file_format or ("raw" if obj.kind == "blob" else format_for(path))

    started = time.perf_counter()
    with writers.atomic_file(path) as file, progress(path, obj.nbytes) as advance:
        write_object(obj, file, chosen, advance)
        size_bytes = file.tell()
    seconds = time.perf_counter() - started
    if settings().json:
        document = {"file": path, "format": chosen, "bytes": size_bytes, "seconds": seconds}
        print_json({**describe(obj), "written": document})
    else:
        rate = human_rate(obj.nbytes, seconds)
        click.echo(f"{path}: {human_bytes(size_bytes)} as {chosen} in {seconds:.3f} s ({rate})")


def write_object(obj: Any, file: IO[bytes], file_format: str, advance: Advance) -> None:
    """Write an object to a binary file in a format.

    Raises:
        InvalidArgument: the object's kind has no such format, or it is only read.
    """
    known = format_of(file_format)
    if known.holds != obj.kind or not known.writes:
        fitting = _DEFAULT_FORMAT.get(obj.kind)
        hint = f"use --format {fitting}" if fitting else "read it in Python: store.get(...).value()"
        why = f"is a {obj.kind}, which cannot" if known.writes else "cannot"
        raise InvalidArgument(f"{_label(obj)} {why} be written as {file_format}", hint=hint)
    if obj.kind == "table":
        writers.write_table(obj.to_arrow(), file, file_format, advance)
    elif obj.kind == "blob":
        with memoryview(obj.value()) as content:
            for at in range(0, content.nbytes, _COPY_BYTES):
                advance(file.write(content[at : at + _COPY_BYTES]))
    else:
        import numpy as np

        # NumPy seeks in what it knows for a file, also where that is a pipe.
        target = file if file.seekable() else Unclosed(file)
        np.save(target, obj.to_numpy(), allow_pickle=False)


def _label(obj: Any) -> str:
    return obj.name or str(obj.id)
