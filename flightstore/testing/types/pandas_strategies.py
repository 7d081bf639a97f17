"""Hypothesis strategies for pandas objects: any mixture of dtypes, indexes, labels and missing values."""

from __future__ import annotations

import datetime
import zoneinfo
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from hypothesis import strategies as st

__all__ = ["frames", "indexes", "series"]

MAX_ROWS = 12
ZONES: tuple[Any, ...] = (
    "UTC",
    "Europe/Berlin",
    "America/St_Johns",
    datetime.timezone(datetime.timedelta(hours=-3)),
)
FREQUENCIES = ("D", "-1D", "h", "ME", "B", "W-WED", "15min", "QS-FEB", "YE")
DAYS = st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2100, 1, 1))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    TEXT,
    st.binary(max_size=4),
    st.dates(),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.just(pd.NA),
    st.just(pd.NaT),
)
LABELS = st.one_of(
    TEXT, st.integers(-5, 5), st.none(), st.tuples(TEXT, st.integers(0, 3)), st.dates(), st.booleans()
)


def _numbers(rows: int) -> st.SearchStrategy[Any]:
    """NumPy's numbers, booleans and times of any bytes."""
    names = ["bool", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"]
    names += [f"{kind}8[{unit}]" for kind in "Mm" for unit in ("s", "ms", "us", "ns")]

    def made(name: str, data: bytes) -> Any:
        dtype = np.dtype(name)
        values = np.frombuffer(data[: rows * dtype.itemsize], np.uint8)
        return (values & 1)[:rows].astype(bool) if name == "bool" else values.copy().view(dtype)

    def drawn(name: str) -> st.SearchStrategy[Any]:
        size = rows * np.dtype(name).itemsize
        if name.startswith("M"):  # pandas keeps no times beyond its own bounds
            ticks = st.lists(st.integers(-(2**31), 2**31), min_size=rows, max_size=rows)
            return ticks.map(lambda items: np.array(items, "i8").view(name))
        return st.binary(min_size=size, max_size=size).map(lambda data: made(name, data))

    return st.sampled_from(names).flatmap(drawn)


def _nullable(rows: int) -> st.SearchStrategy[Any]:
    def drawn(name: str) -> st.SearchStrategy[Any]:
        values: st.SearchStrategy[Any] = st.booleans() if name == "boolean" else st.integers(0, 100)
        items = st.lists(st.none() | values, min_size=rows, max_size=rows)
        return items.map(lambda found: pd.array(found, dtype=name))

    return st.sampled_from(["Int8", "UInt16", "Int32", "UInt64", "Float32", "Float64", "boolean"]).flatmap(
        drawn
    )


def _strings(rows: int) -> st.SearchStrategy[Any]:
    dtypes = [
        pd.StringDtype(storage, na_value=na) for storage in ("python", "pyarrow") for na in (np.nan, pd.NA)
    ]
    items = st.lists(st.none() | TEXT, min_size=rows, max_size=rows)
    return st.builds(lambda found, dtype: pd.array(found, dtype=dtype), items, st.sampled_from(dtypes))


def _objects(rows: int) -> st.SearchStrategy[Any]:
    one_type = st.sampled_from(
        [
            TEXT,
            st.binary(max_size=3),
            st.integers(-(2**63), 2**63 - 1),
            st.dates(),
            st.booleans(),
            st.floats(),
            st.decimals(-1000, 1000, places=2),
            st.datetimes(),
            st.times(),
            st.timedeltas(),
            st.lists(st.integers(0, 9), max_size=2),
            st.fixed_dictionaries({"a": st.integers(0, 9), "b": TEXT}),
        ]
    )
    missing = st.sampled_from([None, float("nan"), pd.NA])
    plain = st.tuples(one_type, missing).flatmap(
        lambda pair: st.lists(pair[0] | st.just(pair[1]), min_size=rows, max_size=rows)
    )
    items = plain | st.lists(SCALARS, min_size=rows, max_size=rows)
    return items.map(lambda found: np.fromiter(found, dtype=object, count=rows))


def _categoricals(rows: int) -> st.SearchStrategy[Any]:
    categories = st.one_of(
        st.lists(TEXT, unique=True, max_size=4),
        st.lists(st.integers(), unique=True, max_size=4).filter(
            lambda items: all(abs(i) < 2**63 for i in items)
        ),
        st.lists(DAYS, unique=True, max_size=4).map(pd.DatetimeIndex),
    )

    def drawn(known: Any) -> st.SearchStrategy[Any]:
        codes = st.lists(st.integers(-1, len(known) - 1), min_size=rows, max_size=rows)
        return st.builds(
            lambda found, ordered: pd.Categorical.from_codes(found, categories=known, ordered=ordered),
            codes,
            st.booleans(),
        )

    return categories.flatmap(drawn)


def _times(rows: int) -> st.SearchStrategy[Any]:
    days = st.lists(st.none() | DAYS, min_size=rows, max_size=rows).map(pd.DatetimeIndex)
    zoned = st.builds(
        lambda found, zone: found.tz_localize("UTC").tz_convert(zone), days, st.sampled_from(ZONES)
    )
    periods = st.builds(
        lambda found, freq: found.to_period(freq), days, st.sampled_from(["D", "M", "Y", "h"])
    )
    return (zoned | periods).map(lambda index: index.array)


def _arrow(rows: int) -> st.SearchStrategy[Any]:
    kinds = st.sampled_from(
        [
            (pa.int16(), st.integers(-9, 9)),
            (pa.string(), TEXT),
            (pa.list_(pa.int8()), st.lists(st.integers(0, 9))),
            (pa.decimal128(9, 2), st.decimals(-99, 99, places=2)),
            (pa.timestamp("us"), DAYS),
            (pa.bool_(), st.booleans()),
        ]
    )

    def drawn(kind: tuple[pa.DataType, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
        items = st.lists(st.none() | kind[1], min_size=rows, max_size=rows)
        return items.map(lambda found: pd.arrays.ArrowExtensionArray(pa.array(found, kind[0])))

    return kinds.flatmap(drawn)


def _sparse(rows: int) -> st.SearchStrategy[Any]:
    items = st.lists(st.sampled_from([0.0, 1.5, float("nan")]), min_size=rows, max_size=rows)
    fills = st.sampled_from([0.0, float("nan"), 1.5])
    return st.builds(
        lambda found, fill, kind: pd.arrays.SparseArray(np.array(found, "f8"), fill_value=fill, kind=kind),
        items,
        fills,
        st.sampled_from(["integer", "block"]),
    )


def _intervals(rows: int) -> st.SearchStrategy[Any]:
    starts = st.lists(st.floats(-100, 100) | st.none(), min_size=rows, max_size=rows)

    def made(found: list[float | None], closed: Any) -> Any:
        left = np.array(found, dtype=float)
        return pd.arrays.IntervalArray.from_arrays(left, left + 1, closed=closed)

    return st.builds(made, starts, st.sampled_from(["left", "right", "both", "neither"]))


def arrays(rows: int) -> st.SearchStrategy[Any]:
    """Arrays of so many values, of any dtype."""
    makers = (_numbers, _nullable, _strings, _objects, _categoricals, _times, _arrow, _sparse, _intervals)
    return st.one_of([make(rows) for make in makers])


def _is_index_array(array: Any) -> bool:
    return not isinstance(array, pd.arrays.SparseArray) and array.dtype != np.float16


def _plain_indexes(rows: int) -> st.SearchStrategy[pd.Index]:
    def of(array: Any, name: Any) -> pd.Index:
        return pd.Index(array, dtype=array.dtype, name=name, tupleize_cols=False)

    ranges = st.builds(
        lambda start, step, name: pd.RangeIndex(start, start + rows * step, step, name=name),
        st.integers(-9, 9),
        st.sampled_from([1, 2, -1, -3]),
        LABELS,
    )
    dates = st.builds(
        lambda start, freq, zone, name: pd.date_range(start, periods=rows, freq=freq, tz=zone, name=name),
        DAYS.map(lambda day: day.replace(hour=0, minute=0, second=0)),
        st.sampled_from(FREQUENCIES),
        st.sampled_from([None, "UTC", zoneinfo.ZoneInfo("Asia/Tokyo")]),
        LABELS,
    )
    lengths = st.builds(
        lambda hours, name: pd.timedelta_range("1h", periods=rows, freq=f"{hours}h", name=name),
        st.integers(1, 9),
        LABELS,
    )
    others = st.builds(of, arrays(rows).filter(_is_index_array), LABELS)
    return st.one_of(ranges, dates, lengths, others)


def _multi_indexes(rows: int) -> st.SearchStrategy[pd.Index]:
    values = st.sampled_from(["a", "b", None, "c"]) | st.integers(0, 2).map(str)
    level = st.lists(values, min_size=rows, max_size=rows) | st.lists(
        st.integers(0, 3), min_size=rows, max_size=rows
    )
    levels = st.lists(level, min_size=1, max_size=3)
    return levels.flatmap(
        lambda found: st.builds(
            lambda names: pd.MultiIndex.from_arrays(found, names=names),
            st.lists(LABELS, min_size=len(found), max_size=len(found)),
        )
    )


def indexes(rows: int | None = None) -> st.SearchStrategy[pd.Index]:
    """Indexes of any class; of so many rows, or of any small number."""
    if rows is None:
        return st.integers(0, MAX_ROWS).flatmap(indexes)
    return _plain_indexes(rows) | _multi_indexes(rows)


def series() -> st.SearchStrategy[pd.Series]:
    """Series of any dtype, with any index and name."""

    def of(rows: int) -> st.SearchStrategy[pd.Series]:
        return st.builds(
            lambda array, index, name: pd.Series(array, index=index, dtype=array.dtype, name=name),
            arrays(rows),
            indexes(rows),
            LABELS,
        )

    return st.integers(0, MAX_ROWS).flatmap(of)


def frames() -> st.SearchStrategy[pd.DataFrame]:
    """Frames of columns of any dtype, with any index, labels and attrs."""

    def made(columns: list[Any], index: pd.Index, labels: pd.Index, attrs: Any) -> pd.DataFrame:
        data = {
            place: pd.Series(array, index=index, dtype=array.dtype) for place, array in enumerate(columns)
        }
        frame = pd.DataFrame(data, index=index)
        frame.columns = labels
        frame.attrs = attrs
        return frame

    def of(shape: tuple[int, int]) -> st.SearchStrategy[pd.DataFrame]:
        rows, count = shape
        labels = indexes(count) | st.lists(TEXT, min_size=count, max_size=count).map(pd.Index)
        attrs = st.dictionaries(TEXT, st.integers() | TEXT | st.none() | st.tuples(TEXT), max_size=2)
        columns = st.lists(arrays(rows), min_size=count, max_size=count)
        return st.builds(made, columns, indexes(rows), labels, attrs)

    return st.tuples(st.integers(0, MAX_ROWS), st.integers(0, 4)).flatmap(of)
