"""`flightstore get`: an object as a file, as a stream on stdout, or as a preview on a terminal."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from typing import IO, Any

import click

from flightstore.cli import files, writers
from flightstore.cli.context import common_options, open_store, parse_ref, settings
from flightstore.cli.output import (
    Advance,
    human_bytes,
    human_count,
    human_rate,
    print_json,
    print_pairs,
    print_table,
    progress,
)
from flightstore.errors import InvalidArgument

__all__ = ["get"]

_PREVIEW_ROWS = 10
_CELL_CHARACTERS = 32
_PREVIEW_CHARACTERS = 2000
_COPY_BYTES = 4 << 20
_DEFAULT_FORMAT = {"table": "arrows", "blob": "raw", "tensor": "npy"}
"""What goes to a pipe when no format is asked for."""


@click.command(
    epilog="""\b
Examples:
    flightstore get orders
    flightstore get orders -o orders.parquet
    flightstore get orders --format csv | head
    flightstore get id:1f0a5c7e9b2d4f6081a3c5e7f9b1d3f5 -o weights.npy
    flightstore get model --timeout 30 > model.bin"""
)
@click.argument("ref")
@click.option("-o", "--output", metavar="FILE", help="File to write; `-` for stdout.")
@click.option("--format", "format_", type=click.Choice(files.FORMATS), help="Format [default: by extension].")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=0,
    metavar="S",
    help="Wait this many seconds for the object to appear [default: 0].",
)
@common_options
def get(ref: str, output: str | None, format_: str | None, timeout: float) -> int:
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
            _to_file(obj, output, format_ or files.detect_format(output))
        elif to_stdout:
            chosen = format_ or _default_format(obj)
            _check_streamable(chosen)
            write_object(obj, sys.stdout.buffer, chosen, lambda _count: None)
            sys.stdout.buffer.flush()
        else:
            _preview(obj)
    return 0


def _default_format(obj: Any) -> str:
    if obj.kind not in _DEFAULT_FORMAT:
        raise InvalidArgument(
            f"{_label(obj)} is a Python object, which has no file format",
            hint="read it in Python: flightstore.connect().get(...).value()",
        )
    return _DEFAULT_FORMAT[obj.kind]


def _check_streamable(file_format: str) -> None:
    if file_format not in writers.STREAMABLE:
        raise InvalidArgument(
            f"{file_format} cannot be written to a pipe",
            hint="write it to a file with -o, or use --format arrows, csv or jsonl",
        )


def _to_file(obj: Any, path: str, file_format: str | None) -> None:
    chosen = file_format or ("raw" if obj.kind == "blob" else files.check_format(None, path))
    started = time.perf_counter()
    with writers.atomic_file(path) as file, progress(path, obj.nbytes) as advance:
        write_object(obj, file, chosen, advance)
        size_bytes = file.tell()
    seconds = time.perf_counter() - started
    if settings().json:
        document = {"file": path, "format": chosen, "bytes": size_bytes, "seconds": seconds}
        print_json({**_describe(obj), "written": document})
    else:
        rate = human_rate(obj.nbytes, seconds)
        click.echo(f"{path}: {human_bytes(size_bytes)} as {chosen} in {seconds:.3f} s ({rate})")


def write_object(obj: Any, file: IO[bytes], file_format: str, advance: Advance) -> None:
    """Write an object to a binary file in a format.

    Raises:
        InvalidArgument: the object's kind has no such format.
    """
    if obj.kind == "table" and file_format not in ("raw", "npy"):
        writers.write_table(obj.to_arrow(), file, file_format, advance)
    elif obj.kind == "blob" and file_format == "raw":
        with memoryview(obj.value()) as content:
            for at in range(0, content.nbytes, _COPY_BYTES):
                advance(file.write(content[at : at + _COPY_BYTES]))
    elif obj.kind == "tensor" and file_format == "npy":
        import numpy as np

        np.save(file, obj.to_numpy(), allow_pickle=False)
    else:
        fitting = _DEFAULT_FORMAT.get(obj.kind)
        hint = f"use --format {fitting}" if fitting else "read it in Python: store.get(...).value()"
        raise InvalidArgument(
            f"{_label(obj)} is a {obj.kind}, which cannot be written as {file_format}", hint=hint
        )


def _label(obj: Any) -> str:
    return obj.name or str(obj.id)


def _describe(obj: Any) -> dict[str, Any]:
    document: dict[str, Any] = {"id": str(obj.id), "name": obj.name, "kind": obj.kind, "bytes": obj.nbytes}
    if obj.kind == "table":
        document["rows"] = obj.num_rows
        document["schema"] = [
            {"name": field.name, "type": str(field.type), "nullable": field.nullable} for field in obj.schema
        ]
    elif obj.kind == "tensor":
        array = obj.to_numpy()
        document |= {"dtype": str(array.dtype), "shape": list(array.shape)}
    return document


def _preview(obj: Any) -> None:
    """Show what the object is and how it begins."""
    if settings().json:
        document = _describe(obj)
        if obj.kind == "table":
            document["preview"] = _first_rows(obj)
        print_json(document)
        return
    pairs = {"name": obj.name or "", "id": str(obj.id), "kind": obj.kind, "size": human_bytes(obj.nbytes)}
    if obj.kind == "table":
        pairs["rows"] = human_count(obj.num_rows)
        pairs["columns"] = human_count(len(obj.schema))
    print_pairs({label: value for label, value in pairs.items() if value})
    if obj.kind == "table":
        _print_rows(obj)
    else:
        click.echo(_beginning(obj))


def _beginning(obj: Any) -> str:
    """How a value that is no table begins, on one screen."""
    if obj.kind == "blob":
        with memoryview(obj.value()) as content:
            return f"{bytes(content[:64])!r}{' ...' if content.nbytes > 64 else ''}"
    text = repr(obj.to_numpy() if obj.kind == "tensor" else obj.value())
    return text if len(text) <= _PREVIEW_CHARACTERS else text[:_PREVIEW_CHARACTERS] + " ..."


def _first_rows(obj: Any) -> list[list[str | None]]:
    """Rows as lists, since two columns may have one name; None for null."""
    table = obj.to_arrow().slice(0, _PREVIEW_ROWS)
    columns = [[str(value) if value.is_valid else None for value in column] for column in table.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def _cell(value: Any) -> str:
    """One value as text; str() of an Arrow scalar keeps what Python's types would lose (nanoseconds)."""
    text = str(value) if value.is_valid else ""
    return text if len(text) <= _CELL_CHARACTERS else f"{text[: _CELL_CHARACTERS - 3]}..."


def _print_rows(obj: Any) -> None:
    import pyarrow as pa

    table = obj.to_arrow().slice(0, _PREVIEW_ROWS)
    columns = [[_cell(value) for value in column] for column in table.columns]
    count = columns_that_fit(table.column_names, columns, shutil.get_terminal_size().columns)
    fields = list(table.schema)[:count]
    if not fields:
        return
    numbers = frozenset(
        field.name for field in fields if pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
    )
    rows = list(zip(*columns[:count], strict=True))
    print_table([field.name for field in fields], rows, right=numbers)
    if obj.num_rows > len(rows) or len(obj.schema) > count:
        click.echo(f"first {len(rows)} of {obj.num_rows:,} rows, {count} of {len(obj.schema)} columns")


def columns_that_fit(names: Sequence[str], columns: Sequence[Sequence[str]], width: int) -> int:
    """How many of the columns, at least one, can be shown beside each other in `width` characters."""
    used = 0
    for count, (name, cells) in enumerate(zip(names, columns, strict=True)):
        used += 2 + max(map(len, [name, *cells]))
        if used > width and count:
            return count
    return len(names)
