"""Which rows go together, and picking them. Rows are picked from one record batch at a time, so that texts of
any length stay within what Arrow's offsets can say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from flightstore.errors import InvalidArgument

__all__ = ["check_columns", "codes_of", "groups_of", "rows_at", "take"]

Rows = np.ndarray[Any, Any]
"""Numbers of rows, ascending."""


def check_columns(schema: pa.Schema, columns: Sequence[str]) -> None:
    """Refuse names that are not one column's.

    Raises:
        InvalidArgument: it is so.
    """
    names = schema.names
    if not columns:
        raise InvalidArgument("name a column at least", hint=f"columns: {', '.join(names[:20])}")
    for name in columns:
        if names.count(name) != 1:
            problem = "two columns are" if name in names else "no column is"
            raise InvalidArgument(f"{problem} called {name!r}", hint=f"columns: {', '.join(names[:20])}")


def codes_of(table: pa.Table, columns: Sequence[str]) -> tuple[Rows, list[tuple[str | None, ...]]]:
    """For each row the number of its combination of values; and what these are, as text (None for null).

    Combinations are numbered in the order in which they first occur.

    Raises:
        InvalidArgument: a column's values have no text.
    """
    check_columns(table.schema, columns)
    combined = np.zeros(table.num_rows, np.int64)
    texts: list[list[str | None]] = []
    for name in columns:
        codes, labels = _encoded(table.column(name), name)
        combined = combined * max(len(labels), 1) + codes
        texts.append(labels)
    found, first, inverse = np.unique(combined, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    values = []
    for code in found[order].tolist():
        parts: list[str | None] = []
        for labels in reversed(texts):
            code, at = divmod(code, len(labels))
            parts.append(labels[at])
        values.append(tuple(parts[::-1]))
    return rank[inverse], values


def groups_of(table: pa.Table, columns: Sequence[str]) -> list[tuple[tuple[str | None, ...], Rows]]:
    """The rows of each combination of values, in the order in which these first occur."""
    codes, values = codes_of(table, columns)
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=len(values)))
    starts = np.concatenate(([0], ends[:-1])) if len(values) else ends
    return [(one, order[start:end]) for one, start, end in zip(values, starts, ends, strict=True)]


def _encoded(column: pa.ChunkedArray, name: str) -> tuple[Rows, list[str | None]]:
    kind = column.type
    try:
        if isinstance(kind, pa.BaseExtensionType):
            column, kind = column.cast(kind.storage_type), kind.storage_type
        if pa.types.is_dictionary(kind):
            column = column.cast(kind.value_type)
        encoded = column.dictionary_encode(null_encoding="encode").unify_dictionaries()
        parts = [chunk.indices.to_numpy(zero_copy_only=False) for chunk in encoded.chunks]
        labels = encoded.chunk(0).dictionary.cast(pa.string()).to_pylist() if encoded.num_chunks else []
    except (pa.ArrowException, NotImplementedError) as error:
        raise InvalidArgument(
            f"the values of column {name!r} ({kind}) are no texts that could be names",
            hint="take a column of text, whole numbers or dates",
        ) from error
    if len(set(labels)) < len(labels):
        raise InvalidArgument(f"two values of column {name!r} ({kind}) have the same text")
    return np.concatenate(parts) if parts else np.zeros(0, np.int64), labels


def _plain(table: pa.Table) -> pa.Table:
    """The table with views of text and bytes written out: Arrow cannot pick rows of them."""
    kinds = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
    if not any(field.type in kinds for field in table.schema):
        return table
    fields = [field.with_type(kinds.get(field.type, field.type)) for field in table.schema]
    return table.cast(pa.schema(fields, table.schema.metadata))


def rows_at(table: pa.Table, rows: Rows) -> pa.Table:
    """Some rows of a table, in order: a slice where they lie together, else a copy of them.

    Raises:
        InvalidArgument: Arrow cannot pick rows of a column's type.
    """
    if len(rows) == 0:
        return table.slice(0, 0)
    first, last = int(rows[0]), int(rows[-1])
    if last - first + 1 == len(rows):
        return table.slice(first, len(rows))
    picked = []
    start = 0
    for batch in table.to_batches():
        low, high = np.searchsorted(rows, [start, start + batch.num_rows])
        if high > low:
            picked += take(batch, rows[low:high] - start)
        start += batch.num_rows
    return pa.Table.from_batches(picked, table.schema)


def take(batch: pa.RecordBatch, rows: Rows) -> list[pa.RecordBatch]:
    """Some rows of a batch, in the order given.

    Raises:
        InvalidArgument: Arrow cannot pick rows of a column's type.
    """
    if not batch.num_columns:
        return [batch.slice(0, len(rows))]
    table = pa.Table.from_batches([batch])
    easy = _plain(table)
    try:
        picked = easy.take(pa.array(rows))
        found: list[pa.RecordBatch] = (picked if easy is table else picked.cast(batch.schema)).to_batches()
        return found
    except (pa.ArrowException, NotImplementedError) as error:
        raise InvalidArgument(
            f"Arrow cannot pick rows of this table: {error}", hint="cut it by rows: by='rows'"
        ) from error
