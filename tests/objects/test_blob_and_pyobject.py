"""Bytes-like values and pickled objects."""

from __future__ import annotations

import array
import ctypes
import mmap
import pickle
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightstore.errors import NotStorable
from flightstore.objects.blob import Blob
from flightstore.objects.pyobject import PyObject
from flightstore.objects.registry import encode
from flightstore.types import ObjectID

from .conftest import open_payload, place

Through = Callable[..., Any]


@pytest.mark.req("TYP-4")
@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"abc",
        bytearray(b"abc"),
        memoryview(b"abcdef")[1:4],
        memoryview(b"12345678").cast("I"),
        memoryview(b"12345678").cast("B", (2, 4)),
        memoryview(b"12345678").cast("d", ()),
        memoryview(b"12345678").cast("b"),
        memoryview(array.array("d")),
        array.array("d", [1.5, 2.5]),
        array.array("q"),
        pa.py_buffer(b"arrow"),
        bytes(range(256)) * 1000,
    ],
    ids=lambda value: type(value).__name__,
)
def test_bytes_like_values_come_back_equal(store_value: Through, value: Any) -> None:
    obj = store_value(value, pickle=False)
    assert isinstance(obj, Blob)
    got = obj.value()
    assert got == memoryview(value).cast("B") if isinstance(value, pa.Buffer) else got == value
    assert got.readonly
    assert bytes(obj) == obj.to_bytes() == memoryview(value).tobytes()
    assert len(obj) == memoryview(value).nbytes


def test_a_mapped_file_is_bytes(store_value: Through) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b"contents")
        file.flush()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            assert bytes(store_value(mapped)) == b"contents"


@pytest.mark.req("O-3")
def test_a_blob_is_shared() -> None:
    payload = encode(b"x" * 100)
    extent = place(payload)
    view = open_payload(payload, extent).value()
    assert pa.py_buffer(view).address == extent.address
    with pytest.raises(TypeError, match="read-only"):
        view[0] = 1


def test_a_bytearray_cannot_be_resized_before_it_is_copied() -> None:
    value = bytearray(b"abc")
    payload = encode(value)
    with pytest.raises(BufferError):
        value += b"d"
    assert payload.size_bytes == 3


def test_bytes_that_are_not_together_are_refused_with_a_way_out() -> None:
    with pytest.raises(NotStorable, match="contiguous") as caught:
        encode(memoryview(b"abcdef")[::2])
    assert "np.asarray" in caught.value.hint


class Point:
    def __init__(self, x: Any) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and self.x == other.x


@pytest.mark.req("TYP-4")
@pytest.mark.parametrize(
    "value",
    [None, 1, 2.5, "text", (1, [2, {"k": {3}}]), Point(4), ObjectID(b"12"), range(3), np.float64(1.5),
     int, len],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_any_picklable_object(store_value: Through, value: Any) -> None:
    obj = store_value(value)
    assert isinstance(obj, PyObject)
    got = obj.value()
    assert got == value
    assert type(got) is type(value)


@pytest.mark.req("TYP-4")
def test_buffers_go_out_of_band_aligned_and_shared() -> None:
    value = {
        "a": np.arange(1000),
        "b": [np.ones((3, 5), order="F"), np.zeros(0)],
        "c": pa.array([1, 2, None]),
    }
    payload = encode(value)
    assert len(pickle.dumps(value)) > 8000 > payload.pieces[0][1].__len__()
    extent = place(payload)
    got = open_payload(payload, extent).value()
    assert np.array_equal(got["a"], value["a"])
    assert got["b"][0].flags.f_contiguous
    assert np.array_equal(got["b"][0], value["b"][0])
    assert got["b"][1].shape == (0,)
    assert got["c"].equals(value["c"])
    for array_ in (got["a"], got["b"][0]):
        assert array_.ctypes.data % 64 == 0
        assert extent.address < array_.ctypes.data < extent.address + payload.size_bytes
        assert not array_.flags.writeable
    for buffer in got["c"].buffers():
        assert extent.address < buffer.address < extent.address + payload.size_bytes


@pytest.mark.req("TYP-4")
@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 200), max_size=40))
def test_any_number_of_buffers(sizes: list[int]) -> None:
    value = [np.full(size, size, np.uint8) for size in sizes]
    payload = encode(value)
    assert len(payload.layout) < 1000
    got = open_payload(payload).value()
    assert [a.tobytes() for a in got] == [a.tobytes() for a in value]


def test_thousands_of_buffers_keep_the_layout_short(store_value: Through) -> None:
    value = [np.full(3, i) for i in range(3000)]
    assert all(np.array_equal(a, b) for a, b in zip(store_value(value).value(), value, strict=True))


def test_a_pickle_buffer_with_gaps_is_an_error_not_garbage() -> None:
    with pytest.raises(NotStorable):
        encode([pickle.PickleBuffer(np.arange(10)[::2])])


class Subclass(np.ndarray):
    """An array of somebody's own."""


def test_bytes_exposed_where_pickle_is_refused(store_value: Through) -> None:
    assert bytes(store_value(ObjectID(b"12"), pickle=False)) == b"12"
    with pytest.raises(NotStorable):
        encode(np.array([1]).view(Subclass), pickle=False)
    with pytest.raises(NotStorable):
        encode(np.float64(1), pickle=False)
    assert bytes(store_value((ctypes.c_int16 * 2)(0x6261, 0x6463))) == b"abcd"
