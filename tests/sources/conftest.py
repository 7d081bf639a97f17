"""What the tests of the routines share: a store, and tables to read and cut."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import flightstore as fs


@pytest.fixture
def store(store_dir: Path) -> Iterator[fs.Store]:
    """A store of 256 MiB; the test ends with a clean fsck and nothing half-made."""
    store = fs.connect(store_dir, capacity="256MiB")
    yield store
    store.recover()
    findings, stats = store.fsck(), store.stats()
    store.destroy()
    assert findings == []
    assert stats.pending == 0


@pytest.fixture(scope="session")
def table() -> pa.Table:
    """Rows of several types, with nulls, in an order that `id` tells."""
    count = 20_000
    rng = np.random.default_rng(7)
    return pa.table(
        {
            "id": np.arange(count),
            "x": pa.array(rng.normal(size=count), mask=rng.random(count) < 0.1),
            "s": pa.array([None if i % 11 == 0 else f"text {i % 977}" for i in range(count)]),
            "when": pa.array(rng.integers(0, 1 << 40, count), pa.timestamp("us")),
            "kind": pa.array([f"kind {i % 5}" for i in range(count)]).dictionary_encode(),
        }
    )
