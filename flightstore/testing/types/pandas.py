"""pandas objects of every sort: each dtype, index, label and kind of emptiness, by name, and strategies for
more.

Each entry of `CATALOGUE` is a function that makes the object anew: what is stored may share its memory.
"""

from __future__ import annotations

import datetime
import decimal
import fractions
import importlib
import importlib.util
import uuid
import zoneinfo
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from flightstore.testing.types.pandas_same import assert_same_frame
from flightstore.testing.types.pandas_strategies import frames, indexes, series

__all__ = ["CATALOGUE", "NEEDS_PICKLE", "assert_same_frame", "frames", "indexes", "series"]

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
ODD_ZONE = datetime.timezone(datetime.timedelta(hours=5, minutes=30), "somewhere")
NAN = float("nan")
INTERVALS = pd.arrays.IntervalArray.from_breaks


Make = Callable[[], Any]


def objects(*values: Any) -> Any:
    """An array of exactly these objects."""
    return np.fromiter(values, dtype=object, count=len(values))


def _numpy_dtypes() -> dict[str, Make]:
    names = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
    names += ["float16", "float32", "float64", "longdouble", "complex64", "complex128", "clongdouble"]
    found: dict[str, Make] = {name: partial(np.array, [1, 0, 3, 1], name) for name in names}
    found |= {f"{name} with NaN": partial(np.array, [1.5, NAN, -0.0], name) for name in names[9:]}
    found |= {
        "big-endian": lambda: np.array([1, 2], ">i4"),
        "big-endian floats": lambda: np.array([1.5, NAN], ">f8"),
        "extremes": lambda: np.array([-(2**63), 2**63 - 1]),
        "large unsigned": lambda: np.array([2**64 - 1, 0], "u8"),
        "infinities": lambda: np.array([np.inf, -np.inf, NAN]),
    }
    for unit in ("s", "ms", "us", "ns"):
        found[f"datetime64[{unit}]"] = partial(np.array, ["2024-02-29", "NaT"], f"M8[{unit}]")
        found[f"datetime64[{unit}] without NaT"] = partial(np.array, ["2024-02-29"], f"M8[{unit}]")
        found[f"timedelta64[{unit}]"] = partial(np.array, [-3, "NaT", 3], f"m8[{unit}]")
    return found


def _object_values() -> dict[str, Make]:
    values: dict[str, tuple[Any, ...]] = {
        "str": ("a", "\N{SNOWMAN}", ""),
        "str and None": ("a", None),
        "str and NaN": ("a", NAN),
        "str and NA": ("a", pd.NA),
        "bytes": (b"\0", None, b""),
        "bool": (True, None, False),
        "int": (1, None, -(2**63)),
        "large int": (2**64 - 1, None),
        "float": (1.5, None, NAN, -0.0),
        "Decimal": (decimal.Decimal("1.20"), None, decimal.Decimal("-3.45")),
        "date": (datetime.date(2024, 2, 29), None),
        "time": (datetime.time(1, 2, 3, 4), None),
        "datetime": (datetime.datetime(2024, 2, 29, 12), None),
        "timedelta": (datetime.timedelta(days=-1), pd.NaT),
        "UUID": (uuid.UUID(int=5), None),
        "list": ([1, None], None, []),
        "nested list": ([["a"], []], None),
        "dict": ({"a": 1, "b": [1.5]}, {"a": 2, "b": None}),
        "arrays": (np.arange(3), None, np.arange(0)),
        "None": (None, None),
        "NaN": (NAN, NAN),
        "NA": (pd.NA, pd.NA),
        "NaT": (pd.NaT, pd.NaT),
    }
    return {f"object, {name}": partial(objects, *items) for name, items in values.items()}


def _pickled_values() -> dict[str, Make]:
    values: dict[str, tuple[Any, ...]] = {
        "mixed": (1, "x", None, 2.5),
        "every missing": ("a", None, NAN, pd.NA, pd.NaT),
        "int and bool": (1, True),
        "huge int": (2**70, None),
        "NumPy scalars": (np.int64(1), np.float64(1.5), np.str_("a")),
        "half a character": ("\ud800", "a"),
        "Decimal scales": (decimal.Decimal("1.0"), decimal.Decimal("1.00")),
        "Decimal NaN": (decimal.Decimal("NaN"),),
        "zoned datetime": (datetime.datetime(2024, 2, 29, tzinfo=BERLIN),),
        "second of two hours": (datetime.datetime(2024, 10, 27, 2, 30, fold=1),),
        "Timestamp": (pd.Timestamp("2024-02-29"), pd.Timestamp("2024-02-29", tz=BERLIN)),
        "tuple": ((1, 2), (3,)),
        "set": ({1}, frozenset({2})),
        "dicts that differ": ({"a": 1}, {"b": 2}),
        "dict by number": ({1: 2},),
        "lists of two types": ([1], ["a"]),
        "matrices": (np.eye(2), None),
        "Fraction": (fractions.Fraction(1, 3),),
        "types": (int, pd.Timestamp),
    }
    return {f"object, {name}": partial(objects, *items) for name, items in values.items()}


def _strings() -> dict[str, Make]:
    found: dict[str, Make] = {}
    for storage in ("python", "pyarrow"):
        for na in ("nan", "NA"):
            dtype = pd.StringDtype(storage, na_value=np.nan if na == "nan" else pd.NA)
            found[f"string, {storage}, {na}"] = partial(pd.array, ["a", None, ""], dtype=dtype)
            found[f"string, {storage}, {na}, all missing"] = partial(pd.array, [None], dtype=dtype)
    found["string, two chunks"] = lambda: pd.concat([pd.Series(["a"]), pd.Series(["b", None])]).array
    return found


def _nullable() -> dict[str, Make]:
    names = ["Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float32", "Float64"]
    found: dict[str, Make] = {name: partial(pd.array, [1, None, 3], dtype=name) for name in names}
    found |= {f"{name}, no NA": partial(pd.array, [1, 2], dtype=name) for name in names}
    found |= {
        "boolean": lambda: pd.array([True, None, False], dtype="boolean"),
        "boolean, no NA": lambda: pd.array([True, False], dtype="boolean"),
        "Int64, exact": lambda: pd.array([2**53 + 1, None], dtype="Int64"),
        "Float64 with NaN": lambda: pd.arrays.FloatingArray(
            np.array([1.0, NAN, 2.0]), np.array([False, False, True])
        ),
    }
    return found


def _categoricals() -> dict[str, Make]:
    def of(values: Any, categories: Any, ordered: bool = False) -> Make:
        return lambda: pd.Categorical(values(), categories=categories(), ordered=ordered)

    def many(count: int) -> Make:
        return lambda: pd.Categorical.from_codes([0, count - 1, -1], categories=pd.Index(range(count)) * 3)

    dates = partial(pd.date_range, "2024-01-01", periods=3, freq="D")
    return {
        "category": lambda: pd.Categorical(["a", None, "b"]),
        "category, ordered": of(lambda: ["b", "a"], lambda: ["b", "a"], True),
        "category, unused": of(lambda: ["b"], lambda: ["z", "b", "a"]),
        "category, none at all": lambda: pd.Categorical([None, None]),
        "category of object": of(lambda: [1, "a"], lambda: pd.Index([1, "a", None][:2], dtype=object)),
        "category of object str": of(lambda: ["a"], lambda: pd.Index(["a", "b"], dtype=object)),
        "category of int": lambda: pd.Categorical([3, 1, 3]),
        "category of range": of(lambda: [1, 3], lambda: pd.RangeIndex(1, 9, 2, name="r")),
        "category of float": lambda: pd.Categorical([1.5, NAN, -0.0]),
        "category of bool": lambda: pd.Categorical([True, False]),
        "category of dates": of(lambda: dates()[:1], dates),
        "category of zoned": of(lambda: dates(tz=BERLIN)[:1], lambda: dates(tz=BERLIN)),
        "category of timedelta": lambda: pd.Categorical(pd.to_timedelta([1, 2], unit="h")),
        "category of period": lambda: pd.Categorical(pd.period_range("2024-01", periods=2, freq="M")),
        "category of interval": lambda: pd.cut([1, 5, 9], 3),
        "category of Int64": lambda: pd.Categorical(pd.array([1, None, 2], dtype="Int64")),
        "category of Arrow": lambda: pd.Categorical(pd.array([1, 2], dtype="int64[pyarrow]")),
        "category of decimals": lambda: pd.Categorical(objects(decimal.Decimal("1.5"), None)),
        "category, named": of(lambda: ["a"], lambda: pd.Index(["a", "b"], name=("n", 1))),
        "category, int16 codes": many(200),
        "category, int32 codes": many(40_000),
    }


def _arrow_dtypes() -> dict[str, Make]:
    kinds: dict[str, tuple[pa.DataType, list[Any]]] = {
        "int64": (pa.int64(), [1, None]),
        "uint8": (pa.uint8(), [1, None]),
        "float": (pa.float32(), [1.5, NAN, None]),
        "bool": (pa.bool_(), [True, None]),
        "string": (pa.string(), ["a", None]),
        "large string": (pa.large_string(), ["a", None]),
        "binary": (pa.binary(), [b"a", None]),
        "decimal": (pa.decimal128(5, 2), [decimal.Decimal("1.20"), None]),
        "date": (pa.date32(), [datetime.date(2024, 2, 29), None]),
        "time": (pa.time64("us"), [datetime.time(1), None]),
        "timestamp": (pa.timestamp("ms"), [datetime.datetime(2024, 2, 29), None]),
        "zoned": (pa.timestamp("us", "Europe/Berlin"), [datetime.datetime(2024, 2, 29, tzinfo=BERLIN), None]),
        "duration": (pa.duration("s"), [datetime.timedelta(1), None]),
        "list": (pa.list_(pa.int8()), [[1], None, []]),
        "struct": (pa.struct({"a": pa.int8(), "b": pa.string()}), [{"a": 1, "b": None}, None]),
        "map": (pa.map_(pa.string(), pa.int8()), [[("a", 1)], None]),
        "null": (pa.null(), [None, None]),
    }
    found: dict[str, Make] = {
        f"Arrow {name}": partial(pd.array, items, dtype=pd.ArrowDtype(kind))
        for name, (kind, items) in kinds.items()
    }
    dictionary = pa.array(["a", None, "b"]).dictionary_encode()
    found["Arrow dictionary"] = lambda: pd.arrays.ArrowExtensionArray(dictionary)
    return found


def _other_dtypes() -> dict[str, Make]:
    times = ["2024-02-29 12:00", None, "2024-10-27 01:30"]
    zones = {"zone": BERLIN, "UTC": datetime.UTC, "zone UTC": zoneinfo.ZoneInfo("UTC"), "offset": ODD_ZONE}
    zones |= _zones_of_others()
    found: dict[str, Make] = {f"zoned, {name}": partial(_zoned, times, zone) for name, zone in zones.items()}
    for unit in ("s", "ms", "us", "ns"):
        found[f"zoned, {unit}"] = partial(pd.array, times, dtype=f"datetime64[{unit}, Europe/Berlin]")
    for freq in ("D", "M", "Q-MAR", "Y", "W-WED", "h", "15min", "ns"):
        found[f"period, {freq}"] = partial(pd.array, ["2024-01-01", None], dtype=f"period[{freq}]")
    for closed in ("left", "right", "both", "neither"):
        found[f"interval, {closed}"] = partial(INTERVALS, [0, 1, 3], closed=closed)
    for side, breaks in {
        "float": lambda: pd.Index([0.5, 1.5, 2.5]),
        "times": lambda: pd.date_range("2024-01-01", periods=3),
        "zoned": lambda: pd.date_range("2024-01-01", periods=3, tz=BERLIN),
        "timedelta": lambda: pd.to_timedelta([1, 2, 3], unit="h"),
    }.items():
        found[f"interval of {side}"] = partial(_intervals, breaks, False)
        found[f"interval of {side}, missing"] = partial(_intervals, breaks, True)
    return found | _sparse()


def _zones_of_others() -> dict[str, Any]:
    """Time zones of libraries that pandas takes them from."""
    dateutil = importlib.import_module("dateutil.tz")
    found = {"dateutil": dateutil.gettz("Europe/Berlin")}
    if importlib.util.find_spec("pytz") is not None:
        pytz = importlib.import_module("pytz")
        found |= {
            "pytz": pytz.timezone("Europe/Berlin"),
            "pytz UTC": pytz.UTC,
            "pytz offset": pytz.FixedOffset(90),
        }
    return found


def _zoned(times: list[Any], zone: Any) -> Any:
    return pd.DatetimeIndex(times, tz="UTC").tz_convert(zone).array


def _intervals(breaks: Make, missing: bool) -> Any:
    array = INTERVALS(breaks())
    return array.take([0, -1, 1], allow_fill=True) if missing else array


def _explicit_fill() -> Any:
    """Points that have the fill value themselves."""
    sparse = pd.arrays.SparseArray
    if hasattr(sparse, "from_indices"):
        return sparse.from_indices([0, 5, 0], [1, 2, 4], 6, fill_value=0)
    places = sparse([0, 1, 1, 0, 1, 0]).sp_index
    return sparse(np.array([0, 5, 0]), sparse_index=places, fill_value=0)


def _sparse() -> dict[str, Make]:
    sparse = pd.arrays.SparseArray
    return {
        "sparse": lambda: sparse([0, 0, 1, 2, 0]),
        "sparse, NaN": lambda: sparse([NAN, 1.5, NAN, NAN, 2.5]),
        "sparse, other fill": lambda: sparse([7, 7, 1], fill_value=7),
        "sparse, no points": lambda: sparse([0, 0, 0]),
        "sparse, all points": lambda: sparse([1, 2, 3]),
        "sparse, blocks": lambda: sparse([0, 1, 1, 0, 0, 3], kind="block"),
        "sparse, bool": lambda: sparse([True, False, False], fill_value=False),
        "sparse, float, zero": lambda: sparse([0.0, 1.5], fill_value=0.0),
        "sparse, int8": lambda: sparse(np.array([0, 1, 0], "i1")),
        "sparse, explicit fill": _explicit_fill,
        "sparse, empty": lambda: sparse(np.array([], "f8")),
    }


def _indexes() -> dict[str, Make]:
    product = pd.MultiIndex.from_product
    found: dict[str, Make] = {
        "default": lambda: pd.RangeIndex(3),
        "range": lambda: pd.RangeIndex(5, 11, 2, name="r"),
        "backward range": lambda: pd.RangeIndex(3, 0, -1),
        "int": lambda: pd.Index([3, 1, 1]),
        "int8": lambda: pd.Index(np.array([3, 1, 2], "i1"), name="k"),
        "float": lambda: pd.Index([1.5, NAN, -0.0]),
        "bool": lambda: pd.Index([True, False, True]),
        "complex": lambda: pd.Index([1j, 2, NAN]),
        "str": lambda: pd.Index(["a", "b", None], name="s"),
        "object": lambda: pd.Index(["a", "b", None], dtype=object),
        "object dates": lambda: pd.Index(objects(*[datetime.date(2024, 1, day) for day in (1, 2, 3)])),
        "dates": lambda: pd.DatetimeIndex(["2024-01-01", None, "2023-01-01"]),
        "dates with freq": lambda: pd.date_range("2024-01-31", periods=3, freq="ME", name="when"),
        "backward dates": lambda: pd.date_range("2024-01-31", periods=3, freq="-2D"),
        "business days": lambda: pd.bdate_range("2024-01-05", periods=3),
        "odd freq": lambda: pd.date_range("2024-01-05", periods=3, freq=pd.DateOffset(months=1, days=2)),
        "zoned": lambda: pd.date_range("2024-03-30", periods=3, freq="h", tz=BERLIN),
        "zoned days": lambda: pd.date_range("2024-03-30", periods=3, freq="D", tz=BERLIN),
        "seconds": lambda: pd.date_range("2024-01-01", periods=3, freq="s", unit="s"),
        "timedelta": lambda: pd.timedelta_range("1h", periods=3, freq="30min", name=("t", 1)),
        "irregular timedelta": lambda: pd.to_timedelta([1, 5, 7], unit="h"),
        "period": lambda: pd.period_range("2024-01", periods=3, freq="M", name="p"),
        "interval": lambda: pd.interval_range(0, 3, closed="both"),
        "interval of times": lambda: pd.interval_range(pd.Timestamp("2024-01-01"), periods=3),
        "category": lambda: pd.CategoricalIndex(["b", "a", None], categories=["b", "a", "c"], ordered=True),
        "Int64": lambda: pd.Index(pd.array([1, None, 3], dtype="Int64")),
        "Arrow": lambda: pd.Index(pd.array(["a", None, "c"], dtype="string[pyarrow]")),
        "ArrowDtype": lambda: pd.Index(pd.array([1, None, 3], dtype="int64[pyarrow]")),
        "tuples": lambda: pd.Index(objects((1, 2), (3, 4), (5, 6)), tupleize_cols=False),
        "two levels": lambda: product([["a", "b"], [1, 2]], names=["x", None]),
        "one level": lambda: pd.MultiIndex.from_arrays([[1, 2]], names=[0]),
        "unused levels": lambda: product([["a", "b", "c"], [1, 2]]).take([3, 2]),
        "missing codes": lambda: pd.MultiIndex.from_arrays([["a", None, "b"], [1.5, 2.5, NAN]]),
        "levels of dates": lambda: product([pd.date_range("2024-01-01", periods=2, freq="D"), ["a"]]),
        "levels with one name": lambda: product([["a"], [1, 2]], names=["n", "n"]),
        "levels named like columns": lambda: product([["a"], [1, 2, 3]], names=["a", 0]),
        "levels of categories": lambda: product([pd.CategoricalIndex(["u", "v"], ordered=True), [1]]),
        "levels of intervals": lambda: product([pd.interval_range(0, 2), [1]]),
        "levels of periods": lambda: product(
            [pd.period_range("2024-01", periods=2, freq="M"), [True, False]]
        ),
        "sorted levels": lambda: pd.MultiIndex([["a", "b"], [1]], [[0, 1], [0, 0]], sortorder=1),
        "int name": lambda: pd.Index([1, 2], name=7),
        "date name": lambda: pd.Index([1, 2], name=pd.Timestamp("2024-01-01", tz=BERLIN)),
        "name of a column": lambda: pd.Index([1, 2], name="a"),
        "empty": lambda: pd.Index([], dtype="int64"),
        "empty object": lambda: pd.Index([], dtype=object),
        "empty dates": lambda: pd.DatetimeIndex([], freq="D", tz="UTC"),
        "empty levels": lambda: product([["a"], [1]])[:0],
    }
    return found


def _columns() -> dict[str, Make]:
    found = {f"like {name}": make for name, make in _indexes().items()}
    return found | {
        "named": lambda: pd.Index(["a", "b"], name="things"),
        "twice": lambda: pd.Index(["a", "a", "a.1", "b"]),
        "object texts": lambda: pd.Index(["a", "b"], dtype=object, name=("x", 1)),
        "python strings": lambda: pd.Index(["a", "b"], dtype=pd.StringDtype("python", na_value=np.nan)),
        "numbers": lambda: pd.Index([3, 1, 3]),
        "mixed": lambda: pd.Index(objects("a", 1, None, 2.5, ("t", 1), b"x", True)),
        "odd texts": lambda: pd.Index(["", " ", "\N{SNOWMAN}", "a\0b", "\n", "0"]),
        "half a character": lambda: pd.Index(objects("\ud800", "b"), dtype=object),
        "None": lambda: pd.Index(objects(None)),
        "Timestamps": lambda: pd.Index(objects(pd.Timestamp("2024-01-01"), pd.Timestamp("2024", tz="UTC"))),
        "text like an index": lambda: pd.Index(["__index_level_0__", "index"]),
        "levels of three": lambda: pd.MultiIndex.from_tuples([("a", 1, None), ("b", 2, "x")]),
    }


def _wholes() -> dict[str, Make]:
    def with_attrs(attrs: dict[Any, Any]) -> Make:
        def make() -> pd.DataFrame:
            frame = pd.DataFrame({"a": [1]})
            frame.attrs = attrs
            return frame

        return make

    return {
        "nothing": pd.DataFrame,
        "no columns": lambda: pd.DataFrame(index=["x", "y"]),
        "no columns, range": lambda: pd.DataFrame(index=pd.RangeIndex(5)),
        "no columns, named": lambda: pd.DataFrame(columns=pd.Index([], name="n"), index=[1]),
        "no rows": lambda: pd.DataFrame({"a": [1], "b": ["x"], "c": pd.Categorical(["u"])}).iloc[:0],
        "one block": lambda: pd.DataFrame(np.arange(12.0).reshape(4, 3), columns=list("abc")),
        "rows first": lambda: pd.DataFrame(np.arange(12.0).reshape(4, 3), copy=False),
        "every second row": lambda: pd.DataFrame({"a": np.arange(10), "s": list("abcdefghij")}).iloc[::2],
        "backward": lambda: pd.DataFrame({"a": np.arange(10), "b": np.arange(10.0)}).iloc[::-1],
        "transposed": lambda: pd.DataFrame({"a": [1, 2], "b": [3, 4]}).T,
        "many blocks": lambda: pd.DataFrame(
            {f"c{i}": np.arange(3, dtype=f"i{2 ** (i % 4)}") for i in range(40)}
        ),
        "a thousand columns": lambda: pd.DataFrame(np.ones((3, 1000))),
        "attrs": with_attrs(
            {"source": "test", "n": [1, (2, None)], 5: {"x": NAN}, "at": datetime.date(2024, 1, 1)}
        ),
        "unique labels": lambda: pd.DataFrame({"a": [1]}).set_flags(allows_duplicate_labels=False),
        "bool frame": lambda: pd.DataFrame(np.array([[True, False], [False, True]])),
        "times in one block": lambda: pd.DataFrame({c: pd.date_range("2024", periods=3) for c in "abc"}),
        "zoned times in one block": lambda: pd.DataFrame(
            {c: pd.date_range("2024", periods=3, tz=BERLIN) for c in "abc"}
        ),
        "large": lambda: pd.DataFrame({"x": np.arange(50_000.0), "s": [f"text {i}" for i in range(50_000)]}),
        "named series": lambda: pd.Series([1, 2], name="s"),
        "series of a number": lambda: pd.Series([1, 2], name=5, index=["x", "y"]),
        "series of a tuple": lambda: pd.Series(["a"], name=("x", 1)),
        "series of None": lambda: pd.Series([1.5, NAN]),
        "empty series": lambda: pd.Series([], dtype="float64"),
    }


def _catalogue() -> dict[str, Make]:
    arrays = {
        **_numpy_dtypes(),
        **_object_values(),
        **_pickled_values(),
        **_strings(),
        **_nullable(),
        **_categoricals(),
        **_arrow_dtypes(),
        **_other_dtypes(),
    }
    found: dict[str, Make] = {}
    for name, make in arrays.items():
        found[f"column: {name}"] = partial(_column, make)
        found[f"series: {name}"] = partial(_series, make)
        found[f"no rows: {name}"] = partial(_no_rows, make)
    for name, make in _indexes().items():
        found[f"index: {name}"] = partial(_indexed, make)
        found[f"lone index: {name}"] = make
    for name, make in _columns().items():
        found[f"columns: {name}"] = partial(_labelled, make)
    return found | {f"whole: {name}": make for name, make in _wholes().items()}


def _series(make: Make) -> pd.Series:
    array = make()
    return pd.Series(array, dtype=array.dtype, copy=False)


def _column(make: Make) -> pd.DataFrame:
    return _series(make).to_frame("x")


def _no_rows(make: Make) -> pd.DataFrame:
    return _column(make).iloc[:0]


def _indexed(make: Make) -> pd.DataFrame:
    index = make()
    return pd.DataFrame({"a": np.arange(len(index))}, index=index)


def _labelled(make: Make) -> pd.DataFrame:
    columns = make()
    return pd.DataFrame(np.ones((2, len(columns))), columns=columns)


CATALOGUE: dict[str, Make] = _catalogue()
"""A function for each object, by a name that says what is special about it."""

NEEDS_PICKLE = frozenset(
    {f"{form}: {name}" for form in ("column", "series") for name in _pickled_values()}
    | {
        f"{form}: {name}"
        for form in ("column", "series")
        for name in ("category of object", "zoned, dateutil")
    }
    | {"no rows: category of object", "no rows: zoned, dateutil", "index: tuples", "lone index: tuples"}
)
"""Those that cannot be stored without pickle."""
