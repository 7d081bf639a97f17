"""What is checked of torch tensors, for test_torch: in an interpreter of its own, because torch is large."""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np
import pytest
import torch

import flightstore as fs
from flightstore.testing.types import numpy as arrays

from .library_cases import outcomes_of

DTYPES = [
    "bfloat16", "bool", "complex128", "complex64", "float16", "float32", "float64", "float8_e4m3fn",
    "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "int16", "int32", "int64", "int8", "uint16",
    "uint32", "uint64", "uint8",
]  # fmt: skip


def bits(tensor: Any) -> bytes:
    """The elements, in order."""
    whole = tensor.detach().resolve_conj().resolve_neg().contiguous()
    return whole.reshape(-1).view(torch.uint8).numpy().tobytes()


def assert_same_tensor(expected: Any, actual: Any) -> None:
    assert type(actual) is type(expected)
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    assert bits(actual) == bits(expected)


def made(dtype: str) -> Any:
    return torch.tensor([[0, 1, 1], [1, 0, 1]], dtype=torch.float32).to(getattr(torch, dtype))


def check_every_dtype(store: fs.Store) -> None:
    for dtype in DTYPES:
        obj = store.get(store.put(made(dtype), dtype, pickle=False))
        assert obj.kind == "tensor", dtype
        assert_same_tensor(made(dtype), obj.value())


def check_what_another_process_put(store: fs.Store) -> None:
    for dtype in DTYPES:
        assert_same_tensor(made(dtype), store.get(f"elsewhere {dtype}").value())


def check_every_shape_and_layout(store: fs.Store) -> None:
    ramp = torch.arange(120.0)
    images = ramp.reshape(2, 3, 4, 5)
    layouts = [
        ramp[0], ramp[:0].reshape(0, 3), images, images.permute(3, 1, 0, 2), images[:, ::2], images.flip(0),
        ramp[::7], ramp[:3].expand(4, 3), images.to(memory_format=torch.channels_last),
        torch.view_as_complex(ramp.reshape(60, 2)).conj(),
    ]  # fmt: skip
    for tensor in layouts:
        obj = store.get(store.put(tensor, pickle=False))
        assert obj.nbytes == tensor.numel() * tensor.element_size()
        assert_same_tensor(tensor, obj.value())


def check_what_comes_back_may_be_written_to(store: fs.Store) -> None:
    obj: Any = store.get(store.put(made("float32")))
    tensor = obj.value()
    tensor.add_(1)
    assert_same_tensor(made("float32"), obj.value())
    assert obj.to_numpy().tolist() == made("float32").tolist()


def check_the_store_keeps_what_was_put(store: fs.Store) -> None:
    tensor = made("float32")
    obj: Any = store.get(store.put(tensor))
    tensor.zero_()
    assert_same_tensor(made("float32"), obj.value())


def check_what_is_more_than_its_elements_is_pickled(store: fs.Store) -> None:
    weight = torch.nn.Parameter(made("float32"))
    sparse = made("float32").to_sparse()
    graph = made("float32").requires_grad_()
    for value in (weight, sparse, graph):
        back: Any = store.get(store.put(value)).value()
        assert type(back) is type(value)
        assert (back.requires_grad, back.layout) == (value.requires_grad, value.layout)
        assert torch.equal(back.detach().to_dense(), value.detach().to_dense())
        with pytest.raises(fs.NotStorable):
            store.put(value, pickle=False)
    state: Any = store.get(store.put({"weights": made("float64"), "step": 3})).value()
    assert state["step"] == 3
    assert_same_tensor(made("float64"), state["weights"])


def check_others_see_the_bits_of_dtypes_that_numpy_has_not(store: fs.Store) -> None:
    obj: Any = store.get(store.put(torch.tensor([1.0, -2.0], dtype=torch.bfloat16)))
    assert obj.to_numpy()["bfloat16"].tolist() == [0x3F80, 0xC000]


def check_every_array_of_the_catalogue_is_exact_or_refused(store: fs.Store) -> None:
    taken = set()
    for name, make in arrays.CATALOGUE.items():
        value = make()
        obj = store.get(store.put(value))
        try:
            found = obj.to("torch")
        except fs.NotConvertible:
            continue
        taken.add(name)
        native = np.ascontiguousarray(value.astype(value.dtype.newbyteorder("=")))
        assert tuple(found.shape) == value.shape, name
        assert bits(found) == native.tobytes(), name
    assert len(taken) > 10


def check_from_dlpack_shares_what_nobody_can_write_to(store: fs.Store) -> None:
    """torch overlooks the mark that says read-only. The memory is: who writes dies, and changes nothing."""
    obj: Any = store.get(store.put(np.arange(4.0, dtype=np.float32)))
    tensor = torch.from_dlpack(obj)
    assert tensor.data_ptr() == obj.to_numpy().ctypes.data
    writer = os.fork()
    if writer == 0:
        tensor.zero_()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(writer, 0)[1]) == -signal.SIGSEGV
    assert obj.to_numpy().tolist() == tensor.tolist() == [0, 1, 2, 3]
    copy = torch.from_dlpack(obj, copy=True)
    copy.zero_()
    assert obj.to_numpy().tolist() == [0, 1, 2, 3]


def check_the_report_says_that_it_is_copied(store: fs.Store) -> None:
    obj = store.get(store.put(made("bfloat16")))
    (column,) = obj.conversion_report("torch").columns
    assert (column.shared_bytes, column.copied_bytes, column.type) == (0, 12, "bfloat16")
    assert "read-only" in column.reason


def check_what_is_no_tensor_is_refused(store: fs.Store) -> None:
    with pytest.raises(fs.NotConvertible, match="a blob"):
        store.get(store.put(b"abc")).to("torch")
    with pytest.raises(fs.NotConvertible, match="masked"):
        store.get(store.put(np.ma.masked_array([1, 2], [0, 1]))).to("torch")


def put_all(path: str) -> None:
    """Put a tensor of every dtype."""
    with fs.connect(path) as store:
        store.put_many({f"elsewhere {dtype}": made(dtype) for dtype in DTYPES})


def outcomes(path: str) -> dict[str, str]:
    """What went wrong in each check; nothing where all is well."""
    return outcomes_of(globals(), path)
