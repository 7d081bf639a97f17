"""What is checked of JAX arrays, for test_jax: JAX warns at every fork of a process that loaded it, so these
run in an interpreter of their own.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flightstore as fs
from flightstore.testing.types import numpy as arrays

from .library_cases import outcomes_of

DTYPES = [
    "bfloat16", "bool_", "complex64", "float16", "float32", "float4_e2m1fn", "float8_e3m4", "float8_e4m3",
    "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz",
    "float8_e8m0fnu", "int16", "int2", "int32", "int4", "int8", "uint16", "uint2", "uint32", "uint4", "uint8",
]  # fmt: skip
WIDE = ["complex128", "float64", "int64", "uint64"]


def assert_same_array(expected: Any, actual: Any) -> None:
    assert type(actual) is type(expected)
    assert (actual.dtype, actual.shape, actual.weak_type) == (
        expected.dtype, expected.shape, expected.weak_type)  # fmt: skip
    assert np.asarray(actual).tobytes() == np.asarray(expected).tobytes()


def made(dtype: str) -> Any:
    with jax.enable_x64(dtype in WIDE):
        return jnp.array([[0, 1, 1], [1, 0, 1]], dtype=getattr(jnp, dtype))


def check_every_dtype(store: fs.Store) -> None:
    for dtype in DTYPES + WIDE:
        value = made(dtype)
        obj = store.get(store.put(value, dtype, pickle=False))
        assert obj.kind == "tensor", dtype
        assert_same_array(value, obj.value())


def check_what_another_process_put(store: fs.Store) -> None:
    for dtype in DTYPES + WIDE:
        assert_same_array(made(dtype), store.get(f"elsewhere {dtype}").value())  # type: ignore[attr-defined]


def check_every_shape(store: fs.Store) -> None:
    for shape in ((), (0, 3), (1,), (5, 1, 7)):
        for value in (jnp.ones(shape, jnp.bfloat16), jnp.ones(shape), jnp.ones(shape).T):
            assert_same_array(value, store.get(store.put(value)).value())  # type: ignore[attr-defined]


def check_what_is_more_than_its_elements_is_pickled(store: fs.Store) -> None:
    weak = jnp.asarray(2)
    assert weak.weak_type
    assert_same_array(weak, store.get(store.put(weak)).value())
    with pytest.raises(fs.NotStorable, match="weak"):
        store.put(weak, pickle=False)
    key = jax.random.key(7)
    back = store.get(store.put(key)).value()  # type: ignore[attr-defined]
    assert jnp.array_equal(jax.random.key_data(back), jax.random.key_data(key))


def check_others_see_the_bits_of_dtypes_that_numpy_has_not(store: fs.Store) -> None:
    obj: Any = store.get(store.put(jnp.array([1.0, -2.0], jnp.bfloat16)))
    assert obj.to_numpy()["bfloat16"].tolist() == [0x3F80, 0xC000]


def check_a_donated_array_is_not_the_stores_memory(store: fs.Store) -> None:
    numbers = np.arange(1024, dtype=np.float32)
    obj: Any = store.get(store.put(numbers))
    array = obj.to("jax")
    before = obj.to_numpy().ctypes.data
    assert array.unsafe_buffer_pointer() != before
    step = jax.jit(lambda x: x * 2, donate_argnums=0)
    assert np.array_equal(step(array), numbers * 2)
    assert np.array_equal(obj.to_numpy(), numbers)
    assert jnp.asarray(obj).unsafe_buffer_pointer() != before


def check_dlpack_says_why_not(store: fs.Store) -> None:
    obj: Any = store.get(store.put(np.arange(4.0, dtype=np.float32)))
    with pytest.raises(BufferError, match="read-only") as refused:
        jnp.from_dlpack(obj)
    assert "copy" in str(refused.value)
    assert np.shares_memory(np.from_dlpack(obj), obj.to_numpy())
    assert not np.shares_memory(np.from_dlpack(obj, copy=True), obj.to_numpy())
    assert np.from_dlpack(obj, device="cpu").tolist() == [0, 1, 2, 3]
    assert obj.__dlpack_device__() == (1, 0)
    with pytest.raises(BufferError):
        obj.__dlpack__(max_version=(1, 0), dl_device=(2, 0))


def check_the_report_says_that_it_is_copied(store: fs.Store) -> None:
    obj = store.get(store.put(made("bfloat16")))
    (column,) = obj.conversion_report("jax").columns
    assert (column.shared_bytes, column.copied_bytes, column.type) == (0, 12, "bfloat16")
    assert "read-only" in column.reason


def check_every_array_of_the_catalogue_is_exact_or_refused(store: fs.Store) -> None:
    taken = set()
    for name, make in arrays.CATALOGUE.items():
        value = make()
        obj = store.get(store.put(value))
        try:
            found = obj.to("jax")
        except fs.NotConvertible:
            continue
        taken.add(name)
        native = value.astype(value.dtype.newbyteorder("="))
        assert (found.dtype, found.shape) == (native.dtype, value.shape), name
        assert np.asarray(found).tobytes() == np.ascontiguousarray(native).tobytes(), name
    assert len(taken) > 10


def check_what_is_no_tensor_is_refused(store: fs.Store) -> None:
    with pytest.raises(fs.NotConvertible, match="a blob"):
        store.get(store.put(b"abc")).to("jax")
    with pytest.raises(fs.NotConvertible, match="masked"):
        store.get(store.put(np.ma.masked_array([1, 2], [0, 1]))).to("jax")


def put_all(path: str) -> None:
    """Put an array of every dtype."""
    with fs.connect(path) as store:
        store.put_many({f"elsewhere {dtype}": made(dtype) for dtype in DTYPES + WIDE})


def outcomes(path: str) -> dict[str, str]:
    """What went wrong in each check; nothing where all is well."""
    return outcomes_of(globals(), path)
