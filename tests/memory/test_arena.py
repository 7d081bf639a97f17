"""The arena's mappings, as threads use them."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flightstore.memory.arena import Arena, create_arena

ARENA_BYTES = 1 << 20
THREADS = 16


@pytest.fixture
def impatient() -> Iterator[None]:
    """Threads change places as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.req("FAIL-2")
@pytest.mark.usefixtures("impatient")
def test_threads_that_map_at_the_same_moment_share_one_mapping(tmp_path: Path) -> None:
    """A mapping that one thread copies into is never replaced, and so unmapped, by another."""
    path = str(tmp_path / "arena")
    create_arena(path, ARENA_BYTES, 0o600)
    for _ in range(200):
        arena = Arena(path, ARENA_BYTES)
        barrier = threading.Barrier(THREADS)
        addresses: list[int] = []

        def work(
            arena: Arena = arena, barrier: threading.Barrier = barrier, found: list[int] = addresses
        ) -> None:
            barrier.wait()
            address = arena.write_address
            ctypes.memset(address, 1, 4096)
            found.append(address)

        threads = [threading.Thread(target=work) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(addresses) == THREADS
        assert set(addresses) == {arena.write_address}


@pytest.mark.parametrize("step", [5 << 20, 100_000, 4096])
@pytest.mark.parametrize("offset", [0, 4096, (64 << 10) + 4096])
def test_an_extent_is_populated_once_whatever_the_steps(store_dir: Path, offset: int, step: int) -> None:
    """And no page beyond it is backed: those belong to nobody."""
    size = (2 << 20) + 3 * 4096
    create_arena(str(store_dir), 8 << 20, 0o600)
    arena = Arena(str(store_dir), 8 << 20)
    arena.reserve(offset, size)
    before = arena.backed_bytes()
    whole = range(offset, offset + size)
    assert arena.needs_populate(offset, size)
    for at in range(0, size, step):
        arena.populate(offset + at, min(step, size - at), whole)
    assert not arena.needs_populate(offset, size)
    assert arena.backed_bytes() == before
    arena.punch(offset + (1 << 20), 64 << 10)
    assert arena.needs_populate(offset, size), "what was given back is cold again"
