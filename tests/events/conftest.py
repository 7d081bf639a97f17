"""A store per test, sound when the test is over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import flightstore


@pytest.fixture
def store(store_dir: Path) -> Iterator[flightstore.Store]:
    """A store of 16 MiB; when the test is over, recover and fsck must leave nothing to complain of."""
    with flightstore.connect(store_dir, capacity="16MiB", busy_timeout=60) as connected:
        yield connected
    with flightstore.connect(store_dir, create=False) as fresh:
        fresh.recover()
        assert fresh.fsck() == []
