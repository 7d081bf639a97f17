"""Whether two pandas objects are the same: every class, dtype, value, missing value, name and flag.

Stricter than ``pandas.testing``: NaN is neither None nor NA, a value's type counts, and so do unused levels
and categories, the storage of strings, the sort of an index, and the class of a time zone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

__all__ = ["assert_same_frame"]


def assert_same_frame(expected: Any, actual: Any) -> None:
    """Two frames, series or indexes are the same in every respect.

    Raises:
        AssertionError: they are not; says where.
    """
    _same_type(expected, actual, "object")
    if isinstance(expected, pd.Index):
        _same_index(expected, actual, "index")
        return
    _same_index(expected.index, actual.index, "index")
    if isinstance(expected, pd.DataFrame):
        _same_index(expected.columns, actual.columns, "columns")
        for place in range(len(expected.columns)):
            where = f"column {expected.columns[place]!r}"
            _same_array(expected.iloc[:, place].array, actual.iloc[:, place].array, where)
    else:
        _same_value(expected.name, actual.name, "name")
        _same_array(expected.array, actual.array, "values")
    _same_value(expected.attrs, actual.attrs, "attrs")
    flags = expected.flags.allows_duplicate_labels, actual.flags.allows_duplicate_labels
    assert flags[0] == flags[1], f"flags: {flags}"


def _same_type(expected: Any, actual: Any, where: str) -> None:
    assert type(expected) is type(actual), f"{where}: {type(actual)} instead of {type(expected)}"


def _same_index(expected: Any, actual: Any, where: str) -> None:
    _same_type(expected, actual, where)
    assert len(expected) == len(actual), f"{where}: {len(actual)} instead of {len(expected)}"
    _same_value(list(expected.names), list(actual.names), f"names of {where}")
    if isinstance(expected, pd.RangeIndex):
        extents = [(index.start, index.stop, index.step) for index in (expected, actual)]
        assert extents[0] == extents[1], f"{where}: {extents}"
    elif isinstance(expected, pd.MultiIndex):
        assert expected.sortorder == actual.sortorder, f"{where}: sort order"
        assert expected.nlevels == actual.nlevels, f"{where}: levels"
        for number in range(expected.nlevels):
            place = f"level {number} of {where}"
            _same_index(expected.levels[number], actual.levels[number], place)
            _same_array(
                np.asarray(expected.codes[number]), np.asarray(actual.codes[number]), f"codes of {place}"
            )
    else:
        _same_array(expected.array, actual.array, where)
        freqs = [getattr(index, "freq", None) for index in (expected, actual)]
        assert freqs[0] == freqs[1], f"{where}: frequency {freqs[1]} instead of {freqs[0]}"
        _same_type(freqs[0], freqs[1], f"frequency of {where}")


def _same_array(expected: Any, actual: Any, where: str) -> None:
    _same_type(expected, actual, where)
    _same_dtype(expected.dtype, actual.dtype, where)
    assert len(expected) == len(actual), f"{where}: {len(actual)} values instead of {len(expected)}"
    if type(expected) is pd.arrays.NumpyExtensionArray:
        expected, actual = expected.to_numpy(), actual.to_numpy()
    if isinstance(expected, pd.Categorical):
        _same_array(expected.codes, actual.codes, f"codes of {where}")
    elif isinstance(expected, pd.arrays.IntervalArray):
        _same_array(expected.left.array, actual.left.array, f"left of {where}")
        _same_array(expected.right.array, actual.right.array, f"right of {where}")
    elif isinstance(expected, pd.arrays.SparseArray):
        assert expected.sp_index.equals(actual.sp_index), f"{where}: {actual.sp_index}"
        _same_type(expected.sp_index, actual.sp_index, where)
        _same_array(expected.sp_values, actual.sp_values, f"points of {where}")
    elif hasattr(expected, "asi8"):
        assert expected.asi8.tobytes() == actual.asi8.tobytes(), f"{where}: {actual} instead of {expected}"
    elif isinstance(expected, np.ndarray) and expected.dtype.char in "gG":  # its padding means nothing
        assert np.array_equal(expected, actual, equal_nan=True), f"{where}: {actual} instead of {expected}"
    elif isinstance(expected, np.ndarray) and not expected.dtype.hasobject:
        assert expected.tobytes() == actual.tobytes(), f"{where}: {actual} instead of {expected}"
    else:
        for row, pair in enumerate(zip(expected, actual, strict=True)):
            _same_value(*pair, f"row {row} of {where}")


def _same_dtype(expected: Any, actual: Any, where: str) -> None:
    _same_type(expected, actual, f"dtype of {where}")
    assert expected == actual, f"{where}: dtype {actual} instead of {expected}"
    if isinstance(expected, np.dtype):
        assert expected.str == actual.str, f"{where}: byte order"
    elif isinstance(expected, pd.DatetimeTZDtype):
        _same_type(expected.tz, actual.tz, f"time zone of {where}")
        assert str(expected.tz) == str(actual.tz), f"{where}: time zone {actual.tz}"
    elif isinstance(expected, pd.StringDtype):
        assert expected.storage == actual.storage, f"{where}: storage {actual.storage}"
        _same_value(expected.na_value, actual.na_value, f"missing value of {where}")
    elif isinstance(expected, pd.SparseDtype):
        _same_value(expected.fill_value, actual.fill_value, f"fill value of {where}")
    elif isinstance(expected, pd.ArrowDtype):
        assert expected.pyarrow_dtype == actual.pyarrow_dtype, f"{where}: {actual}"
    elif isinstance(expected, pd.CategoricalDtype):
        assert expected.ordered is actual.ordered, f"{where}: order"
        _same_index(expected.categories, actual.categories, f"categories of {where}")


def _same_value(expected: Any, actual: Any, where: str) -> None:
    _same_type(expected, actual, where)
    if isinstance(expected, dict):
        _same_value(list(expected), list(actual), f"keys of {where}")
        for key in expected:
            _same_value(expected[key], actual[key], f"{key!r} of {where}")
    elif isinstance(expected, list | tuple):
        assert len(expected) == len(actual), f"{where}: {len(actual)} instead of {len(expected)}"
        for number, pair in enumerate(zip(expected, actual, strict=True)):
            _same_value(*pair, f"item {number} of {where}")
    elif isinstance(expected, np.ndarray):
        _same_array(expected, actual, where)
    elif isinstance(expected, pd.DataFrame | pd.Series | pd.Index):
        assert_same_frame(expected, actual)
    elif expected is pd.NA or expected is pd.NaT or expected is None:
        assert actual is expected, f"{where}: {actual} instead of {expected}"
    elif expected == expected:
        assert expected == actual, f"{where}: {actual!r} instead of {expected!r}"
        assert repr(expected) == repr(actual), f"{where}: {actual!r} instead of {expected!r}"
    else:
        assert actual != actual, f"{where}: {actual!r} instead of {expected!r}"
