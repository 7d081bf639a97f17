"""`put --partition`: cutting a table into named parts. Pure: decides and cuts, stores nothing.

Cutting by rows copies nothing: parts are slices. Cutting by value copies each row once, unless the rows of a
value lie together. The column that was cut by stays in the parts, so that each is complete by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from flightstore.errors import InvalidArgument

if TYPE_CHECKING:
    import pyarrow as pa

    _ParamType = click.ParamType["Partitioning"]  # a plain class in older versions of click
else:
    _ParamType = click.ParamType

__all__ = ["MAX_PARTITIONS", "NULL_PARTITION", "PartitionSpec", "Partitioning", "partitions"]

MAX_PARTITIONS = 10_000
"""More parts than this are refused: whoever cuts by an id does not know it yet."""
NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
"""What stands for a missing value in the name of a part."""

_KEPT = "".join(chr(code) for code in range(32, 127) if chr(code) not in "%/=")


@dataclass(frozen=True, slots=True)
class Partitioning:
    """How to cut a table: exactly one of the fields is set."""

    count: int = 0
    """Into so many parts, whose rows differ by one at most."""
    rows: int = 0
    """Into parts of so many rows."""
    by: str = ""
    """By the values of this column, or of several (commas between them)."""


class PartitionSpec(_ParamType):
    """The value of --partition: ``8``, ``rows=100000`` or ``by=COLUMN``."""

    name = "partition"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Partitioning:
        """The text as a Partitioning."""
        if isinstance(value, Partitioning):
            return value
        kind, equals, what = str(value).partition("=")
        if kind == "by" and what:
            return Partitioning(by=what)
        number = what if equals and kind == "rows" else str(value)
        if not number.isascii() or not number.isdigit() or int(number) < 1:
            self.fail(f"{value!r} is none of K, rows=N and by=COLUMN (K and N from 1 on)", param, ctx)
        return Partitioning(rows=int(number)) if equals else Partitioning(count=int(number))


def partitions(table: pa.Table, how: Partitioning, name: str) -> dict[str, pa.Table]:
    """The parts of a table, by the names they get.

    Args:
        table: What to cut.
        how: How.
        name: What their names begin with: ``name/07``, ``name/country=DE``.

    Raises:
        InvalidArgument: there is no such column, its values cannot be names, or there would be too many
            parts.
    """
    if how.by:
        return _by_value(table, _columns(table, how.by), name)
    total = table.num_rows
    if how.rows:
        count = max(-(-total // how.rows), 1)
        bounds = [min(i * how.rows, total) for i in range(count + 1)]
    else:
        count = how.count
        least, longer = divmod(total, count)
        bounds = [i * least + min(i, longer) for i in range(count + 1)]
    _check_count(count, name)
    digits = len(str(count - 1))
    return {
        f"{name}/{i:0{digits}}": table.slice(start, end - start)
        for i, (start, end) in enumerate(pairwise(bounds))
    }


def _check_count(count: int, name: str) -> None:
    if count > MAX_PARTITIONS:
        raise InvalidArgument(
            f"{name} would become {count:,} objects, more than {MAX_PARTITIONS:,}",
            hint="cut it into fewer: a number of parts, more rows to a part, or a column of fewer values",
        )


def _columns(table: pa.Table, text: str) -> list[str]:
    """The columns that ``by=`` names: one, whose name may have commas in it, or several."""
    names = table.column_names
    wanted = [text] if text in names else text.split(",")
    for column in wanted:
        if names.count(column) != 1:
            problem = "two columns are" if column in names else "no column is"
            raise InvalidArgument(
                f"cannot cut by {column!r}: {problem} called so", hint=f"columns: {', '.join(names)}"
            )
    return wanted


def _by_value(table: pa.Table, columns: Sequence[str], name: str) -> dict[str, pa.Table]:
    import numpy as np

    if table.num_rows == 0:
        raise InvalidArgument(
            f"{name} has no rows, hence no values to cut it by", hint="put it without --partition"
        )
    combined = np.zeros(table.num_rows, np.int64)
    texts: list[list[str]] = []
    for column in columns:
        codes, labels = _encoded(table, column)
        combined = combined * len(labels) + codes
        texts.append([f"{_escaped(column)}={label}" for label in labels])
    values, groups, counts = np.unique(combined, return_inverse=True, return_counts=True)
    _check_count(len(values), name)
    order = np.argsort(groups, kind="stable")
    ends = np.cumsum(counts)
    parts: dict[str, pa.Table] = {}
    plain = _without_views(table)
    for value, start, end in zip(values.tolist(), ends - counts, ends, strict=True):
        label = "/".join([name, *_labels(value, texts)])
        if label in parts:
            raise InvalidArgument(
                f"two values of {', '.join(columns)} would both be named {label!r}",
                hint="cut by another column",
            )
        parts[label] = _rows(table, plain, order[start:end])
    return dict(sorted(parts.items()))


def _labels(value: int, texts: Sequence[Sequence[str]]) -> list[str]:
    """The text for each column of a combination of values."""
    labels: list[str] = []
    for choices in reversed(texts):
        value, index = divmod(value, len(choices))
        labels.append(choices[index])
    return labels[::-1]


def _encoded(table: pa.Table, column: str) -> tuple[Any, list[str]]:
    """For each row a number, and what each number stands for as it is written in names."""
    import pyarrow as pa

    values = table.column(column)
    kind = values.type
    try:
        if pa.types.is_dictionary(kind):
            values = values.cast(kind.value_type)
        encoded = values.dictionary_encode(null_encoding="encode").unify_dictionaries().combine_chunks()
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.chunk(0)
        distinct = encoded.dictionary.cast(pa.string()).to_pylist()
    except pa.ArrowException as error:
        raise InvalidArgument(
            f"cannot cut by column {column!r} ({kind}): its values are no texts that could be names",
            hint="cut by a column of text, whole numbers or dates",
        ) from error
    labels = [NULL_PARTITION if text is None else _escaped(text) for text in distinct]
    return encoded.indices.to_numpy(zero_copy_only=False), labels


def _escaped(text: str) -> str:
    """`text` with slashes, equals signs, percent signs and control characters written ``%2F``."""
    return "".join(c if ord(c) > 126 and c.isprintable() else quote(c, safe=_KEPT) for c in text)


def _without_views(table: pa.Table) -> pa.Table:
    """The table with views of text and bytes written out: Arrow cannot pick rows of them."""
    import pyarrow as pa

    plain = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
    if not any(field.type in plain for field in table.schema):
        return table
    fields = [field.with_type(plain.get(field.type, field.type)) for field in table.schema]
    return table.cast(pa.schema(fields, table.schema.metadata))


def _rows(table: pa.Table, plain: pa.Table, indices: Any) -> pa.Table:
    """Some rows of `table`, in order: a slice where they lie together, else picked from `plain`."""
    first, last = int(indices[0]), int(indices[-1])
    if last - first + 1 == len(indices):
        return table.slice(first, len(indices))
    import pyarrow as pa

    try:
        picked = plain.take(pa.array(indices))
        return picked if plain is table else picked.cast(table.schema)
    except pa.ArrowException as error:
        raise InvalidArgument(
            f"Arrow cannot pick rows of this table: {error}",
            hint="cut it by rows, or sort it by the column first",
        ) from error
