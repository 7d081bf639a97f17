"""Batches that are pickled: whoever unpickles one joins it."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
from multiprocessing import resource_tracker

import pytest

import flightstore as fs


def work_in(batch: fs.Batch, name: str) -> tuple[str, int]:
    """In a fresh interpreter."""
    store = fs.connect(batch._path)
    with batch:
        store.put(name.encode(), name)
        current = store.current_batch()
        assert current is not None
        return current.status().state, len(current.status().owner_pids)


@pytest.mark.req("BAT-5")
def test_a_batch_travels_through_multiprocessing(store: fs.Store) -> None:
    with store.batch("job") as batch:
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            results = pool.starmap(work_in, [(batch, f"part {number}") for number in range(4)])
            pool.close()
            pool.join()
        resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]
        assert {state for state, _ in results} == {"active"}
        assert min(owners for _, owners in results) >= 2
        assert batch.status().owner_pids == (os.getpid(),), "the others left"
        assert batch.status().objects == 4
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
