"""The catalogue of NumPy arrays, every dtype in every order in memory, and a Hypothesis strategy of them.

Calls nothing else of ours. Elements are all the bit patterns that a dtype may hold, NaN payloads included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from typing import Any, TypeAlias

import numpy as np

from flightstore.errors import MissingExtra

try:
    from hypothesis import strategies as st
    from hypothesis.extra import numpy as npst
    from hypothesis.strategies import DrawFn, SearchStrategy
except ImportError as error:
    raise MissingExtra("generating arrays needs hypothesis", hint="pip install hypothesis") from error

__all__ = ["CATALOGUE", "arrays", "dtypes"]

Array: TypeAlias = "np.ndarray[Any, Any]"
Dtype: TypeAlias = "np.dtype[Any]"

TIME_UNITS = ("Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as")
NUMBERS = ("?", *"bBhHiIlLqQ", "e", "f", "d", "g", "F", "D", "G")
OTHERS = ("S5", "S1", "U3", "V7", "M8[25s]", "m8[7D]", "m8")
LONG = "a text longer than what StringDType holds in place"

STRUCTURES: dict[str, Any] = {
    "structure": [("a", "i4"), ("b", "f8"), ("c", "S3")],
    "aligned structure": np.dtype([("a", "i1"), ("b", "f8"), ("c", "i2")], align=True),
    "structure of structures": [("x", [("y", "u1"), ("z", "U2")]), ("t", "M8[s]")],
    "structure of subarrays": [("a", "i4", (2, 3)), ("b", [("c", "f4", 2)], 2)],
    "big-endian structure": [("a", ">i4"), ("b", ">f8"), ("c", ">U2"), ("d", "<i2")],
    "structure with gaps": {"names": ["a", "b"], "formats": ["i1", "f8"], "offsets": [3, 8], "itemsize": 24},
    "structure that overlaps itself": {"names": ["a", "b"], "formats": ["<i4", "<i2"], "offsets": [0, 2]},
    "structure with a title": [(("a title", "name"), "i4")],
    "structure of sixty fields": [(f"field{i}", "f4") for i in range(60)],
}


def _dtypes() -> Iterator[tuple[str, Dtype]]:
    yield from ((np.dtype(code).type.__name__, np.dtype(code)) for code in NUMBERS)
    yield from ((str(np.dtype(code)), np.dtype(code)) for code in OTHERS)
    for kind in "Mm":
        yield from ((f"{kind}8[{unit}]", np.dtype(f"{kind}8[{unit}]")) for unit in TIME_UNITS)
    for code in ("h", "Q", "e", "d", "D", "U3", "M8[ns]"):
        yield f"big-endian {np.dtype(code)}", np.dtype(code).newbyteorder(">")
    yield from ((name, np.dtype(fields)) for name, fields in STRUCTURES.items())


def _array(dtype: Dtype, *shape: int) -> Array:
    """Elements that differ, from bytes that no value of the dtype forbids."""
    array = np.zeros(shape, dtype)
    if dtype.names is not None:
        for number, name in enumerate(dtype.names):
            array[name] = _array(dtype[name].base, *array[name].shape) if number < 8 else number
        return array
    flat = np.arange(array.size)
    if dtype.kind in "SU":
        array[...] = np.array([f"{'aé☃'[i % 3] if dtype.kind == 'U' else 'a'}{i}" for i in flat]).reshape(
            shape
        )
    elif dtype.kind == "V":
        array[...] = np.array([bytes([i % 256]) * dtype.itemsize for i in flat], dtype).reshape(shape)
    elif dtype.kind in "mM":
        array[...] = (
            (flat * 1000 - 3000).view("m8").reshape(shape).astype(dtype.str.replace("M", "m")).view(dtype)
        )
    else:
        array[...] = (flat - 3).astype(dtype).reshape(shape)
    return array


def _with_edges(dtype: Dtype) -> Array:
    """A dimension of elements, the extremes of the dtype among them."""
    array = _array(dtype, 12)
    if dtype.kind in "iu":
        array[:2] = np.iinfo(dtype).min, np.iinfo(dtype).max
    elif dtype.kind in "fc":
        array[:4] = np.nan, -0.0, np.inf, -np.inf
        payload = bytearray(array[:1].tobytes())
        payload[-1 if dtype.byteorder == ">" else 0] ^= 1
        array[4:5] = np.frombuffer(bytes(payload), dtype)
    elif dtype.kind in "mM":
        array[:1] = "NaT"
    return array


def _orders(dtype: Dtype) -> Iterator[tuple[str, Callable[[], Array]]]:
    yield "", partial(_with_edges, dtype)
    yield "Fortran order", lambda: np.asfortranarray(_array(dtype, 3, 4))
    yield "strides", lambda: _array(dtype, 5, 6)[::-2, 1::2]
    yield "no dimensions", lambda: _array(dtype, 4)[3:].reshape(())
    yield "no elements", lambda: _array(dtype, 2, 0, 3)


def _unaligned() -> Array:
    return np.frombuffer(b"x" + np.arange(6.0).tobytes(), np.float64, offset=1)


def _read_only() -> Array:
    array = np.arange(6)
    array.flags.writeable = False
    return array


SHAPES: dict[str, Callable[[], Array]] = {
    "transposed": lambda: _array(np.dtype("f8"), 2, 3, 4).transpose(1, 2, 0),
    "three dimensions in Fortran order": lambda: np.asfortranarray(_array(np.dtype("i2"), 2, 3, 4)),
    "reversed": lambda: np.arange(10)[::-1],
    "every seventh": lambda: np.arange(100)[::7],
    "a column of a matrix": lambda: _array(np.dtype("f4"), 5, 6)[:, 2],
    "a row of a matrix": lambda: _array(np.dtype("f4"), 5, 6)[2],
    "broadcast": lambda: np.broadcast_to(np.arange(3), (4, 3)),
    "thirty-two dimensions": lambda: np.arange(4).reshape((1, 2) * 2 + (1,) * 28),
    "unaligned": _unaligned,
    "read-only": _read_only,
    "no dimensions, no fields": lambda: np.zeros((), np.dtype([])),
    "elements of no bytes": lambda: np.zeros((2, 3), "V0"),
    "large": lambda: np.arange(300_000),
    "large, strides": lambda: np.arange(300_000).reshape(300, 1000)[::2, ::3],
}


def _pickled() -> Iterator[tuple[str, Callable[[], Array]]]:
    """What NumPy cannot describe without Python."""
    yield "objects", lambda: np.array([1, "two", None, float("nan"), b"x", (1, 2), 10**40], object)
    yield "objects in Fortran order", lambda: np.asfortranarray(np.array([[1, "a"], [None, 2.5]], object))
    mixed = np.dtype([("a", "i4"), ("o", object)])
    yield "structure of objects", lambda: np.array([(1, "x"), (2, None)], mixed)
    texts = ["", "a", LONG, "\N{SNOWMAN}\0b"]
    if hasattr(np.dtypes, "StringDType"):
        yield "strings", lambda: np.array(texts, np.dtypes.StringDType())
        missing = np.dtypes.StringDType(na_object=None)
        yield "strings with missing ones", lambda: np.array([*texts, None], missing)
        yield "strings in two dimensions", lambda: np.array([texts, texts[::-1]], np.dtypes.StringDType())


def _entries() -> Iterator[tuple[str, Callable[[], Array]]]:
    for name, dtype in _dtypes():
        for order, make in _orders(dtype):
            yield f"{name}: {order}" if order else name, make
    yield from ((f"shape: {name}", make) for name, make in SHAPES.items())
    yield from ((f"pickled: {name}", make) for name, make in _pickled())


CATALOGUE: dict[str, Callable[[], Array]] = dict(_entries())
"""Arrays by name; each call makes a new one."""


def _in_both_orders(codes: Iterable[str]) -> SearchStrategy[Dtype]:
    plain = [np.dtype(code) for code in codes]
    return st.sampled_from([*plain, *(dtype.newbyteorder(">") for dtype in plain)])


@cache
def dtypes(*, max_depth: int = 2) -> SearchStrategy[Dtype]:
    """Dtypes of every kind but Python objects, in either byte order; structures nested, aligned or not."""
    times = _in_both_orders(f"{kind}8[{unit}]" for kind in "Mm" for unit in TIME_UNITS)
    texts = _in_both_orders(f"{kind}{size}" for kind in "SUV" for size in range(1, 9))
    scalars = _in_both_orders((*NUMBERS, *OTHERS)) | times | texts
    return scalars | _structures(max_depth) if max_depth else scalars


_NAMES = st.lists(st.sampled_from(["a", "b", "c", "\u00fc", "x y"]), unique=True, max_size=3)
_SUBARRAYS = st.just(()) | st.just(()) | npst.array_shapes(max_dims=2, max_side=2)


@st.composite
def _structures(draw: DrawFn, max_depth: int) -> Dtype:
    inner = dtypes(max_depth=max_depth - 1)
    fields = [(name, draw(inner), draw(_SUBARRAYS)) for name in draw(_NAMES)]
    return np.dtype(fields, align=draw(st.booleans()))


_SHAPES = npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)


@st.composite
def arrays(draw: DrawFn, dtype: Dtype | None = None) -> Array:
    """Arrays of a dtype, or of any: up to four dimensions, either order, cut, reversed, transposed."""
    if dtype is None:
        dtype = draw(dtypes())
    array = np.zeros(draw(_SHAPES), dtype)
    _fill(draw, array)
    if draw(st.booleans()):
        array = np.asfortranarray(array)
    if array.ndim and draw(st.booleans()):
        view = array[draw(npst.basic_indices(array.shape, allow_ellipsis=False, allow_newaxis=True))]
        array = view if isinstance(view, np.ndarray) else array
    if array.ndim > 1 and draw(st.booleans()):
        array = array.transpose(draw(st.permutations(range(array.ndim))))
    return array


def _fill(draw: DrawFn, array: Array) -> None:
    """Put any bytes into an array that its dtype allows."""
    dtype = array.dtype
    if dtype.names is not None:
        for name in dtype.names:
            _fill(draw, array[name])
    elif dtype.kind == "U":
        texts = st.text(max_size=dtype.itemsize // 4)
        array[...] = np.array(draw(_lists(texts, array.size)), f"U{dtype.itemsize // 4}").reshape(array.shape)
    elif dtype.kind == "b":
        array[...] = np.array(draw(_lists(st.booleans(), array.size)), bool).reshape(array.shape)
    else:
        block = draw(st.binary(min_size=array.nbytes, max_size=array.nbytes))
        array[...] = np.frombuffer(block, dtype, array.size).reshape(array.shape) if array.nbytes else array
        if array.size and dtype.kind in "fcmM" and draw(st.booleans()):
            array[(0,) * array.ndim] = "NaT" if dtype.kind in "mM" else np.nan


def _lists(elements: SearchStrategy[Any], size: int) -> SearchStrategy[list[Any]]:
    return st.lists(elements, min_size=size, max_size=size)
