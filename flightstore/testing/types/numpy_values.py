"""How two NumPy arrays differ, in words. Calls nothing else of ours.

Values are compared bit by bit: NaN payloads, the sign of zero and the time units count; what lies between the
fields of a structure, and the unused bytes of an extended float, do not.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

__all__ = ["array_difference", "dtype_difference"]

Array: TypeAlias = "np.ndarray[Any, Any]"
Flags: TypeAlias = "np.ndarray[Any, np.dtype[np.bool_]]"

X87_BYTES = 10
"""Bytes in use of a long double of x86, which takes 16."""


def array_difference(expected: Array, actual: Array, same: Callable[[Any, Any], bool]) -> str:
    """How two arrays differ; empty if they do not.

    Args:
        expected: An array.
        actual: The array that should be the same.
        same: How two Python objects are compared, for arrays that hold some.
    """
    if found := dtype_difference(expected.dtype, actual.dtype):
        return found
    if expected.shape != actual.shape:
        return f"shape {expected.shape} became {actual.shape}"
    before, after = expected.flags, actual.flags
    for order in ("c_contiguous", "f_contiguous"):
        if expected.nbytes and getattr(before, order) and not getattr(after, order):
            return f"{order} strides {expected.strides} became {actual.strides}"
    found_at = np.argwhere(_differ(expected, actual, same))
    if not len(found_at):
        return ""
    at = tuple(found_at[0].tolist())
    return f"at {list(at)}: {_shown(expected, at)} became {_shown(actual, at)}"


def _shown(array: Array, at: tuple[int, ...]) -> str:
    """An element, and its bytes: two NaNs look alike."""
    text = repr(array[at])
    text = text if len(text) <= 200 else f"{text[:200]}..."
    return text if array.dtype.hasobject else f"{text} ({array[at].tobytes()[:32].hex()})"


def dtype_difference(expected: np.dtype[Any], actual: np.dtype[Any]) -> str:
    """How two dtypes differ; empty if they do not. C's names for integers of one size are no difference."""
    changed = f"dtype {expected!r} became {actual!r}"
    if expected.subdtype is not None and actual.subdtype is not None:
        if expected.shape != actual.shape:
            return changed
        return dtype_difference(expected.base, actual.base)
    if expected.names is None or actual.names is None:
        same = expected == actual or (expected.kind in "iu" and expected.str == actual.str)
        return "" if same else changed
    if expected.names != actual.names or expected.itemsize != actual.itemsize:
        return changed
    if expected.isalignedstruct != actual.isalignedstruct:
        return f"dtype {expected!r}: aligned={expected.isalignedstruct} became {actual.isalignedstruct}"
    return _fields_difference(expected, actual)


def _fields_difference(expected: np.dtype[Any], actual: np.dtype[Any]) -> str:
    before: Any = expected.fields
    after: Any = actual.fields
    for name in expected.names or ():
        if before[name][1:] != after[name][1:]:  # offset and title
            return f"field {name!r} of dtype {expected!r} became that of {actual!r}"
        if found := dtype_difference(before[name][0], after[name][0]):
            return f"field {name!r}: {found}"
    return ""


def _differ(expected: Array, actual: Array, same: Callable[[Any, Any], bool]) -> Flags:
    """For each element, whether it differs."""
    dtype = expected.dtype
    if dtype.names is not None:
        differ = np.zeros(expected.shape, bool)
        for name in dtype.names:
            found = _differ(expected[name], actual[name], same)
            differ |= found.any(axis=tuple(range(expected.ndim, found.ndim)))
        return differ
    if dtype.hasobject:
        pairs = zip(expected.flat, actual.flat, strict=True)
        return np.array([not same(*pair) for pair in pairs], bool).reshape(expected.shape)
    flags: Flags = (_bytes(expected) != _bytes(actual)).any(axis=-1)
    return flags


def _bytes(array: Array) -> Array:
    """The bytes of every element, in one more dimension."""
    size = array.dtype.itemsize
    raw = np.frombuffer(array.tobytes(), np.uint8).reshape(*array.shape, size)
    if array.dtype.kind in "fc" and array.dtype.char in "gG" and platform.machine() in ("x86_64", "i686"):
        parts = 2 if array.dtype.kind == "c" else 1
        raw = raw.reshape(*array.shape, parts, size // parts)[..., :X87_BYTES]
        raw = raw.reshape(*array.shape, parts * X87_BYTES)
    return raw
