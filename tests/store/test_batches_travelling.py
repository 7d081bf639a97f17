"""Batches that are pickled: whoever unpickles one joins it."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
from multiprocessing import resource_tracker

import pytest

import flightstore as fs


def work_in(batch: fs.Batch, name: str) -> None:
    """In a fresh interpreter."""
    store = batch.store
    with batch:
        current = store.current_batch()
        assert current is batch
        status = current.status()
        store.put(repr((status.state, len(status.owner_pids) >= 2)).encode(), name)


@pytest.mark.req("BAT-5")
def test_a_batch_travels_through_multiprocessing(store: fs.Store) -> None:
    with store.batch("job") as batch:
        names = ["part 0", "part 1", "part 2"]
        spawn = multiprocessing.get_context("spawn")
        processes = [spawn.Process(target=work_in, args=(batch, name)) for name in names]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
            assert process.exitcode == 0
            process.close()
        resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]
        assert {bytes(store.get(name).value()) for name in names} == {b"('active', True)"}
        assert batch.status().owner_pids == (os.getpid(),), "the others left"
        assert batch.status().objects == 3
    assert store.list() == []


@pytest.mark.req("BAT-5")
def test_a_pickled_batch_of_a_store_that_was_made_anew(store: fs.Store, store_dir: str) -> None:
    with fs.connect(f"{store_dir}-2", capacity="1MiB") as first:
        data = pickle.dumps(first.new_batch())
        first.destroy()
    with pytest.raises(fs.NotAStore):
        pickle.loads(data)
    with fs.connect(f"{store_dir}-2", capacity="1MiB") as second:
        with pytest.raises(fs.StoreClosed, match="another is there now"):
            pickle.loads(data)
        second.destroy()
    shutil.rmtree(f"{store_dir}-2", ignore_errors=True)


@pytest.mark.req("BAT-5")
def test_a_pickled_batch_that_ended_meanwhile(store: fs.Store) -> None:
    batch = store.new_batch()
    data = pickle.dumps(batch)
    batch.end()
    with pytest.raises(fs.BatchEnded):
        pickle.loads(data)
