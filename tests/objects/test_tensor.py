"""Tensors: NumPy arrays of every dtype, order and shape, exactly, read-only and shared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from flightstore.errors import NotStorable
from flightstore.objects.pyobject import PyObject
from flightstore.objects.registry import encode
from flightstore.objects.tensor import Tensor

from .conftest import open_payload, place

Through = Callable[..., Any]


def check(array: np.ndarray) -> np.ndarray:
    payload = encode(array, pickle=False)
    assert len(payload.layout) < 1000
    extent = place(payload)
    obj = open_payload(payload, extent)
    assert isinstance(obj, Tensor)
    got = obj.to_numpy()
    assert type(got) is np.ndarray
    assert got.dtype == obj.dtype == array.dtype
    assert got.shape == obj.shape == array.shape
    assert got.tobytes("A") == array.tobytes("A")  # as it lies: a copy in another order leaves padding out
    assert not got.flags.writeable
    if array.flags.f_contiguous:
        assert got.flags.f_contiguous
    if array.flags.c_contiguous:
        assert got.flags.c_contiguous
    if array.nbytes:
        assert got.ctypes.data == extent.address, "shared"
    assert obj.strides == got.strides
    return got


DTYPES = [
    "?", "i1", "u8", ">i4", "f2", "f4", ">f8", "c8", "c16", "g", "M8[ns]", "M8[D]", "m8[s]", ">M8[us]", "S5",
    "U3", ">U3", "V7", "S0", [("a", "i4"), ("b", ">f8", (2, 3))],
    [("x", [("y", "u1"), ("z", "S3")]), ("t", "M8[s]")],
    {"names": ["a", "b"], "formats": ["i1", "f8"], "offsets": [3, 8], "itemsize": 24},
    [(("title", "name"), "i4")], [(f"field{i}", "f4") for i in range(60)],
]  # fmt: skip
SHAPES = [(), (0,), (7,), (3, 4), (2, 0, 3), (2, 3, 4), (1,) * 8]


@pytest.mark.req("TYP-4")
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype)[:30])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_dtype_and_shape(dtype: Any, shape: tuple[int, ...]) -> None:
    dtype = np.dtype(dtype)
    count = int(np.prod(shape))
    raw = np.random.default_rng(3).integers(0, 100, count * dtype.itemsize, np.uint8)
    array = np.ndarray(shape, dtype, buffer=raw.tobytes() or b"\0")
    check(array)
    check(np.asfortranarray(array))


@pytest.mark.req("TYP-4")
@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_array_and_any_view_of_it(data: st.DataObject) -> None:
    dtypes = st.one_of(
        npst.scalar_dtypes(),
        npst.nested_dtypes(npst.scalar_dtypes(), max_leaves=5),
        npst.complex_number_dtypes(),
    )
    dtype = data.draw(dtypes.filter(lambda d: d.shape == ()))
    array = data.draw(npst.arrays(dtype, npst.array_shapes(min_dims=0, max_side=5, min_side=0)))
    check(array)
    if array.ndim:
        view = array[data.draw(npst.basic_indices(array.shape))]
        if isinstance(view, np.ndarray):
            check(view)
        check(array.transpose(data.draw(st.permutations(range(array.ndim)))))


@pytest.mark.req("TYP-4")
def test_broadcast_and_reversed_arrays_are_compacted() -> None:
    check(np.broadcast_to(np.arange(3), (4, 3)))
    check(np.arange(10)[::-1])
    check(np.arange(24).reshape(2, 3, 4)[:, ::2])


@pytest.mark.req("TYP-4")
def test_object_dtypes_go_to_pickle(store_value: Through) -> None:
    array = np.array([1, "x", None], object)
    obj = store_value(array)
    assert isinstance(obj, PyObject)
    assert obj.value().tolist() == [1, "x", None]
    for refused in (array, np.zeros(2, [("a", "i4"), ("o", object)])):
        with pytest.raises(NotStorable, match="Python objects"):
            encode(refused, pickle=False)


@pytest.mark.req("TYP-4")
@pytest.mark.skipif(not hasattr(np.dtypes, "StringDType"), reason="NumPy 2 brought it")
def test_numpys_strings_of_any_length_go_to_pickle(store_value: Through) -> None:
    array = np.array(["x", "a longer one that is not held in place"], np.dtypes.StringDType())
    got = store_value(array).value()
    assert got.dtype == array.dtype
    assert got.tolist() == array.tolist()


@pytest.mark.req("TYP-4")
def test_subclasses_keep_their_type(store_value: Through) -> None:
    masked = np.ma.masked_array([1, 2, 3], mask=[False, True, False])
    got = store_value(masked).value()
    assert isinstance(got, np.ma.MaskedArray)
    assert got.tolist() == [1, None, 3]


@pytest.mark.req("TYP-4")
def test_a_dtype_that_overlaps_itself(store_value: Through) -> None:
    dtype = np.dtype({"names": ["a", "b"], "formats": ["i4", "i2"], "offsets": [0, 2]})
    array = np.array([(0x01020304, 0x0102)], dtype)
    assert np.array_equal(store_value(array).value(), array)


def test_numpys_array_protocol(store_value: Through) -> None:
    obj = store_value(np.arange(6.0).reshape(2, 3))
    assert np.shares_memory(np.asarray(obj), obj.to_numpy())
    assert np.asarray(obj, dtype="f4").dtype == np.float32
    copied = np.array(obj)
    assert copied.flags.writeable
    copied[0, 0] = 9
    assert obj.value()[0, 0] == 0
    assert np.shares_memory(obj.__array__(copy=False), obj.to_numpy())
    with pytest.raises(ValueError, match="without a copy"):
        obj.__array__("f4", copy=False)
    assert len(obj) == 2
    assert obj.order == "C"


def test_a_tensor_without_dimensions_has_no_length(store_value: Through) -> None:
    obj = store_value(np.array(3))
    assert obj.value()[()] == 3
    with pytest.raises(TypeError):
        len(obj)
