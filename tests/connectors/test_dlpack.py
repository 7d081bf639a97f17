"""Arrays of libraries that nobody wrote a connector for: taken by DLPack where pickle cannot have them."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import flightstore as fs


class Foreign:
    """An array of some library, which pickle refuses."""

    def __init__(self, array: Any, device: tuple[int, int] = (1, 0)) -> None:
        self.array, self.device, self.lock = array, device, threading.Lock()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, **asked: Any) -> Any:
        if self.device[0] != 1:
            raise BufferError("not in this machine's memory")
        return self.array.__dlpack__(**asked)


@pytest.mark.req("TYP-4")
@pytest.mark.parametrize("dtype", ["f4", "f8", "i1", "u8", "c16", "?"])
@pytest.mark.parametrize("pickle", [True, False])
def test_it_becomes_a_tensor(store: fs.Store, dtype: str, pickle: bool) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    for shared in (array, array.transpose(2, 0, 1), array[:, ::2]):
        obj: Any = store.get(store.put(Foreign(shared), pickle=pickle))
        assert obj.kind == "tensor"
        assert obj.dtype == array.dtype
        assert np.array_equal(obj.to_numpy(), shared)
        assert np.array_equal(np.from_dlpack(obj), shared)


@pytest.mark.req("TYP-4", "API-7")
def test_changing_what_was_put_changes_nothing(store: fs.Store) -> None:
    array = np.zeros(100_000)
    obj: Any = store.get(store.put(Foreign(array)))
    array[:] = 1
    assert not obj.to_numpy().any()
    assert not obj.to_numpy().flags.writeable


@pytest.mark.req("TYP-4")
def test_what_is_on_a_device_is_refused(store: fs.Store) -> None:
    with pytest.raises(fs.NotStorable):
        store.put(Foreign(np.arange(3), device=(2, 0)))
    assert store.list() == []
