"""pandas' own metadata of an Arrow table, for readers that know nothing of flightstore: pyarrow, polars,
Parquet.

Its form: https://pandas.pydata.org/docs/development/developer.html. May call layout and buffers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import pyarrow as pa

from flightstore.connectors._pandas.buffers import NUMPY_TYPES
from flightstore.connectors._pandas.layout import Facts, Layout

__all__ = ["STANDARD_KEY", "pandas_type", "standard_metadata"]

STANDARD_KEY = b"pandas"


def standard_metadata(kinds: list[pa.DataType], layout: Layout) -> bytes:
    """The ``pandas`` entry of the metadata, as readers of Parquet and Arrow files know it."""
    labels = _Labels.of(layout)
    levels = set(layout.levels)
    entries = []
    for position, (name, kind, facts) in enumerate(zip(layout.names, kinds, layout.fields, strict=True)):
        field_name = label = _quoted(name)
        if position in levels:
            label = json.dumps(_name_text(layout.label(position)))
        elif facts is not None or labels.is_multi:
            label = labels.text((facts or {}).get("text", name), layout.label(position))
        entries.append(
            f'{{"name":{label},"field_name":{field_name},{_types(kind, _numpy_name(kind, facts))}}}'
        )
    whole = layout.whole
    attrs = whole.get("attrs")
    rest = {
        "index_columns": _index_columns(layout),
        "column_indexes": labels.indexes,
        "creator": {"library": "flightstore", "version": "1"},
        "pandas_version": whole.get("pandas", ""),
        **({"attributes": attrs} if attrs and '"$' not in json.dumps(attrs) else {}),
    }
    written = json.dumps(rest, separators=(",", ":"))
    return f'{{"columns":[{",".join(entries)}],{written[1:]}'.encode("ascii")


_quoted = json.encoder.encode_basestring_ascii


def _index_columns(layout: Layout) -> list[Any]:
    index = layout.whole["index"]
    if index["kind"] != "range":
        return [layout.names[position] for position in layout.levels]
    start, stop, step = index["range"]
    name = _name_text(index["label"])
    return [{"kind": "range", "name": name, "start": start, "stop": stop, "step": step}]


def _name_text(label: Any) -> str | None:
    """The name of an index as the standard has it."""
    return None if label is None else _plain_text(label) or json.dumps(label)


def _plain_text(label: Any) -> str | None:
    """A literal as text, None where it takes more than JSON to read it."""
    if isinstance(label, dict):
        parts = [_plain_text(part) for part in label["$tuple"]] if list(label) == ["$tuple"] else [None]
        return None if None in parts else str(tuple(parts))
    text = str(label)
    return None if isinstance(label, list) or not _is_unicode(text) else text


def _is_unicode(text: str) -> bool:
    return text.isascii() or text == text.encode("utf-8", "replace").decode("utf-8")


@dataclass(frozen=True, slots=True)
class _Labels:
    """The labels of the columns, as the standard has them."""

    indexes: list[Facts]
    """The ``column_indexes``."""
    is_multi: bool = False
    """Whether labels are tuples, one part for each level."""

    @staticmethod
    def of(layout: Layout) -> _Labels:
        """What is said of the index of the columns, if it still is what it was when it was written."""
        columns = layout.whole.get("columns") or {"kind": "names", "label": None}
        if columns["kind"] == "names":
            return _Labels([_index_entry(columns["label"], *_TEXT)])
        if columns["kind"] == "range":
            is_plain = all(type(layout.label(position)) is int for position in layout.values)
            return _Labels([_index_entry(columns["label"], *(_INTEGER if is_plain else _TEXT))])
        known = frozenset(columns["fields"])
        changed = any(layout.is_new(position, known) for position in layout.values)
        indexes = [
            _index_entry(label, *(_TEXT if changed else types)) for label, *types in columns["indexes"]
        ]
        index = columns["index"]
        return _Labels(indexes, is_multi=index["kind"] == "levels" and index["multi"])

    def text(self, name: str, label: Any) -> str:
        """The label of the column of that name, as JSON."""
        if not self.is_multi:
            return _quoted(name if label is None else _plain_text(label) or name)
        levels = len(self.indexes)
        if isinstance(label, str):  # as pandas makes a tuple of it
            label = {"$tuple": [label, *[""] * (levels - 1)]}
        text = _plain_text(label["$tuple"][0] if levels == 1 else label) if isinstance(label, dict) else None
        return _quoted(name if text is None else text)


_TEXT = ("unicode", "object", {"encoding": "UTF-8"})
_INTEGER = ("int64", "int64", None)


def _index_entry(label: Any, pandas_type: str, numpy_type: str, metadata: Any) -> Facts:
    name = _name_text(label)
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
        return "object" if set("<(") & set(str(kind)) else f"{kind}[pyarrow]"
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
