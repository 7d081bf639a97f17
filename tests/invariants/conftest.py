"""A small store for each test, sound when the test is over; lets the tests import every_call.py."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import flightstore as fs

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def store(store_dir: Path) -> Iterator[fs.Store]:
    """A store of 4 MiB; recover and fsck must leave nothing to complain of."""
    connected = fs.connect(store_dir, capacity="4MiB")
    yield connected
    connected.recover()
    findings = connected.fsck()
    connected.destroy()
    assert findings == []


@pytest.fixture
def spilled(tmp_path: Path, store: fs.Store) -> Path:
    """The directory that the store spills to."""
    store.set_spill(str(tmp_path / "spilled"))
    return tmp_path / "spilled"
