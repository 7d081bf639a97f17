"""Tensors through NumPy, DLPack, the buffer protocol and Arrow: shared, read-only, exact."""

from __future__ import annotations

import gc
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import flightstore as fs
from flightstore.testing.children import spawned

ARRAYS: dict[str, Any] = {
    "flat": np.arange(12.0),
    "C order": np.arange(12, dtype="i4").reshape(3, 4),
    "Fortran order": np.asfortranarray(np.arange(12, dtype="u2").reshape(3, 4)),
    "three dimensions": np.arange(24, dtype="c8").reshape(2, 3, 4),
    "no dimensions": np.array(2.5, dtype="f2"),
    "no elements": np.zeros((0, 3)),
    "bool": np.array([True, False]),
}


def address(array: Any) -> int:
    return int(np.asarray(array).ctypes.data)


def stored(store: fs.Store, value: Any) -> Any:
    return store.get(store.put(value, pickle=False))


def is_within(array: np.ndarray, obj: Any) -> bool:
    payload = obj._live.payload
    return bool(payload.address <= address(array) <= payload.address + payload.size - array.nbytes)


# --- protocols ---


@pytest.mark.req("TYP-4")
@pytest.mark.parametrize("name", ARRAYS)
def test_dlpack_shares_the_arena(store: fs.Store, name: str) -> None:
    array = ARRAYS[name]
    obj = stored(store, array)
    got = np.from_dlpack(obj)
    np.testing.assert_array_equal(got, array, strict=True)
    assert got.strides == array.strides or not array.size
    assert not got.flags.writeable
    assert not array.size or is_within(got, obj)
    assert obj.__dlpack_device__() == (1, 0)
    assert got.flags.f_contiguous == array.flags.f_contiguous


@pytest.mark.req("TYP-4", "TYP-5")
def test_a_consumer_that_wants_to_write_gets_a_copy_or_the_remedy(store: fs.Store) -> None:
    obj = stored(store, np.asfortranarray(np.ones((3, 4))))
    with pytest.raises(BufferError, match="read-only") as refused:
        obj.__dlpack__()
    assert isinstance(refused.value, fs.FlightStoreError)
    assert "copy()" in refused.value.hint
    with pytest.raises(BufferError):
        obj.__dlpack__(max_version=(0, 8))
    copied = np.from_dlpack(obj, copy=True)
    assert copied.flags.writeable
    assert copied.flags.f_contiguous
    assert not is_within(copied, obj)
    copied[:] = 7
    np.testing.assert_array_equal(obj.value(), np.ones((3, 4)))
    assert type(obj.__dlpack__(copy=True)).__name__ == "PyCapsule", "consumers of the earlier protocol"


@pytest.mark.req("TYP-4")
@pytest.mark.parametrize("dtype", [">f8", "M8[s]", "S3", "U2", "V4", [("a", "i4")], "g"], ids=str)
def test_a_dtype_that_dlpack_has_not_is_named(store: fs.Store, dtype: Any) -> None:
    obj = stored(store, np.zeros(3, dtype))
    with pytest.raises(BufferError, match="dtype") as refused:
        np.from_dlpack(obj)
    assert str(np.dtype(dtype)) in str(refused.value)
    assert "np.asarray" in refused.value.hint
    assert np.asarray(obj).dtype == np.dtype(dtype)


def test_other_devices_are_refused(store: fs.Store) -> None:
    obj = stored(store, np.arange(3))
    with pytest.raises(BufferError, match="device"):
        obj.__dlpack__(max_version=(1, 0), dl_device=(2, 0))


@pytest.mark.req("TYP-4")
@pytest.mark.parametrize("name", ARRAYS)
def test_the_buffer_protocol_shares_the_arena(store: fs.Store, name: str) -> None:
    array = ARRAYS[name]
    obj = stored(store, array)
    takes_python_buffers = sys.version_info >= (3, 12)
    view = memoryview(obj) if takes_python_buffers else obj.__buffer__(0)
    assert view.readonly
    assert (view.shape, view.format) == (array.shape, memoryview(array).format)
    got = np.asarray(view)
    np.testing.assert_array_equal(got, array, strict=True)
    assert not array.size or is_within(got, obj)
    with pytest.raises(BufferError, match="read-only"):
        obj.__buffer__(1)
    assert np.shares_memory(np.asarray(obj), got) or not array.size


@pytest.mark.req("TYP-4")
@pytest.mark.parametrize("dtype", ["M8[s]", [(("title", "name"), "i4")]], ids=str)
def test_an_array_that_no_buffer_describes(store: fs.Store, dtype: Any) -> None:
    obj = stored(store, np.zeros(3, dtype))
    with pytest.raises(BufferError, match="dtype"):
        obj.__buffer__(0)
    assert np.asarray(obj).dtype == np.dtype(dtype)
    assert address(obj) == address(obj.value())


@pytest.mark.req("TYP-4")
def test_arrow_tensors(store: fs.Store) -> None:
    array = np.arange(12.0).reshape(3, 4)
    for given in (
        pa.Tensor.from_numpy(array),
        pa.Tensor.from_numpy(array, dim_names=["row", "column"]),
        pa.Tensor.from_numpy(array.T),
        pa.Tensor.from_numpy(array[:, ::2]),
    ):
        obj = stored(store, given)
        assert obj.kind == "tensor"
        got = obj.value()
        assert isinstance(got, pa.Tensor)
        assert got.equals(given)
        assert got.dim_names == given.dim_names
        assert not got.is_mutable
        assert obj.to_arrow().equals(given)
        assert is_within(got.to_numpy(), obj)
    plain = stored(store, array)
    assert plain.to_arrow().equals(pa.Tensor.from_numpy(array))
    assert is_within(plain.to_arrow().to_numpy(), plain)
    with pytest.raises(fs.NotStorable, match="names"):
        stored(store, pa.Tensor.from_numpy(array, dim_names=["x" * 500, "y"]))


@pytest.mark.req("TYP-4")
@pytest.mark.parametrize("dtype", ["?", ">f8", "c16", "M8[s]", "S3"])
def test_a_dtype_that_arrow_has_no_tensors_of(store: fs.Store, dtype: str) -> None:
    with pytest.raises(fs.NotConvertible, match="dtype"):
        stored(store, np.zeros((2, 3), dtype)).to_arrow()


# --- NumPy's other arrays ---


def others() -> dict[str, Any]:
    numbers = np.arange(12.0).reshape(3, 4)
    pairs = [("a", "i4"), ("b", "S3")]
    masked = np.ma.masked_array
    return {
        "records": np.rec.array([(1, b"x"), (2, b"y")], dtype=pairs),
        "no records": np.rec.array(np.zeros(0, pairs)),
        "a record array of numbers": numbers.view(np.recarray),
        "matrix": numbers.view(np.matrix),
        "masked": masked(numbers, mask=numbers % 2 == 0),
        "masked, Fortran order": masked(np.asfortranarray(numbers), mask=np.asfortranarray(numbers > 3)),
        "masked, own fill value": masked(numbers, mask=True, fill_value=-7),
        "masked, hard": masked(numbers, mask=numbers > 3, hard_mask=True),
        "masked nowhere": masked(numbers),
        "masked fields": masked(np.zeros(3, pairs), mask=[(0, 1), (1, 0), (0, 0)]),
        "masked dates": masked(np.array(["2024-02-29", "NaT"], "M8[D]"), mask=[True, False]),
        "masked, sliced": masked(numbers, mask=numbers % 2 == 0)[:, 1::2],
        "masked, no elements": masked(np.zeros((0, 2)), mask=np.zeros((0, 2), bool)),
    }


def assert_same_array(got: Any, expected: Any) -> None:
    """Class, dtype (with the class of its scalars), order and bytes; mask and fill value."""
    assert type(got) is type(expected)
    assert got.dtype == expected.dtype
    assert got.dtype.type is expected.dtype.type
    assert got.shape == expected.shape
    assert np.asarray(got).tobytes() == np.asarray(expected).tobytes()
    if isinstance(expected, np.ma.MaskedArray):
        assert (got.mask is np.ma.nomask) == (expected.mask is np.ma.nomask)
        assert np.ma.getmaskarray(got).tobytes() == np.ma.getmaskarray(expected).tobytes()
        assert got.hardmask == expected.hardmask
        assert got.fill_value.tobytes() == np.asarray(expected.fill_value).tobytes()


def read_others(path: str) -> int:
    with fs.connect(path) as store:
        expected = others()
        for name, value in expected.items():
            assert_same_array(store.get(name).value(), value)  # type: ignore[attr-defined]
        return len(expected)


@pytest.mark.req("TYP-4")
def test_another_process_reads_numpys_other_arrays(store: fs.Store) -> None:
    store.put_many(others())
    assert spawned(read_others, store.path) == len(others())


@pytest.mark.req("TYP-4")
@pytest.mark.parametrize("name", others())
def test_numpys_other_arrays_are_shared(store: fs.Store, name: str) -> None:
    value = others()[name]
    obj = stored(store, value)
    assert obj.kind == "tensor"
    got = obj.value()
    assert_same_array(got, value)
    assert not got.flags.writeable
    assert not got.size or is_within(np.asarray(got), obj)
    if (
        isinstance(got, np.ma.MaskedArray)
        and got.mask is not np.ma.nomask
        and got.size
        and not got.dtype.names
    ):
        assert is_within(got.mask, obj)
    np.testing.assert_array_equal(np.asarray(obj), np.asarray(value))
    if got.size:
        with pytest.raises(ValueError, match="read-only"):
            got[0] = got[1]


@pytest.mark.req("TYP-4")
def test_what_is_more_than_that_goes_to_pickle(store: fs.Store) -> None:
    numbers = np.ma.masked_array([1.5, 2.5], mask=[True, False])
    numbers._optinfo["unit"] = "kg"
    odd = {
        "optional information": numbers,
        "text": np.array(["a", "a longer text"], np.dtypes.StringDType()),
        "scalar": np.float32(1.5),
        "record": np.rec.array([(1, 2.5)])[0],
        "masked objects": np.ma.masked_array([1, "x"], mask=[True, False], dtype=object),
        "the masked constant": np.ma.masked,
        "records as a plain array": np.rec.array([(1, 2.5)]).view(np.ndarray),
    }
    for name, value in odd.items():
        obj = store.get(store.put(value))
        assert obj.kind == "object", name
        got = obj.value()
        assert type(got) is type(value), name
        assert got is value or repr(got) == repr(value), name
        assert getattr(got, "dtype", None) == getattr(value, "dtype", None), name
        with pytest.raises(fs.NotStorable):
            store.put(value, pickle=False)


# --- memory ---


@pytest.mark.req("TYP-4")
@pytest.mark.parametrize(
    "make",
    [
        lambda base: base[::2],
        lambda base: base[:, :9000],
        lambda base: base[::-1, 5:8000],
        lambda base: base.reshape(4, 5, 10_000)[1:3, ::2],
        lambda base: base.reshape(4, 5, 10_000).transpose(1, 0, 2),
        lambda base: np.broadcast_to(base[3], (3, 10_000)),
        lambda base: base[:, ::3],
        lambda base: base.T[::2],
        lambda base: base[::2][:0],
    ],
)  # fmt: skip
def test_arrays_with_gaps(store: fs.Store, make: Any) -> None:
    value = make(np.arange(200_000.0).reshape(20, 10_000))
    got = stored(store, value).value()
    np.testing.assert_array_equal(got, value, strict=True)
    assert got.flags.c_contiguous


@pytest.mark.req("TYP-5", "TYP-4")
def test_changing_what_was_put_changes_nothing(store: fs.Store) -> None:
    numbers = np.arange(50_000.0)
    masked = np.ma.masked_array(np.arange(50_000), mask=np.zeros(50_000, bool))
    first, second = stored(store, numbers), stored(store, masked)
    numbers[:] = -1
    masked[:] = np.ma.masked
    assert first.value().sum() == sum(range(50_000))
    assert not second.value().mask.any()
    assert second.value().sum() == sum(range(50_000))


@pytest.mark.req("API-4", "API-7")
def test_views_by_any_protocol_outlive_the_object(store: fs.Store) -> None:
    wanted = np.arange(100_000.0)
    before = store.stats().used_bytes
    views = (
        np.from_dlpack,
        np.asarray,
        lambda obj: np.asarray(obj.__buffer__(0)),
        lambda obj: obj.to_arrow().to_numpy(),
        lambda obj: obj.value(),
    )
    for view in views:
        obj = store.get(store.put(wanted, "x"))
        got = view(obj)
        obj.release()
        store.delete("x")
        fillers = [store.put(bytes([i]) * (1 << 20)) for i in range(14)]
        np.testing.assert_array_equal(got, wanted)
        del got, obj
        gc.collect()
        for filler in fillers:
            store.delete(filler)
        store.recover()
        assert store.stats().used_bytes == before
