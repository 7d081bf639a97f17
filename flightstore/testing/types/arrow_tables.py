"""Every way in which an Arrow table may be put together: an entry for each, named like its function.

May call raw and extensions. The values matter little here; arrow_types has the types.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from flightstore.testing.types import raw
from flightstore.testing.types.extensions import UnregisteredType, label

__all__ = ["INEXPRESSIBLE", "LOOKALIKES", "TABLES", "unregistered"]

LONG = "longer than the twelve bytes that a view holds in place "
TABLES: dict[str, Callable[[], Any]] = {}
"""Tables and record batches by what is special about them."""


def entry(make: Callable[[], Any]) -> Callable[[], Any]:
    """Put the function into the table."""
    TABLES[make.__name__.replace("_", " ")] = make
    return make


def orders() -> pa.Table:
    """A few columns of common types."""
    columns = {
        "n": pa.array([1, 2, None, 4, 5], pa.int64()),
        "price": [1.5, None, float("nan"), -0.0, 2.5],
        "city": ["Oslo", None, "", "Rome", LONG],
        "kind": pa.array(["a", "b", "a", None, "b"]).dictionary_encode(),
        "paid": [True, False, None, True, False],
    }
    return pa.table(columns)


# Rows, columns and neither.


@entry
def no_columns_and_no_rows() -> pa.Table:
    return pa.table({})


@entry
def no_columns_but_three_rows() -> pa.Table:
    return pa.table({"a": [1, 2, 3]}).select([])


@entry
def no_columns_but_rows_in_two_batches() -> pa.Table:
    batches = [pa.record_batch({"a": [1] * count}).select([]) for count in (3, 0, 4)]
    return pa.Table.from_batches(batches)


@entry
def no_columns_but_metadata() -> pa.Table:
    return pa.table({"a": [1, 2, 3]}).replace_schema_metadata({"made": "here"}).select([])


@entry
def no_rows() -> pa.Table:
    return orders().slice(0, 0)


@entry
def no_batches() -> pa.Table:
    return pa.Table.from_batches([], orders().schema)


@entry
def empty_batches_only() -> pa.Table:
    return pa.concat_tables([orders().slice(0, 0)] * 3)


@entry
def one_row() -> pa.Table:
    return orders().slice(4)


@entry
def three_hundred_columns() -> pa.Table:
    return pa.table({f"column {i}": pa.array([i, None, -i], pa.int32()) for i in range(300)})


# Names.


@entry
def columns_of_one_name() -> pa.Table:
    return pa.table([pa.array([1, 2]), pa.array(["x", None]), pa.array([1.5, 2.5])], names=["a", "a", "a"])


@entry
def an_empty_column_name() -> pa.Table:
    return pa.table({"": [1, 2], " ": [3, 4]})


@entry
def strange_column_names() -> pa.Table:
    names = ["\N{SNOWMAN}", "a.b", "a/b", "a\nb", "a\0b", "null", "x" * 1000, "{", "ARROW:extension:name"]
    return pa.table([pa.array([i]) for i in range(len(names))], names=names)


# Nullability and metadata.


@entry
def required_fields() -> pa.Table:
    inner = pa.struct([pa.field("x", pa.int8(), nullable=False), pa.field("y", pa.int8())])
    fields = [pa.field("n", pa.int8(), nullable=False), pa.field("s", inner, nullable=False)]
    return pa.table([pa.array([1, 2], pa.int8()), pa.array([{"x": 1}, {"x": 2}], inner)], pa.schema(fields))


@entry
def schema_metadata() -> pa.Table:
    return orders().replace_schema_metadata({"made": "here", "": "", "\N{SNOWMAN}": "\N{SNOWMAN}"})


@entry
def binary_metadata() -> pa.Table:
    field = pa.field("n", pa.int8(), metadata={b"\xff\0": b"\0\xfe", b"": b"x"})
    return pa.table([pa.array([1], pa.int8())], pa.schema([field], {b"\0": bytes(range(256))}))


@entry
def long_metadata() -> pa.Table:
    return orders().replace_schema_metadata({f"key {i}": "value " * 1000 for i in range(50)})


@entry
def empty_metadata() -> pa.Table:
    return pa.table([pa.array([1])], pa.schema([pa.field("n", pa.int64(), metadata={})], {}))


@entry
def metadata_of_nested_fields() -> pa.Table:
    leaf = pa.field("leaf", pa.int8(), nullable=False, metadata={"unit": "kg"})
    item = pa.field("element", pa.struct([leaf]), metadata={"level": "2"})
    by_key = pa.map_(pa.field("key", pa.int8(), nullable=False, metadata={"k": "1"}), leaf.with_name("value"))
    fields = [pa.field("l", pa.list_(item), metadata={"level": "1"}), pa.field("m", by_key)]
    columns = [pa.array([[{"leaf": 1}], []], fields[0].type), pa.array([[(1, 2)], None], by_key)]
    return pa.table(columns, pa.schema(fields))


@entry
def metadata_beside_an_extension() -> pa.Table:
    column = label(pa.array([1, None], pa.int8()))
    return pa.table([column], pa.schema([pa.field("weight", column.type, metadata={"scale": "new"})]))


# Chunks.


@entry
def columns_cut_at_different_rows() -> pa.Table:
    numbers = pa.chunked_array([[1, 2, 3], [], [None, 5]], pa.int8())
    return pa.table({"n": numbers, "s": pa.chunked_array([["a"], ["b", None, "d", "e"]])})


@entry
def two_hundred_chunks() -> pa.Table:
    return pa.concat_tables([orders().slice(i % 5, 1) for i in range(200)])


@entry
def chunks_between_empty_ones() -> pa.Table:
    table = orders()
    empty = table.slice(0, 0)
    return pa.concat_tables([empty, empty, table.slice(0, 2), empty, table.slice(2), empty])


@entry
def chunks_cut_from_larger_ones() -> pa.Table:
    large = pa.table(
        {"n": np.arange(1000), "s": pa.array([f"{LONG}{i}" for i in range(1000)], pa.string_view())}
    )
    return pa.concat_tables([large.slice(10, 3), large.slice(900, 2), large.slice(500, 1)])


@entry
def chunks_with_and_without_a_bitmap() -> pa.Table:
    chunks = [raw.fixed(pa.int8(), [b"\1", b"\2"]), raw.fixed(pa.int8(), [b"\3", b"\4"], [False, True])]
    return pa.table({"n": pa.chunked_array(chunks)})


@entry
def chunks_of_strings_that_do_not_begin_their_data() -> pa.Table:
    chunks = [raw.byte_spans(pa.string(), [b"a", b"bc"], before=b"xx", after=b"y") for _ in range(3)]
    return pa.table({"s": pa.chunked_array(chunks)})


@entry
def chunks_of_booleans_cut_within_bytes() -> pa.Table:
    flags = raw.bools([True, False, False] * 7, [True, True, False] * 7)
    return pa.table({"b": pa.chunked_array([flags.slice(3, 6), flags.slice(1, 9), flags.slice(20)])})


# Dictionaries over chunks.


def encoded(values: Sequence[str | None], indices: list[int], *, ordered: bool = False) -> pa.Array:
    """Strings by a dictionary of their own."""
    kind = pa.dictionary(pa.int8(), pa.string(), ordered)
    return raw.dictionary(kind, indices, pa.array(values, pa.string()))


@entry
def dictionaries_that_are_replaced() -> pa.Table:
    chunks = [encoded(["a", "b"], [0, 1]), encoded(["c"], [0, 0]), encoded(["a", None], [1, 0])]
    return pa.table({"d": pa.chunked_array(chunks)})


@entry
def dictionaries_that_grow() -> pa.Table:
    chunks = [encoded(list("abc")[: i + 1], [i, 0]) for i in range(3)]
    return pa.table({"d": pa.chunked_array(chunks)})


@entry
def dictionaries_that_shrink() -> pa.Table:
    chunks = [encoded(list("abc")[: 3 - i], [0, 2 - i]) for i in range(3)]
    return pa.table({"d": pa.chunked_array(chunks)})


@entry
def ordered_dictionaries_that_are_replaced() -> pa.Table:
    chunks = [encoded(["b", "a"], [0, 1], ordered=True), encoded(["a", "b"], [0, 1], ordered=True)]
    return pa.table({"d": pa.chunked_array(chunks)})


@entry
def dictionaries_that_together_exceed_their_index() -> pa.Table:
    chunks = [encoded([f"{i} {j}" for j in range(100)], [0, 99]) for i in range(3)]
    return pa.table({"d": pa.chunked_array(chunks)})


@entry
def dictionaries_shared_by_chunks_and_columns() -> pa.Table:
    values = pa.array([f"value {i}" for i in range(100)])
    kind = pa.dictionary(pa.int16(), pa.string())
    chunks = [raw.dictionary(kind, [i, 99 - i], values) for i in range(20)]
    return pa.table({"d": pa.chunked_array(chunks), "e": pa.chunked_array(chunks[::-1])})


@entry
def dictionaries_within_lists_that_are_replaced() -> pa.Table:
    items = [encoded(["a", "b"], [0, 1, 1]), encoded(["b", "c"], [0, 1, 0])]
    chunks = [raw.lists(pa.list_(item.type), [0, 1, 3], item) for item in items]
    return pa.table({"d": pa.chunked_array(chunks)})


@entry
def dictionaries_of_dictionaries_within_lists_that_are_replaced() -> pa.Table:
    inner = [encoded(["a", "b"], [0, 1, 1]), encoded(["b", "c"], [0, 1, 0])]
    values = [raw.lists(pa.list_(item.type), [0, 1, 3], item) for item in inner]
    kind = pa.dictionary(pa.int8(), values[0].type)
    chunks = [raw.dictionary(kind, [1, 0, 1], value) for value in values]
    return pa.table({"d": pa.chunked_array(chunks)})


@entry
def dictionaries_in_one_column_of_many_chunks() -> pa.Table:
    table = pa.table({"n": pa.chunked_array([[i] for i in range(6)], pa.int8())})
    return table.append_column(
        "d", pa.chunked_array([encoded(["a", "b"], [0, 1, 0]), encoded(["b"], [0, 0, 0])])
    )


# Memory.


@entry
def a_column_twice() -> pa.Table:
    column = pa.array([1, None, 3])
    return pa.table({"a": column, "b": column, "c": column.slice(0)})


@entry
def more_than_a_page_of_everything() -> pa.Table:
    count = 30_000
    numbers = np.arange(count)
    return pa.table(
        {
            "n": numbers,
            "x": pa.array(numbers / 7, mask=numbers % 3 == 0),
            "s": pa.array([f"text {i}" if i % 5 else None for i in range(count)]),
            "v": pa.array([f"{LONG}{i % 1000}" for i in range(count)], pa.string_view()),
            "d": pa.array([f"value {i % 50}" for i in range(count)]).dictionary_encode(),
            "b": pa.array(numbers % 3 == 0),
        }
    )


@entry
def a_large_table_cut() -> pa.Table:
    return more_than_a_page_of_everything().slice(12_345, 9_999)


@entry
def large_chunks_cut() -> pa.Table:
    table = more_than_a_page_of_everything()
    return pa.concat_tables([table.slice(1, 10_001), table.slice(20_000, 9_000)])


# Record batches.


@entry
def a_batch() -> pa.RecordBatch:
    return orders().to_batches()[0]


@entry
def a_batch_cut() -> pa.RecordBatch:
    return orders().to_batches()[0].slice(1, 3)


@entry
def a_batch_without_rows() -> pa.RecordBatch:
    return orders().to_batches()[0].slice(0, 0)


@entry
def a_batch_without_columns() -> pa.RecordBatch:
    return pa.record_batch({"a": [1, 2, 3]}).select([])


@entry
def a_batch_with_metadata() -> pa.RecordBatch:
    return schema_metadata().to_batches()[0]


# What streams cannot say, or say otherwise.


def unregistered() -> tuple[pa.Table, pa.Table]:
    """A table with columns of a type that nobody registered, and what Arrow's readers make of it."""
    storage = pa.array([1, None, 3], pa.int8())
    kind = UnregisteredType(storage.type, "kg")
    metadata = {b"ARROW:extension:name": kind.NAME.encode(), b"ARROW:extension:metadata": b"kg"}
    item = pa.field("item", storage.type, metadata=metadata)
    column = raw.extension(kind, storage)
    offsets = [0, 1, 1, 3]
    columns = [column, raw.lists(pa.list_(pa.field("item", kind)), offsets, column)]
    plain = [storage, raw.lists(pa.list_(item), offsets, storage)]
    schema = pa.schema([item.with_name("a"), pa.field("b", pa.list_(item))])
    return pa.table(columns, names=["a", "b"]), pa.table(plain, schema)


@entry
def columns_of_a_type_that_nobody_registered() -> pa.Table:
    return unregistered()[1]


def _dictionary_of(values: pa.Array) -> pa.Table:
    kind = pa.dictionary(pa.int8(), values.type)
    return pa.table({"fine": [1, 2], "d": raw.dictionary(kind, [0, 1], values)})


INEXPRESSIBLE: dict[str, Callable[[], pa.Table]] = {
    "dictionary of dictionaries": lambda: _dictionary_of(pa.array(["a", None]).dictionary_encode()),
    "dictionary of uuids": lambda: _dictionary_of(pa.array([b"a" * 16, None], pa.uuid())),
    "dictionary of an extension": lambda: _dictionary_of(label(pa.array([1, None]))),
    "extension over uuids": lambda: pa.table({"fine": [1], "e": label(pa.array([b"a" * 16], pa.uuid()))}),
}
"""Tables that Arrow makes and computes with, and whose types its streams have no words for: they come back
exactly all the same, or they are refused when they are put."""


def _lookalikes(wrap: Callable[[pa.Array], pa.Array]) -> list[pa.Table]:
    """Tables, of one batch and of two, whose schemas differ in a name or in metadata below `wrap`."""
    items = [
        pa.field("a", pa.int8()),
        pa.field("b", pa.int8()),
        pa.field("b", pa.int8(), metadata={"unit": "kg"}),
        pa.field("b", pa.int8(), metadata={"unit": "lb"}),
    ]
    columns = [wrap(pa.array([[1, None], [2]], pa.list_(item))) for item in items]
    chunks = [pa.chunked_array([column] * count) for count in (1, 2) for column in columns]
    return [pa.table({"x": chunk}) for chunk in chunks]


LOOKALIKES: dict[str, Callable[[], list[pa.Table]]] = {
    "below a list": lambda: _lookalikes(
        lambda array: raw.lists(pa.list_(array.type), [0, len(array)], array)
    ),
    "below a dictionary": lambda: _lookalikes(
        lambda array: raw.dictionary(pa.dictionary(pa.int8(), array.type), [1, 0], array)
    ),
    "below an extension": lambda: _lookalikes(label),
    "below Arrow's own extension": lambda: _lookalikes(
        lambda array: raw.extension(pa.opaque(array.type, "type", "vendor"), array)
    ),
}
"""Tables whose schemas Arrow may take for equal, even when it is told to compare metadata, and which are not:
put one after the other they show whether something was remembered that belongs to another."""
