"""What the fault tests share: fresh stores in shared memory that go away whatever happens."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Iterator

import pytest

import flightstore


@pytest.fixture
def store_dir() -> Iterator[str]:
    """A path in shared memory at which there is no store yet; removed afterwards."""
    parent = tempfile.mkdtemp(prefix="flightstore-faults-", dir="/dev/shm")
    yield os.path.join(parent, "store")
    shutil.rmtree(parent)


@pytest.fixture
def store(store_dir: str) -> Iterator[flightstore.Store]:
    """A store of 16 MiB, checked and closed at the end unless the test has destroyed it."""
    made = flightstore.connect(store_dir, capacity=16 << 20, busy_timeout=120)
    yield made
    if os.path.exists(os.path.join(store_dir, "control")):
        made.recover()
        assert made.fsck() == []
    made.close()
    gc.collect()  # exceptions that were caught hold leases, and so the store, in cycles with their frames
