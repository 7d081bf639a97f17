"""polars: a frame or series of every dtype, generated ones, and exact equality.

Imports polars. The strategies need hypothesis, which is imported when one is asked for.
"""

from __future__ import annotations

import datetime
import math
import struct
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = ["CATALOGUE", "assert_same_frame", "frames", "series"]

FRUIT = pl.Categories("flightstore-fruit", "tests", pl.UInt8)
VEGETABLES = pl.Categories("flightstore-vegetables", physical=pl.UInt16)
COLOURS = pl.Enum(["red", "green", "a colour with a long name; and 5;signs", "\N{SNOWMAN}"])
NOON = datetime.datetime(2024, 2, 29, 12, 30, 0, 123456)
NAN, INF = math.nan, math.inf


# --- the catalogue ---


def _of(dtype: Any, *values: Any) -> Callable[[], pl.Series]:
    return lambda: pl.Series("c", [*values, None], dtype=dtype, strict=False)


_INTEGERS = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.Int128, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64)

_FLAT: dict[str, Callable[[], pl.Series]] = {
    **{f"{dtype}": _of(dtype, 0, 1, 127) for dtype in _INTEGERS},
    "Int128, wide": _of(pl.Int128, -(2**127), 2**127 - 1, 10**38, -1),
    "UInt128": _of(pl.UInt128, 0, 2**128 - 1, 2**127),
    "Float16": _of(pl.Float16, 1.5, NAN, INF, -0.0),
    "Float32": _of(pl.Float32, 1.5, NAN, -INF, -0.0),
    "Float64": _of(pl.Float64, 1.5, NAN, INF, -0.0),
    "Decimal": _of(pl.Decimal(10, 2), Decimal("1.25"), Decimal("-99999999.99")),
    "Decimal, widest": _of(pl.Decimal(38, 38), Decimal("0." + "9" * 38), Decimal("-0." + "0" * 37 + "1")),
    "Boolean": _of(pl.Boolean, True, False, True),
    "String": _of(pl.String, "", "short", "a text that is too long to lie in its view", "\N{SNOWMAN}\0"),
    "Binary": _of(pl.Binary, b"", b"\0\xff", bytes(range(200))),
    "Date": _of(pl.Date, NOON.date(), datetime.date(1, 1, 1)),
    "Time": _of(pl.Time, NOON.time(), datetime.time(0), datetime.time(23, 59, 59, 999999)),
    **{f"Datetime {unit}": _of(pl.Datetime(unit), NOON) for unit in ("ms", "us", "ns")},
    **{f"Duration {unit}": _of(pl.Duration(unit), datetime.timedelta(-1, 7)) for unit in ("ms", "us", "ns")},
    "Datetime, UTC": _of(pl.Datetime("us", "UTC"), NOON),
    "Datetime, zone": lambda: (
        pl.Series("c", [1, None, -1]).cast(pl.Datetime("ns")).dt.replace_time_zone("Europe/Berlin")
    ),
    "Categorical": _of(pl.Categorical(), "b", "a", "b", "a category with a long name"),
    "Categorical, named": _of(pl.Categorical(FRUIT), "pear", "apple", "pear"),
    "Categorical, 16 bits": _of(pl.Categorical(VEGETABLES), *(f"v{i}" for i in range(300))),
    "Enum": _of(COLOURS, "green", "red", "\N{SNOWMAN}"),
    "Enum, large": _of(pl.Enum([str(i) for i in range(300)]), "299", "0"),
    "Enum, empty": _of(pl.Enum([])),
    "Null": _of(pl.Null, None),
    "Object": lambda: pl.Series("c", [{1, 2}, None, "text", 3.5], dtype=pl.Object),
    "Extension": lambda: pl.Series("c", [1, None]).ext.to(pl.Extension("tests.metres", pl.Int64, "m")),
}

_NESTED: dict[str, Callable[[], pl.Series]] = {
    "List": _of(pl.List(pl.Int32), [1, None], [], [3]),
    "List of lists": _of(pl.List(pl.List(pl.String)), [["a", None], []], [None], []),
    "List of Categorical": _of(pl.List(pl.Categorical(FRUIT)), ["pear", None, "fig"], []),
    "List of Int128": _of(pl.List(pl.Int128), [2**100, None], []),
    "List of Decimal": _of(pl.List(pl.Decimal(10, 1)), [Decimal("1.5"), None], []),
    "List of Null": _of(pl.List(pl.Null), [None, None], []),
    "Array": _of(pl.Array(pl.Float32, 2), [1.5, NAN], [None, -0.0]),
    "Array, two dimensions": _of(pl.Array(pl.Int8, (2, 3)), [[1, 2, 3], [4, None, 6]]),
    "Array of Enum": _of(pl.Array(COLOURS, 2), ["red", None], ["green", "red"]),
    "Array of width 0": _of(pl.Array(pl.Int32, 0), [], []),
    "Struct": _of(pl.Struct({"a": pl.Int64, "b": pl.String}), {"a": 1, "b": None}, {"a": None, "b": "x"}),
    "Struct, empty": _of(pl.Struct({}), {}, {}),
    "Struct of everything": _of(
        pl.Struct({"e": COLOURS, "t": pl.Time, "u": pl.UInt128, "l": pl.List(pl.Struct({"d": pl.Date}))}),
        {"e": "green", "t": NOON.time(), "u": 2**127, "l": [{"d": NOON.date()}, None]},
    ),
    "Map": _of(pl.Map(pl.String, pl.Int64), {"x": 1, "y": None}, {}),
    "Map of lists": _of(pl.Map(pl.Int8, pl.List(pl.Categorical(FRUIT))), {1: ["fig"], 2: None}, {}),
    "Extension of lists": lambda: pl.Series("c", [[1], None]).ext.to(
        pl.Extension("tests.path", pl.List(pl.Int64))
    ),
}


def _numbers(rows: int) -> pl.DataFrame:
    return pl.DataFrame({"n": range(rows), "s": [f"the text of the row {i}" for i in range(rows)]})


def _chunked(*frames: pl.DataFrame) -> pl.DataFrame:
    return pl.concat(frames, rechunk=False)


def _uneven() -> pl.DataFrame:
    """Columns that are cut at different rows."""
    return pl.DataFrame([_numbers(5)["n"], _chunked(_numbers(2), _numbers(3))["s"]])


def _wide(rows: int) -> pl.DataFrame:
    return pl.DataFrame({name: make()[:1].new_from_index(0, rows) for name, make in _FLAT.items()})


_FRAMES: dict[str, Callable[[], pl.DataFrame]] = {
    "frame": lambda: _numbers(3),
    "frame of every flat dtype": lambda: _wide(3),
    "frame of every flat dtype, no rows": lambda: _wide(3).clear(),
    "frame without columns": pl.DataFrame,
    "frame without columns, of three rows": lambda: _numbers(3).drop("n", "s"),
    "frame, sliced": lambda: _numbers(100)[7:12],
    "frame, filtered": lambda: _numbers(100).filter(pl.col("n") % 3 == 1),
    "frame, chunks": lambda: _chunked(_numbers(2), _numbers(3).clear(), _numbers(3)),
    "frame, chunks at different rows": _uneven,
    "frame, chunks of categories": lambda: _chunked(
        *(pl.DataFrame({"c": pl.Series(text, dtype=pl.Categorical)}) for text in (["b", "a"], ["c", "a"]))
    ),
    "frame, odd names": lambda: pl.DataFrame({"": [1], "column_0": [2], "a\0b": [3], "\N{SNOWMAN}": [4]}),
    "frame, names that are patterns": lambda: pl.DataFrame(
        {
            "*": pl.Series([1], dtype=pl.Int128),
            "^a+$": pl.Series(["x"], dtype=pl.Categorical()),
            "^b+$": pl.Series(["red"], dtype=COLOURS),
            "^c+$": pl.Series([[]], dtype=pl.Array(pl.Int8, 0)),
            "a": [3],
        }
    ),
    "frame, sorted": lambda: _numbers(5).sort("n", descending=True),
    "frame, gathered backwards": lambda: _numbers(5).reverse(),
}


def _series_of(make: Callable[[], pl.Series]) -> dict[str, Callable[[], pl.Series]]:
    return {
        "": make,
        ", no rows": lambda: make().clear(),
        ", sliced": lambda: make()[1:],
        ", chunks": lambda: pl.concat([make(), make()[:1], make()], rechunk=False),
    }


CATALOGUE: dict[str, Callable[[], Any]] = {
    **{
        f"{name}{how}": of for name, make in (_FLAT | _NESTED).items() for how, of in _series_of(make).items()
    },
    "a series without a name": lambda: pl.Series("", [1, 2]),
    **_FRAMES,
}
"""Makers of frames and series by name: every dtype and what can be nested, without rows, sliced, in chunks.

Those with columns of dtype Object need pickle."""


# --- generated ---


def series(**options: Any) -> SearchStrategy[pl.Series]:
    """Series of any dtype, nested ones too, with nulls, NaN and several chunks; not of Python objects.

    Args:
        options: Handed to ``polars.testing.parametric.series``.
    """
    from hypothesis import reject
    from hypothesis import strategies as st
    from polars.testing import parametric

    @st.composite
    def made(draw: Any) -> pl.Series:
        dtype = draw(_dtypes())
        try:
            found: pl.Series = draw(parametric.series(dtype=dtype, max_size=8, **options))
        except (TypeError, pl.exceptions.PolarsError, pl.exceptions.PanicException):
            reject()  # polars makes no series of some nested values
        return found

    return made()


def frames() -> SearchStrategy[pl.DataFrame]:
    """Frames of up to four such columns, cut in chunks at different rows."""
    from hypothesis import strategies as st

    names = st.lists(st.text(max_size=5), max_size=4, unique=True)
    sizes = st.integers(0, 8)

    def of(names: list[str], rows: int) -> SearchStrategy[pl.DataFrame]:
        columns = [series(name=name, min_size=rows) for name in names]
        return st.tuples(*columns).map(lambda made: _frame([one[:rows] for one in made]))

    return st.tuples(names, sizes).flatmap(lambda drawn: of(*drawn))


def _frame(columns: list[pl.Series]) -> pl.DataFrame:
    names = [column.name for column in columns]
    frame = pl.DataFrame([column.alias(f"{i}") for i, column in enumerate(columns)])
    frame.columns = names
    return frame


def _dtypes() -> SearchStrategy[pl.DataType]:
    from hypothesis import strategies as st
    from polars.testing import parametric

    named = st.sampled_from([pl.Categorical(FRUIT), pl.Categorical(VEGETABLES), COLOURS])
    flat = st.one_of(parametric.dtypes(nesting_level=0), named)
    keys = st.sampled_from([pl.String(), pl.Int64(), pl.Boolean(), pl.Date(), pl.Categorical(FRUIT)])
    names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=3)
    fields = st.lists(names, min_size=1, max_size=3, unique=True)

    def nested(inner: SearchStrategy[pl.DataType]) -> SearchStrategy[pl.DataType]:
        return st.one_of(
            inner.map(pl.List),
            st.builds(pl.Array, inner, st.integers(1, 3)),
            st.builds(pl.Map, keys, inner),
            fields.flatmap(lambda names: st.fixed_dictionaries(dict.fromkeys(names, inner))).map(pl.Struct),
        )

    return st.recursive(flat, nested, max_leaves=4)


# --- equality ---


def assert_same_frame(expected: Any, actual: Any, *, what: str = "") -> None:
    """Fail unless `actual` is exactly what `expected` is: type, names, dtypes, nulls, every value bit by bit.

    dtypes with all they hold: time zones, categories of an Enum, name, namespace and physical type of a
    Categorical. Not part of it: chunks, the codes a process gives to the categories of a Categorical, what
    lies in null slots, flags that a column is sorted.

    Args:
        expected: The frame or series as it should be.
        actual: The value as it is.
        what: What the message calls it.

    Raises:
        AssertionError: it is not; names the column.
    """
    said = what or f"the {type(expected).__name__}"
    assert type(actual) is type(expected), f"{said}: {type(actual)} instead of {type(expected)}"
    if isinstance(expected, pl.Series):
        assert actual.name == expected.name, f"{said}: name {actual.name!r} instead of {expected.name!r}"
        _assert_same_series(expected, actual, said)
        return
    assert actual.columns == expected.columns, f"{said}: columns {actual.columns}"
    assert actual.shape == expected.shape, f"{said}: shape {actual.shape} instead of {expected.shape}"
    for one, other in zip(expected.iter_columns(), actual.iter_columns(), strict=True):
        _assert_same_series(one, other, f"{said}, column {one.name!r}")


def _assert_same_series(expected: pl.Series, actual: pl.Series, what: str) -> None:
    expected, actual = expected.alias(""), actual.alias("")  # polars takes some names for patterns
    assert repr(actual.dtype) == repr(expected.dtype), f"{what}: {actual.dtype} is not {expected.dtype}"
    assert actual.dtype == expected.dtype, f"{what}: {actual.dtype} is not {expected.dtype}"
    assert len(actual) == len(expected), f"{what}: {len(actual)} rows instead of {len(expected)}"
    nulls = expected.is_null().to_list()
    assert actual.is_null().to_list() == nulls, f"{what}: null at other rows"
    _assert_same_values(expected, actual, what)


def _assert_same_values(expected: pl.Series, actual: pl.Series, what: str) -> None:
    dtype = expected.dtype
    if isinstance(dtype, pl.Struct):
        filled = expected.is_not_null()
        fields, others = (one.filter(filled).struct.unnest().get_columns() for one in (expected, actual))
        for one, other in zip(fields, others, strict=True):
            assert one.name == other.name, f"{what}: field {other.name!r} instead of {one.name!r}"
            _assert_same_series(one, other, f"{what}, field {one.name!r}")
    elif isinstance(dtype, pl.Map):
        entries = pl.List(pl.Struct({"key": dtype.key, "value": dtype.value}))
        _assert_same_values(expected.cast(entries), actual.cast(entries), what)
    elif isinstance(dtype, pl.List | pl.Array):
        _assert_same_lists(expected, actual, what)
    elif isinstance(dtype, pl.BaseExtension):
        _assert_same_series(expected.ext.storage(), actual.ext.storage(), what)
    else:
        values, others = _plain(expected), _plain(actual)
        assert others == values, f"{what}: {others} instead of {values}"


def _assert_same_lists(expected: pl.Series, actual: pl.Series, what: str) -> None:
    lengths, others = (_lengths(one) for one in (expected, actual))
    assert others == lengths, f"{what}: lengths {others} instead of {lengths}"
    if any(lengths):
        filled = pl.Series([bool(length) for length in lengths])
        _assert_same_series(expected.filter(filled).explode(), actual.filter(filled).explode(), f"{what}[]")


def _lengths(values: pl.Series) -> list[int | None]:
    if isinstance(values.dtype, pl.Array):
        return [None if null else values.dtype.size for null in values.is_null()]
    return list(values.list.len())


def _plain(values: pl.Series) -> list[Any]:
    """Values that are equal if and only if they are the same."""
    if values.dtype.is_float():
        return [None if value is None else struct.pack("d", value) for value in values.to_list()]
    if isinstance(values.dtype, pl.Categorical | pl.Enum):
        values = values.cast(pl.String)
    return list(values if values.dtype == pl.Object else values.to_physical())
