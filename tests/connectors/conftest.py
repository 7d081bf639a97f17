"""A fresh store in shared memory for each test, consistent and gone afterwards."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator

import pytest

import flightstore as fs


@pytest.fixture
def store_dir() -> Iterator[str]:
    """A path under /dev/shm where nothing is yet; removed afterwards."""
    parent = tempfile.mkdtemp(dir="/dev/shm", prefix="flightstore-test-")
    yield f"{parent}/store"
    shutil.rmtree(parent)


@pytest.fixture
def store(store_dir: str) -> Iterator[fs.Store]:
    """A store of 16 MiB; the test ends with a clean fsck, unless it destroyed or closed the store."""
    store = fs.connect(store_dir, capacity="16MiB")
    yield store
    try:
        store.recover()
    except fs.StoreClosed:
        return
    findings = store.fsck()
    store.destroy()
    assert findings == []


@pytest.fixture
def another(store: fs.Store, store_dir: str) -> Iterator[Callable[[], fs.Store]]:
    """Makes further handles on the same store; closed afterwards."""
    handles: list[fs.Store] = []

    def connect() -> fs.Store:
        handles.append(fs.connect(store_dir))
        return handles[-1]

    yield connect
    for handle in handles:
        handle.close()


@pytest.fixture(scope="module")
def shared_store() -> Iterator[fs.Store]:
    """A store of 128 MiB for all tests of a module."""
    parent = tempfile.mkdtemp(dir="/dev/shm", prefix="flightstore-test-")
    with fs.connect(f"{parent}/store", capacity="128MiB") as store:
        yield store
        store.recover()
        findings = store.fsck()
        store.destroy()
    shutil.rmtree(parent)
    assert findings == []
