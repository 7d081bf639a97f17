"""A store per test, on the memory file system, that must be sound when the test is over."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import flightstore
from flightstore.testing.events import wait_until

CAPACITY = 16 << 20


@pytest.fixture
def store_dir() -> Iterator[Path]:
    """A fresh path on the memory file system, removed afterwards; nothing is there yet."""
    place = Path(tempfile.mkdtemp(prefix="flightstore-test-", dir="/dev/shm"))
    yield place / "store"
    shutil.rmtree(place)


@pytest.fixture
def store(store_dir: Path) -> Iterator[flightstore.Store]:
    """A store of 16 MiB; when the test is over, recover and fsck must leave nothing to complain of."""
    with flightstore.connect(store_dir, capacity=CAPACITY, busy_timeout=60) as connected:
        yield connected
    with flightstore.connect(store_dir, create=False) as fresh:
        fresh.recover()
        assert fresh.fsck() == []
        assert fresh.stats().pending == 0


@pytest.fixture
def churn(store: flightstore.Store) -> Callable[[], None]:
    """Writes over all memory of the store that belongs to nobody."""

    def run() -> None:
        store.recover()
        names = []
        piece = b"\xff" * (256 << 10)
        try:
            while True:
                store.put(piece, f"churn/{len(names)}")
                names.append(f"churn/{len(names)}")
        except flightstore.StoreFull:
            assert names, "there was nothing to write over"
        store.delete(names)
        store.recover()

    return run


@pytest.fixture
def memory_returns(store: flightstore.Store) -> Callable[[int], None]:
    """Waits until the store uses so many bytes again, recovering as it goes."""

    def run(used_bytes: int) -> None:
        def is_back() -> bool:
            store.recover()
            return store.stats().used_bytes == used_bytes

        wait_until(is_back, what=f"memory comes back to {used_bytes:,} bytes", timeout_s=60)

    return run


@pytest.fixture(autouse=True)
def no_process_left() -> Iterator[None]:
    """Every test waits for the children it makes. (Those of earlier ones, such as the helper that
    multiprocessing keeps, may be there.)
    """
    before = _children()
    yield
    left = _children() - before
    for pid in left:  # of a test that failed, and did not come to it
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert left == set()


def _children() -> set[int]:
    """Processes that this one has forked and not waited for."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended since
            found.update(map(int, (task / "children").read_text().split()))
    return found
