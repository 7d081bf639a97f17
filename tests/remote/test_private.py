"""Memory of fetched objects is used again, and never while anybody looks at it."""

from __future__ import annotations

import os
import threading

import numpy as np
import pyarrow as pa
import pytest

from flightstore.remote import private

NBYTES = 3 << 20


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    private._kept.clear()


def filled(byte: int, nbytes: int = NBYTES) -> pa.Buffer:
    target, buffer = private.private_memory(nbytes)
    target[:] = bytes([byte]) * nbytes
    return buffer


def test_it_is_read_only_and_begins_at_a_page() -> None:
    for nbytes in (0, 1, 4096, NBYTES):
        buffer = filled(1, nbytes)
        assert buffer.size == nbytes
        assert not buffer.is_mutable
        assert nbytes < NBYTES or buffer.address % 4096 == 0


def test_what_was_given_back_is_used_again() -> None:
    first = filled(1)
    address = first.address
    view = np.frombuffer(first.slice(100), np.uint8)
    del first
    assert filled(2).address != address, "a view is still there"
    assert set(view.tolist()[:1000]) == {1}
    del view
    assert address in {one.address for one in (filled(3), filled(4))}


def test_a_region_that_is_far_too_large_is_left() -> None:
    large = filled(1, 4 * NBYTES)
    address = large.address
    del large
    assert filled(2).address != address
    assert filled(3, 4 * NBYTES).address == address


def test_no_more_is_kept_than_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private, "KEPT_BYTES", 2 * NBYTES)
    buffers = [filled(byte) for byte in range(5)]
    del buffers
    assert sum(len(pages) for pages in private._kept) <= 2 * NBYTES


def test_threads_never_share_a_region() -> None:
    wrong: list[int] = []

    def work(byte: int) -> None:
        for _ in range(40):
            buffer = filled(byte)
            if set(np.frombuffer(buffer, np.uint8)[::4096].tolist()) != {byte}:
                wrong.append(byte)

    threads = [threading.Thread(target=work, args=(byte,)) for byte in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_forked_child_does_not_disturb_its_parent() -> None:
    buffer = filled(1)
    pid = os.fork()
    if not pid:
        del buffer
        os._exit(0 if bytes(filled(2)[:10]) == b"\2" * 10 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert set(np.frombuffer(buffer, np.uint8).tolist()[::4096]) == {1}
