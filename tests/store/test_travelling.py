"""Handles that are pickled: the store and the id travel, never the bytes."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

import flightstore as fs
from flightstore.testing.children import child

pytestmark = pytest.mark.req("API-11")


def test_a_handle_is_small_and_opens_the_same_memory(store: fs.Store) -> None:
    obj = store.get(store.put(np.arange(100_000), "a"))
    data = pickle.dumps(obj)
    assert len(data) < 500
    again = pickle.loads(data)
    assert again.id == obj.id
    assert again.to_numpy().ctypes.data == obj.to_numpy().ctypes.data
    assert [holder.refs for holder in obj.holders()] == [2]


def test_another_program_opens_it(store: fs.Store) -> None:
    table = pa.table({"a": [1, 2], "s": ["x", None]})
    obj = store.get(store.put(table))
    program = "import pickle, sys; print(pickle.load(sys.stdin.buffer).to_arrow().to_pydict())"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        input=pickle.dumps(obj),
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode().strip() == str(table.to_pydict())


def test_what_arrives_outlives_the_handle_it_was_got_by(store: fs.Store) -> None:
    data = pickle.dumps(store.get(store.put(b"x" * 100_000, "b")))

    def use() -> tuple[bytes, int]:
        view = pickle.loads(data).value()
        with fs.connect(store.path) as here:
            here.delete("b")
            here.recover()
        return bytes(view[:3]), len(view)

    assert child(use) == (b"xxx", 100_000)


def test_a_handle_within_a_stored_object(store: fs.Store) -> None:
    inner = store.get(store.put(b"inner", "inner"))
    store.put({"see": inner}, "outer")
    assert bytes(store.get("outer").value()["see"]) == b"inner"


def test_what_is_gone_on_arrival(store: fs.Store, store_dir: str) -> None:
    data = pickle.dumps(store.get(store.put(b"", "gone")))
    store.delete("gone")
    with pytest.raises(fs.ObjectNotFound):
        pickle.loads(data)
    store.destroy()
    with pytest.raises(fs.NotAStore):
        pickle.loads(data)
    with fs.connect(store_dir, capacity="1MiB"), pytest.raises(fs.StoreClosed, match="another is there"):
        pickle.loads(data)
