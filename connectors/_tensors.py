"""What connectors of array libraries share: dtypes that NumPy cannot describe, and what a conversion copies.

bfloat16, the float8 family and integers of 2 and 4 bits are NumPy dtypes only while the library that made
them is loaded (ml_dtypes), so they are stored as a structure of one unsigned field that is called like the
dtype: any NumPy reads the bits, and nobody takes them for numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from flightstore.errors import NotConvertible, NotStorable
from flightstore.objects.base import Object
from flightstore.types import ColumnConversion, ConversionReport

__all__ = ["described", "named_dtype", "report", "stored_array"]

_BITS = {1: "<u1", 2: "<u2"}


def described(array: np.ndarray[Any, Any], name: str) -> np.ndarray[Any, Any]:
    """An array of a dtype called `name` that NumPy cannot describe, as the structure that is stored.

    Raises:
        NotStorable: its elements are not of 1 or 2 bytes.
    """
    bits = _BITS.get(array.dtype.itemsize)
    if bits is None:
        raise NotStorable(f"an array of dtype {name} has no portable description", hint="cast it")
    return array.view(np.dtype([(name, bits)]))


def named_dtype(dtype: np.dtype[Any]) -> str | None:
    """The name of the dtype that a stored structure stands for; None if it is none of ours."""
    if dtype.names is None or len(dtype.names) != 1 or dtype[0].str.replace("|", "<") not in _BITS.values():
        return None
    return dtype.names[0]


def stored_array(obj: Object, library: str) -> np.ndarray[Any, Any]:
    """The elements of a stored tensor, read-only, in the store's memory.

    Raises:
        NotConvertible: it is no tensor, or masked.
    """
    if obj.kind != "tensor":
        raise NotConvertible(
            f"{obj!r} is a {obj.kind}, of which {library} makes no array",
            hint="obj.value(), or a column of it",
        )
    if isinstance(obj._value(), np.ma.MaskedArray):
        raise NotConvertible(f"{obj!r} is masked, which {library} has not", hint="take obj.value()")
    array: np.ndarray[Any, Any] = obj.to_numpy()  # type: ignore[attr-defined]
    return array


def report(obj: Object, library: str) -> ConversionReport:
    """All of a tensor is copied: the library cannot be told that memory is read-only.

    Raises:
        NotConvertible: as :func:`stored_array`.
    """
    array = stored_array(obj, library)
    kind = named_dtype(array.dtype) or str(array.dtype)
    reason = f"{library} cannot be told that memory is read-only, and may write to what it shares"
    return ConversionReport(library, (ColumnConversion("", kind, 0, array.nbytes, reason),))
