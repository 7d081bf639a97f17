"""`flightstore schema`: the types of an object, and what each part of it takes. Reads no values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from flightstore.cli import exits, pickles
from flightstore.cli.completion import OBJECT
from flightstore.cli.context import (
    common_options,
    open_store,
    parse_ref,
    session_option,
    settings,
)
from flightstore.cli.output import human_bytes, human_count, print_json, print_pairs, print_table
from flightstore.cli.values import shortened

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["schema"]

_TYPE_CHARACTERS = 60
_METADATA_CHARACTERS = 200


@click.command(
    epilog="""\b
Examples:
    flightstore schema orders
    flightstore schema orders --json | jq -r '.columns[].name'
    flightstore schema weights"""
)
@click.argument("ref", type=OBJECT)
@session_option
@common_options
def schema(ref: str) -> int:
    """Show a table's columns with their types, bytes, nulls and metadata; an array's dtype and shape."""
    with open_store() as store, store.get(parse_ref(ref)) as obj:
        document = _document(obj)
        if settings().json:
            print_json(document)
        else:
            _show(document)
    return exits.OK


def _document(obj: Any) -> dict[str, Any]:
    """What is known of an object's types, as JSON has it."""
    document: dict[str, Any] = {"id": str(obj.id), "name": obj.name, "kind": obj.kind, "bytes": obj.nbytes}
    if obj.kind == "table":
        table = obj.to_arrow()
        document |= {"rows": obj.num_rows, "chunks": _chunks(table)}
        document["columns"] = [
            _column(field, table.column(index)) for index, field in enumerate(table.schema)
        ]
        document["metadata"] = _decoded(table.schema.metadata)
    elif obj.kind == "tensor":
        dtype = obj.dtype
        document |= {"dtype": str(dtype), "shape": list(obj.shape), "order": obj.order}
        document |= {"strides": list(obj.strides), "item_bytes": dtype.itemsize}
    elif obj.kind == "object":
        found = pickles.outline(obj)
        document |= {"pickle_bytes": found.pickle_bytes, "buffers": found.buffers}
        document |= {"imports": list(found.names), "complete": found.complete}
    return document


def _chunks(table: pa.Table) -> int:
    """Pieces of the column that has most of them."""
    return max((column.num_chunks for column in table.columns), default=0)


def _column(field: pa.Field, column: pa.ChunkedArray) -> dict[str, Any]:
    return {
        **_field(field),
        "bytes": column.nbytes,
        "nulls": column.null_count,
        "chunks": column.num_chunks,
        "dictionary_values": _dictionary_values(column),
    }


def _field(field: pa.Field) -> dict[str, Any]:
    """A column or a part of one; parts of nested types one below the other."""
    return {
        "name": field.name,
        "type": str(field.type),
        "nullable": field.nullable,
        "metadata": _decoded(field.metadata),
        "fields": [_field(part) for part in _parts(field.type)],
    }


def _parts(kind: Any) -> Iterator[pa.Field]:
    import pyarrow as pa

    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pa.types.is_map(kind):
        yield from (kind.key_field, kind.item_field)
    elif pa.types.is_nested(kind):
        yield from (kind.field(index) for index in range(kind.num_fields))


def _dictionary_values(column: pa.ChunkedArray) -> list[int] | None:
    """How many values the dictionary of each chunk has; None where there is no dictionary."""
    import pyarrow as pa

    if not pa.types.is_dictionary(column.type):
        return None
    return [len(chunk.dictionary) for chunk in column.chunks]


def _decoded(metadata: dict[bytes, bytes] | None) -> dict[str, str]:
    """Metadata as text; what is no text is written ``hex:...``."""
    return {_text(key): _text(value) for key, value in (metadata or {}).items()}


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return f"hex:{raw.hex()}"


# --- for people ---


def _show(document: dict[str, Any]) -> None:
    pairs = {label: document[label] for label in ("name", "id", "kind")}
    pairs["size"] = f"{human_bytes(document['bytes'])} ({document['bytes']:,} bytes)"
    for label in ("rows", "chunks"):
        pairs[label] = human_count(document.get(label))
    if document["kind"] == "tensor":
        pairs |= {"dtype": document["dtype"], "shape": str(tuple(document["shape"]))}
        pairs |= {"order": document["order"], "strides": str(tuple(document["strides"]))}
    elif document["kind"] == "object":
        pairs |= {"pickle": human_bytes(document["pickle_bytes"]), "buffers": str(document["buffers"])}
        pairs["imports"] = shortened(", ".join(document["imports"]), _METADATA_CHARACTERS)
    print_pairs({label: value for label, value in pairs.items() if value})
    if document["kind"] == "table":
        _show_columns(document["columns"])
        _show_metadata("metadata", document["metadata"])
        for column in document["columns"]:
            _show_metadata(f"metadata of {column['name']}", column["metadata"])


def _show_columns(columns: Sequence[dict[str, Any]]) -> None:
    if not columns:
        return
    click.echo()
    headings = ["column", "type", "nullable", "size", "nulls", "chunks"]
    with_dictionaries = any(column["dictionary_values"] is not None for column in columns)
    if with_dictionaries:
        headings.append("dictionary")
    rows = [row[: len(headings)] for column in columns for row in _rows(column)]
    print_table(headings, rows, right=frozenset({"size", "nulls", "chunks", "dictionary"}))


def _rows(column: dict[str, Any], depth: int = 0) -> Iterator[list[str]]:
    """The lines of a column: its own, and below it those of its parts."""
    figures = ["", "", "", ""]
    if not depth:
        values = column["dictionary_values"]
        figures = [human_bytes(column["bytes"]), human_count(column["nulls"]), human_count(column["chunks"])]
        figures.append("" if values is None else _dictionary_text(values))
    yield [
        "  " * depth + column["name"],
        shortened(column["type"], _TYPE_CHARACTERS),
        "yes" if column["nullable"] else "",
        *figures,
    ]
    for part in column["fields"]:
        yield from _rows(part, depth + 1)


def _dictionary_text(values: Sequence[int]) -> str:
    if not values:
        return "0"
    least, most = min(values), max(values)
    return f"{most:,}" if least == most else f"{least:,} to {most:,}"


def _show_metadata(heading: str, metadata: dict[str, str]) -> None:
    if not metadata:
        return
    click.echo()
    print_pairs({heading: ""})
    for key, value in metadata.items():
        text = shortened(value, _METADATA_CHARACTERS)
        more = f" ({len(value):,} characters)" if text != value else ""
        print_pairs({f"  {shortened(key, _METADATA_CHARACTERS)}": text + more})
