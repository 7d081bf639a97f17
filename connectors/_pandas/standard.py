"""pandas' own metadata of an Arrow table, for readers that know nothing of flightstore: pyarrow, polars, Parquet.

Its form: https://pandas.pydata.org/docs/development/developer.html. May call layout and buffers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import pyarrow as pa

from flightstore.connectors._pandas.buffers import NUMPY_TYPES
from flightstore.connectors._pandas.layout import Facts, Layout, is_new, label_of

__all__ = ["STANDARD_KEY", "pandas_type", "standard_metadata"]

STANDARD_KEY = b"pandas"


def standard_metadata(schema: pa.Schema, layout: Layout, rows: int) -> bytes:
    """The ``pandas`` entry of the metadata, as readers of Parquet and Arrow files know it."""
    whole = layout.whole
    described = _describe_columns(schema, layout)
    levels = set(layout.levels)
    entries = []
    for position, (field, facts) in enumerate(zip(schema, layout.fields, strict=True)):
        name = field.name
        label = None if facts is None else facts.get("label", name)
        text = _quoted(name) if facts is None or label == name else _text(label, name, position in levels)
        if described.pads and position not in levels and is_new(name, facts, described.known):
            text = _quoted(str((name, *[""] * described.pads)))
        entries.append(
            f'{{"name":{text},"field_name":{_quoted(name)},{_types(field.type, _numpy_name(field.type, facts))}}}'
        )
    names = [schema.field(position).name for position in layout.levels]
    index = whole["index"]
    if index["kind"] == "range":
        start, stop, step = index["range"]
        label = json.loads(_text(index["label"], "", True))
        names = [{"kind": "range", "name": label, "start": start, "stop": stop, "step": step}]
    attrs = whole.get("attrs")
    rest = {
        "index_columns": names,
        "column_indexes": described.indexes,
        "creator": {"library": "flightstore", "version": "1"},
        "pandas_version": whole.get("pandas", ""),
        **({"attributes": attrs} if attrs and '"$' not in json.dumps(attrs) else {}),
    }
    return (
        b'{"columns":['
        + ",".join(entries).encode("ascii")
        + b"],"
        + json.dumps(rest, separators=(",", ":")).encode("ascii")[1:]
    )


_quoted = json.encoder.encode_basestring_ascii


def _text(label: Any, name: str, is_level: bool) -> str:
    """A label as the standard has it: a text, as JSON."""
    if label is None and is_level:
        return "null"
    text = _plain_text(label)
    return _quoted(name if text is None else text)


def _plain_text(label: Any) -> str | None:
    if isinstance(label, dict):
        parts = [_plain_text(part) for part in label["$tuple"]] if list(label) == ["$tuple"] else [None]
        return None if None in parts else str(tuple(parts))
    return None if isinstance(label, list) else str(label)


@dataclass(frozen=True, slots=True)
class _Columns:
    """The index of the columns, as the standard has it."""

    indexes: list[Facts]
    known: frozenset[str]
    """Names of the fields that it was made for."""
    pads: int = 0
    """How many empty parts a new label gets: one for each level below the first."""


def _describe_columns(schema: pa.Schema, layout: Layout) -> _Columns:
    """The ``column_indexes``, and which columns they do not know."""
    columns = layout.whole.get("columns", {"kind": "names", "dtype": "object", "label": None})
    kind = columns["kind"]
    if kind == "names":
        return _Columns([_index_entry(columns["label"], "unicode", columns["dtype"])], frozenset())
    fields = {position: schema.field(position).name for position in layout.values}
    known = frozenset(columns.get("fields", ()))
    if kind == "range":
        plain = all(_islabel_of(name, layout.fields[at], int) for at, name in fields.items())
        entry = ("int64", "int64") if plain else ("unicode", "object")
        return _Columns([_index_entry(columns["label"], *entry)], known)
    levels = columns["indexes"]
    if len(levels) > 1:
        return _Columns([_index_entry(*level) for level in levels], known, len(levels) - 1)
    changed = any(is_new(name, layout.fields[at], known) for at, name in fields.items())
    label, *types = levels[0]
    return _Columns([_index_entry(label, *(("unicode", "object") if changed else types))], known)


def _islabel_of(name: str, facts: Facts | None, kind: type) -> bool:
    return type(label_of(name, facts)) is kind


def _index_entry(label: Any, pandas_type: str, numpy_type: Any) -> Facts:
    name = json.loads(_text(label, "", True))
    metadata = {"encoding": "UTF-8"} if pandas_type == "unicode" else None
    numpy_type = numpy_type if isinstance(numpy_type, str) else "str"
    return {
        "name": name,
        "field_name": name,
        "pandas_type": pandas_type,
        "numpy_type": numpy_type,
        "metadata": metadata,
    }


@cache
def _types(kind: pa.DataType, numpy_name: str) -> str:
    """The types of one column, as the end of its JSON entry."""
    timezone = getattr(kind, "tz", None) if pa.types.is_timestamp(kind) else None
    metadata = json.dumps({"timezone": timezone} if timezone else None)
    return (
        f'"pandas_type":{_quoted(pandas_type(kind))},"numpy_type":{_quoted(numpy_name)},"metadata":{metadata}'
    )


def pandas_type(kind: pa.DataType) -> str:
    """What the standard calls an Arrow type."""
    if pa.types.is_timestamp(kind):
        return "datetimetz" if kind.tz else "datetime"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "unicode"
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return "bytes"
    tests = {
        "categorical": pa.types.is_dictionary,
        "decimal": pa.types.is_decimal,
        "date": pa.types.is_date,
        "timedelta": pa.types.is_duration,
        "time": pa.types.is_time,
        "empty": pa.types.is_null,
    }
    found = next((name for name, test in tests.items() if test(kind)), None)
    return found or {pa.float64(): "float64", pa.float32(): "float32", pa.float16(): "float16"}.get(
        kind, str(kind)
    )


def _numpy_name(kind: pa.DataType, facts: Facts | None) -> str:
    """The name of the dtype in pandas, which readers give to extension dtypes to restore."""
    if facts is None or "dtype" not in facts:
        return _default_name(kind)
    dtype: str = facts["dtype"]
    if dtype == "string":
        return "str" if facts["na"] == "nan" else "string"
    if dtype == "arrow":
        return f"{kind}[pyarrow]"
    if dtype == "period":
        return f"period[{facts['freq']}]"
    if dtype in ("extension", "interval", "numpy", "sparse", "level"):
        return "object"
    return _default_name(kind) if dtype == "datetimetz" else dtype


@cache
def _default_name(kind: pa.DataType) -> str:
    if kind in NUMPY_TYPES:
        return str(NUMPY_TYPES[kind])
    if pa.types.is_timestamp(kind):
        return f"datetime64[{kind.unit}, {kind.tz}]"
    return "bool" if pa.types.is_boolean(kind) else "category" if pa.types.is_dictionary(kind) else "object"
