"""What commands print: tables for people, one JSON document for programs, errors, progress bars.

Results go to stdout, everything else to stderr. Names and other text that users chose are printed without
control characters, so that no object's name can send escape sequences to a terminal. Calls rich and click
only.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import click

from flightstore.errors import FlightStoreError
from flightstore.types import ObjectID, ObjectInfo

__all__ = [
    "Advance",
    "console_on_stdout",
    "human_age",
    "human_bytes",
    "human_count",
    "human_rate",
    "info_document",
    "local_time",
    "print_error",
    "print_json",
    "print_pairs",
    "print_rendered",
    "print_table",
    "printable",
    "progress",
]

PROGRESS_FROM_BYTES = 32 << 20
"""Smaller files are done before a bar could be read."""

_LABEL_CHARACTERS = 24

Advance = Callable[[int], None]
"""Tells a progress bar that so many more bytes are done."""


def human_bytes(count: float) -> str:
    """A size for people: ``17 B``, ``1.5 KiB``, ``2.0 GiB``."""
    if abs(count) < 1024:
        return f"{count:.0f} B"
    size = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if abs(size) < 1023.95:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} TiB"


def human_count(count: int | None) -> str:
    """A number with thousands separators; empty for None."""
    return "" if count is None else f"{count:,}"


def human_rate(nbytes: int, seconds: float) -> str:
    """Bytes per second, for people; empty when no time passed."""
    return f"{human_bytes(nbytes / seconds)}/s" if seconds > 0 else ""


def human_age(then_ns: int, now_ns: int | None = None) -> str:
    """How long ago a moment was: ``now``, ``12 s ago``, ``3 h ago``."""
    seconds = ((time.time_ns() if now_ns is None else now_ns) - then_ns) / 1e9
    if seconds < 1:
        return "now"
    for unit, length_s in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length_s:
            return f"{seconds // length_s:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def local_time(moment_ns: int) -> str:
    """A moment in the local time zone, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(moment_ns / 1e9))


def printable(text: str) -> str:
    """`text` with whatever a terminal would not print written as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def info_document(info: ObjectInfo) -> dict[str, Any]:
    """An ObjectInfo as JSON has it."""
    return {
        "id": str(info.id),
        "name": info.name,
        "kind": info.kind,
        "bytes": info.nbytes,
        "rows": info.num_rows,
        "created_ns": info.created_ns,
        "creator_pid": info.creator_pid,
        "refs": info.refs,
        "pinned": info.pinned,
        "evictable": info.evictable,
        "state": info.state,
        "metadata": info.metadata,
    }


def print_json(document: Any) -> None:
    """Print one JSON document on stdout."""
    click.echo(json.dumps(document, indent=2, default=_jsonable))


def _jsonable(value: Any) -> Any:
    if isinstance(value, ObjectID):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    return str(value)


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: frozenset[str] | frozenset[int]
) -> None:
    """Print a table as wide as its contents; columns named (or numbered) in `right` are aligned right."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for index, column in enumerate(columns):
        justify: Literal["left", "right"] = "right" if column in right or index in right else "left"
        table.add_column(Text(printable(column)), justify=justify, no_wrap=True)
    for row in rows:
        # Text, because a plain str would be read as rich's markup.
        table.add_row(*(Text(printable(cell)) for cell in row))
    print_rendered(table)


def print_rendered(content: Any, *, wrapped: bool = False) -> None:
    """Print what rich renders, as wide as its contents, or as the terminal if `wrapped`."""
    console = console_on_stdout(wrapped=wrapped)
    # Captured and written by click: rich would end the program its own way when the reader of a pipe is gone.
    with console.capture() as captured:
        console.print(content)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def print_pairs(pairs: Mapping[str, str]) -> None:
    """Print labels and values, one pair a line."""
    width = max(map(len, pairs), default=0)
    for label, value in pairs.items():
        click.echo(f"{label:<{width}}  {printable(value)}".rstrip())


def print_error(error: BaseException, *, as_json: bool) -> None:
    """Print an error and what to do about it, on stderr."""
    message, hint = describe_error(error)
    if as_json:
        document: dict[str, Any] = {"error": type(error).__name__, "message": message, "hint": hint}
        document |= {key: value for key, value in vars(error).items() if key.endswith(("_bytes", "_pid"))}
        # One line each: `rm` can report several.
        click.echo(json.dumps(document, default=_jsonable), err=True)
        return
    click.echo(f"error: {printable(message)}", err=True)
    if hint:
        click.echo(f"hint: {printable(hint)}", err=True)


def describe_error(error: BaseException) -> tuple[str, str]:
    """(message, hint) of any error; the hint may be empty."""
    if isinstance(error, FlightStoreError):
        return error.message, error.hint
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        return error.format_message(), f"see {context.command_path} --help" if context else ""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror, ""
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__, ""


@contextmanager
def progress(label: str, total_bytes: int | None) -> Iterator[Advance]:
    """A progress bar on stderr while the block runs, if stderr is a terminal and there is much to do."""
    if not sys.stderr.isatty() or (total_bytes is not None and total_bytes < PROGRESS_FROM_BYTES):
        yield lambda _count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.progress import TransferSpeedColumn as Speed

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        Speed(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(_short(label), total=total_bytes)
        yield lambda count: bar.advance(task, count)


def _short(path: str) -> str:
    """A file's name, short enough to leave room for the bar."""
    name = printable(os.path.basename(path))
    return name if len(name) <= _LABEL_CHARACTERS else f"{name[: _LABEL_CHARACTERS - 3]}..."


def console_on_stdout(*, wrapped: bool = False) -> Any:
    """A console on stdout: as wide as the terminal if `wrapped`, else of any width.

    A broken id or number is no use to anybody, so that lists are never wrapped.
    """
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False, width=None if wrapped else 100_000)
