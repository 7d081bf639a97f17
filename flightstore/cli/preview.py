"""How objects are shown: the beginning (or the end) of a table, array or blob, the outline of a pickle.

For people as tables that fit the terminal, for programs as JSON. Reads only what it shows: nothing else of
the store's memory is touched. Nothing is unpickled unless the caller says so.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click
import msgspec

from flightstore.cli import pickles
from flightstore.cli.output import human_bytes, human_count, print_pairs, print_table, printable
from flightstore.cli.values import cell_text, shortened
from flightstore.connectors.sources.conversion import converted
from flightstore.errors import InvalidArgument

__all__ = [
    "Wanted",
    "columns_that_fit",
    "describe",
    "json_rows",
    "preview_document",
    "show",
    "show_rows",
    "text_rows",
]

_CELL_CHARACTERS = 32
_PREVIEW_CHARACTERS = 2000
_BYTES_A_LINE = 16
_NAMED_COLUMNS = 8
_NO_LIMIT = 1 << 30


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which part of an object to show."""

    rows: int = 10
    """Rows of a table, entries of an array along its first dimension, lines of 16 bytes of a blob."""
    tail: bool = False
    """The last of them instead of the first."""
    columns: tuple[str, ...] = ()
    """Columns of a table; all if empty."""
    unpickle: bool = False
    """Whether to unpickle Python objects, which runs code that their creators chose."""

    def span(self, total: int) -> tuple[int, int]:
        """(first, end) of what is shown of `total` rows."""
        count = min(self.rows, total)
        return (total - count, total) if self.tail else (0, count)

    @property
    def end(self) -> str:
        """``first`` or ``last``."""
        return "last" if self.tail else "first"


def describe(obj: Any) -> dict[str, Any]:
    """What an object is, as JSON has it."""
    document: dict[str, Any] = {"id": str(obj.id), "name": obj.name, "kind": obj.kind, "bytes": obj.nbytes}
    if obj.kind == "table":
        document["rows"] = obj.num_rows
        document["schema"] = [
            {"name": field.name, "type": str(field.type), "nullable": field.nullable} for field in obj.schema
        ]
    elif obj.kind == "tensor":
        document |= {"dtype": str(obj.dtype), "shape": list(obj.shape), "order": obj.order}
    return document


def show(obj: Any, wanted: Wanted) -> None:
    """Print what an object is and the wanted part of it."""
    pairs = {"name": obj.name or "", "id": str(obj.id), "kind": obj.kind, "size": human_bytes(obj.nbytes)}
    if obj.kind == "table":
        pairs["rows"] = human_count(obj.num_rows)
        pairs["columns"] = human_count(len(obj.schema))
    elif obj.kind == "tensor":
        pairs |= {"dtype": str(obj.dtype), "shape": str(obj.shape), "order": obj.order}
    print_pairs({label: value for label, value in pairs.items() if value})
    if obj.kind == "table":
        show_rows(obj, wanted)
    elif obj.kind == "tensor":
        _show_array(obj.to_numpy(), wanted)
    elif obj.kind == "blob":
        _show_bytes(obj, wanted)
    else:
        _show_object(obj, wanted)


def preview_document(obj: Any, wanted: Wanted) -> dict[str, Any]:
    """The wanted part of an object as JSON has it, beside what the object is.

    Raises:
        InvalidArgument: there is no such column.
    """
    document: dict[str, Any] = {"id": str(obj.id), "name": obj.name, "kind": obj.kind, "bytes": obj.nbytes}
    if obj.kind == "table":
        first, part = _part(obj, wanted)
        document |= {"rows": obj.num_rows, "first": first, "columns": part.column_names}
        document["values"] = json_rows(part)
    elif obj.kind == "tensor":
        flat = obj.to_numpy().reshape(-1, order="A")
        first, end = wanted.span(flat.size)
        document |= {"dtype": str(obj.dtype), "shape": list(obj.shape), "order": obj.order}
        document |= {"first": first, "values": _plain_json(flat[first:end].tolist())}
    elif obj.kind == "blob":
        first, content = _bytes(obj, wanted)
        document |= {"first": first, "hex": content.hex()}
    else:
        found = pickles.outline(obj)
        document |= {"pickle_bytes": found.pickle_bytes, "buffers": found.buffers}
        document |= {"imports": list(found.names), "complete": found.complete}
        if wanted.unpickle:
            document["value"] = repr(obj.value())
    return document


# --- tables ---


def _part(obj: Any, wanted: Wanted) -> tuple[int, Any]:
    """(number of the first row, rows) that are wanted of a table."""
    table = obj.to_arrow()
    first, end = wanted.span(obj.num_rows)
    if wanted.columns:
        table = table.select(_indices(table.column_names, wanted.columns))
    return first, table.slice(first, end - first)


def _indices(names: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Where the wanted columns are; all of them where several have one name.

    Each text is a column's name, or several with commas between them.
    """
    found: list[int] = []
    for text in wanted:
        for name in [text] if text in names else text.split(","):
            here = [index for index, known in enumerate(names) if known == name]
            if not here:
                raise InvalidArgument(
                    f"there is no column {name!r}",
                    hint=f"columns: {shortened(', '.join(names), _PREVIEW_CHARACTERS)}",
                )
            found += here
    return found


def text_rows(obj: Any) -> list[list[str | None]]:
    """The first rows of a table as text, None for null."""
    _first, part = _part(obj, Wanted())
    columns = [
        [cell_text(value, _NO_LIMIT) if value.is_valid else None for value in column]
        for column in part.columns
    ]
    return [list(row) for row in zip(*columns, strict=True)]


def json_rows(part: Any) -> list[list[Any]]:
    """Rows as lists, since two columns may have one name; values as `get --format jsonl` has them."""
    columns = [_json_values(part.select([index])) for index in range(part.num_columns)]
    return [[column[row] for column in columns] for row in range(part.num_rows)]


def _json_values(column: Any) -> Any:
    try:
        return _plain_json(converted(column, "jsonl").column(0).to_pylist())
    except InvalidArgument:  # no such thing in JSON: as text
        return [cell_text(value, _NO_LIMIT) if value.is_valid else None for value in column.column(0)]


def _plain_json(values: Any) -> Any:
    """Values as JSON has them: what is no number there (NaN) is null, bytes are base64."""
    return msgspec.json.decode(msgspec.json.encode(values, enc_hook=str))


def show_rows(obj: Any, wanted: Wanted) -> None:
    """Print the wanted rows of a table, as many columns as fit."""
    import pyarrow as pa

    _first, table = _part(obj, wanted)
    columns = [[cell_text(value, _CELL_CHARACTERS) for value in column] for column in table.columns]
    count = columns_that_fit(table.column_names, columns, _width())
    fields = list(table.schema)[:count]
    if not fields:
        return
    numbers = frozenset(
        index
        for index, field in enumerate(fields)
        if pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
    )
    rows = list(zip(*columns[:count], strict=True))
    print_table([_heading(field.name) for field in fields], rows, right=numbers)
    if obj.num_rows > len(rows) or len(obj.schema) > count:
        text = f"{wanted.end} {len(rows):,} of {obj.num_rows:,} rows, {count} of {len(obj.schema):,} columns"
        click.echo(text + _left_out(table.column_names[count:]))


def _left_out(names: Sequence[str]) -> str:
    if not names:
        return ""
    listed = ", ".join(_heading(name) for name in names[:_NAMED_COLUMNS])
    more = len(names) - _NAMED_COLUMNS
    return printable(f" (not shown: {listed}{f' and {more:,} more' if more > 0 else ''})")


def _heading(name: str) -> str:
    return shortened(name, _CELL_CHARACTERS)


def _width() -> int:
    """Characters a line may have: as many as it likes where no terminal shows it."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS"):
        return shutil.get_terminal_size().columns
    return _NO_LIMIT


def columns_that_fit(names: Sequence[str], columns: Sequence[Sequence[str]], width: int) -> int:
    """How many of the columns, at least one, can be shown beside each other in `width` characters."""
    used = 0
    for count, (name, cells) in enumerate(zip(names, columns, strict=True)):
        used += 2 + max(_cells(text) for text in [_heading(name), *cells])
        if used - 2 > width and count:
            return count
    return len(names)


def _cells(text: str) -> int:
    """How many places of a terminal a text takes: two for a Chinese character."""
    from rich.cells import cell_len

    return cell_len(printable(text))


# --- everything else ---


def _show_array(array: Any, wanted: Wanted) -> None:
    import numpy as np

    if array.ndim:
        first, end = wanted.span(array.shape[0])
        part = array[first:end]
    else:
        part = array
    threshold, limit = max(200, 8 * wanted.rows), max(_PREVIEW_CHARACTERS, 200 * wanted.rows)
    with np.printoptions(threshold=threshold, edgeitems=4, linewidth=min(_width(), 200)):
        click.echo(printable_lines(shortened(str(part), limit)))
    if array.ndim and len(part) < len(array):
        click.echo(f"{wanted.end} {len(part):,} of {len(array):,} entries")


def _bytes(obj: Any, wanted: Wanted) -> tuple[int, bytes]:
    """(where, which) bytes of a blob are wanted; lines begin at multiples of 16."""
    content = obj.value()
    if content.nbytes == 0:
        return 0, b""
    first, end = wanted.span(-(-content.nbytes // _BYTES_A_LINE))
    at = first * _BYTES_A_LINE
    return at, bytes(content.cast("B")[at : end * _BYTES_A_LINE])


def _show_bytes(obj: Any, wanted: Wanted) -> None:
    at, content = _bytes(obj, wanted)
    for start in range(0, len(content), _BYTES_A_LINE):
        line = content[start : start + _BYTES_A_LINE]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in line)
        click.echo(f"{at + start:08x}  {line.hex(' '):<{3 * _BYTES_A_LINE}} |{text}|")
    if len(content) < obj.nbytes:
        click.echo(f"{wanted.end} {len(content):,} of {obj.nbytes:,} bytes")


def _show_object(obj: Any, wanted: Wanted) -> None:
    if wanted.unpickle:
        click.echo(printable_lines(shortened(repr(obj.value()), _PREVIEW_CHARACTERS)))
        return
    found = pickles.outline(obj)
    names = shortened(", ".join(found.names) or "nothing", _PREVIEW_CHARACTERS)
    imports = names if found.complete else f"{names}, and perhaps more"
    print_pairs(
        {
            "pickle": human_bytes(found.pickle_bytes),
            "buffers": human_count(found.buffers) if found.buffers else "none",
            "imports": imports,
        }
    )
    click.echo("not unpickled: that runs code its creator chose; --pickle does it")


def printable_lines(text: str) -> str:
    """Text of several lines, without anything else that a terminal would act on."""
    return "\n".join(printable(line) for line in text.split("\n"))
