"""A child forked by C code runs no hooks of Python: it shares its parent's leases, and must not drop them."""

from __future__ import annotations

import ctypes
import gc
import os

import pytest

import flightstore as fs


@pytest.mark.req("FAIL-4", "INV-2")
def test_a_child_forked_by_c_code_leaves_the_parents_leases_alone(store_dir: str) -> None:
    with fs.connect(store_dir, capacity="1MiB") as store:
        store.put(b"abc" * 100, "held")
        obj = store.get("held")
        pid = ctypes.PyDLL(None).fork()
        if pid == 0:
            del obj
            gc.collect()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert [holder.pid for holder in obj.holders()] == [os.getpid()]
        store.delete("held")
        store.recover()
        store.put(os.urandom(300))
        assert bytes(obj.value()) == b"abc" * 100
        del obj
        store.recover()
        assert store.fsck() == []
