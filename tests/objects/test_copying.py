"""copy_pieces: every byte of the target written, whatever the sizes, threads and interruptions."""

from __future__ import annotations

import array
import ctypes
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from types import FrameType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightstore.memory import copying, together
from flightstore.memory.copying import address_of, copy_pieces
from flightstore.testing.events import wait_until

MIB = 1 << 20


def target(size: int) -> tuple[np.ndarray, int]:
    memory = np.full(size + 128, 0xAA, np.uint8)
    return memory, memory.ctypes.data + 64


def expected(size: int, pieces: list[tuple[int, bytes]]) -> bytes:
    out = bytearray(size)
    for offset, data in pieces:
        out[offset : offset + len(data)] = data
    return bytes(out)


def check(memory: np.ndarray, size: int, want: bytes) -> None:
    assert memory[64 : 64 + size].tobytes() == want
    assert (memory[:64] == 0xAA).all(), "wrote before the target"
    assert (memory[64 + size :] == 0xAA).all(), "wrote beyond the target"


layouts = st.lists(st.tuples(st.integers(0, 200), st.binary(max_size=300)), max_size=8)


@settings(max_examples=60, deadline=None)
@given(layouts, st.integers(0, 300), st.booleans())
def test_pieces_land_and_gaps_are_zero(steps: list[tuple[int, bytes]], tail: int, populated: bool) -> None:
    pieces, at = [], 0
    for gap, data in steps:
        pieces.append((at + gap, data))
        at += gap + len(data)
    size = at + tail
    memory, base = target(size)
    runs: list[tuple[int, int]] = []
    copy_pieces(base, size, pieces, populate=(lambda *run: runs.append(run)) if populated else None)
    check(memory, size, expected(size, pieces))
    if populated:
        assert sum(nbytes for _, nbytes in runs) == size


@pytest.mark.parametrize("size", [0, 1, 63, 64, 4095, 4096, 4097])
@pytest.mark.parametrize("tail", [0, 1, 60])
def test_one_small_piece_and_its_tail(size: int, tail: int) -> None:
    memory, base = target(size + tail)
    data = bytes(range(1, 256)) * 17
    copy_pieces(base, size + tail, [(0, data[:size])])
    check(memory, size + tail, data[:size] + bytes(tail))
    with pytest.raises(ValueError, match="exceeds"):
        copy_pieces(base, size, [(0, data[:size] + b"x")])


def test_neighbours_here_and_there_are_one_run() -> None:
    block = np.arange(256, dtype=np.uint8)
    parts = [block[:64], block[64:128], block[128:192], block[192:]]
    neighbours: list[object] = []
    runs = copying._plan(320, [(0, parts[0]), (64, parts[1]), (192, parts[2]), (256, parts[3])], neighbours)
    start = block.ctypes.data
    assert runs == [(0, 128, start), (128, 192, None), (192, 320, start + 128)]
    assert len(neighbours) == 4, "each piece's memory must live while it is copied"
    strangers = copying._plan(256, list(zip((0, 64, 128, 192), reversed(parts), strict=True)), [])
    assert [run.end - run.start for run in strangers] == [64] * 4


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 40)), max_size=12), st.integers(0, 9))
def test_pieces_of_one_buffer_land(steps: list[tuple[int, int]], skip: int) -> None:
    buffer = bytes(range(256)) * 2
    pieces, at, taken = [], 0, 0
    for number, (gap, nbytes) in enumerate(steps):
        taken += skip if number % 3 == 2 else 0
        pieces.append((at + gap, memoryview(buffer)[taken : taken + nbytes]))
        at, taken = at + gap + nbytes, taken + nbytes
    memory, base = target(at)
    copy_pieces(base, at, pieces)
    check(memory, at, expected(at, [(offset, bytes(data)) for offset, data in pieces]))


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("populated", [False, True])
def test_large_copies_are_cut_without_a_seam(
    threads: int, populated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "MAX_CALL_BYTES", MIB - 24)
    monkeypatch.setattr(copying, "POPULATE_RUN_BYTES", 3 * MIB)
    size = 11 * MIB + 77
    rng = np.random.default_rng(1)
    pieces = [
        (0, rng.bytes(5)),
        (64, rng.bytes(6 * MIB)),
        (7 * MIB, rng.bytes(3)),
        (7 * MIB + 64, rng.bytes(4 * MIB)),
    ]
    memory, base = target(size)
    runs: list[tuple[int, int]] = []
    copy_pieces(
        base, size, pieces, threads=threads, populate=(lambda *r: runs.append(r)) if populated else None
    )
    check(memory, size, expected(size, pieces))
    if populated:
        runs.sort()
        assert runs[0][0] == 0
        assert sum(runs[-1]) == size
        assert all(a + n == b for (a, n), (b, _) in pairwise(runs)), "populated once, everywhere"


def test_populate_comes_before_the_copy_of_its_run() -> None:
    size = 24 * MIB
    memory, base = target(size)

    def populate(offset: int, nbytes: int) -> None:
        assert (memory[64 + offset : 64 + offset + nbytes] == 0xAA).all()

    copy_pieces(base, size, [(0, b"\x11" * size)], populate=populate)
    assert (memory[64:-64] == 0x11).all()


@pytest.mark.parametrize(
    "pieces", [[(0, b"abc"), (2, b"x")], [(5, b"abcdef")], [(4, b"a"), (0, b"b")], [(-1, b"ab")]]
)
def test_pieces_that_do_not_fit_are_refused(pieces: list[tuple[int, bytes]]) -> None:
    memory, base = target(8)
    with pytest.raises(ValueError, match="overlaps or exceeds"):
        copy_pieces(base, 8, pieces)
    assert (memory == 0xAA).all()


def test_an_error_in_any_thread_reaches_the_caller_and_stops_the_others() -> None:
    size = 64 * MIB
    _, base = target(size)
    where: list[bool] = []

    def populate(offset: int, nbytes: int) -> None:
        where.append(threading.current_thread() is threading.main_thread())
        if not where[-1]:
            raise OSError("no memory")

    with pytest.raises(OSError, match="no memory"):
        copy_pieces(base, size, [(0, bytes(size))], populate=populate)
    assert False in where


class Held:
    """The other thread of a copy is held in the middle of its share until `released`."""

    def __init__(self, end: Callable[[], object]) -> None:
        """`end` is what the caller's thread does once the other one is there."""
        self.released = threading.Event()
        self._end = end
        self._there = threading.Event()
        self.others: list[Any] = []

    def populate(self, offset: int, nbytes: int) -> None:
        if threading.current_thread() is threading.main_thread():
            assert self._there.wait(60)
            self._end()
        else:
            self.others.append(threading.current_thread())
            self._there.set()
            self.released.wait(60)

    def when_the_caller_waits(self, act: Callable[[], object]) -> None:
        """In a thread of its own: `act`; and soon after let the other thread go on."""

        def run() -> None:
            wait_until(lambda: self.others[0]._job.stop, what="the caller waits")
            act()
            threading.Timer(0.05, self.released.set).start()

        threading.Thread(target=run).start()


def check_that_nobody_writes(held: Held, memory: np.ndarray) -> None:
    """What the caller may rely on when a copy has ended."""
    came_back_early = not held.released.is_set()
    held.released.set()
    assert not came_back_early, "came back while another thread was still to write"
    before = memory.copy()
    for thread in held.others:
        thread.join()
    assert np.array_equal(memory, before)


@pytest.mark.req("FAIL-2")
def test_after_ctrl_c_nobody_writes_any_more() -> None:
    size = 64 * MIB
    memory, base = target(size)
    source = bytes(b"\x11" * size)
    main = threading.get_ident()

    def interrupt() -> None:
        held.when_the_caller_waits(lambda: signal.pthread_kill(main, signal.SIGINT))  # Ctrl-C again
        signal.raise_signal(signal.SIGINT)

    held = Held(interrupt)
    with pytest.raises(KeyboardInterrupt):
        copy_pieces(base, size, [(0, source)], populate=held.populate)
    check_that_nobody_writes(held, memory)


@pytest.mark.req("FAIL-2")
def test_ctrl_c_between_an_error_and_the_wait_for_the_others() -> None:
    size = 64 * MIB
    memory, base = target(size)
    source = bytes(b"\x11" * size)

    def interrupted(frame: FrameType, event: str, arg: object) -> None:
        if frame.f_code is together._quiesce.__code__:
            sys.settrace(None)
            raise KeyboardInterrupt

    def fail() -> None:
        held.when_the_caller_waits(lambda: None)
        sys.settrace(interrupted)
        raise OSError("no memory")

    held = Held(fail)
    tracing = sys.gettrace()
    try:
        with pytest.raises((OSError, KeyboardInterrupt)) as seen:
            copy_pieces(base, size, [(0, source)], populate=held.populate)
    finally:
        sys.settrace(tracing)
    check_that_nobody_writes(held, memory)
    assert seen.type is OSError, "the caller sees the first"


@pytest.mark.req("FAIL-2")
def test_a_thread_that_starts_late_finds_the_copy_stopped() -> None:
    memory, base = target(4096)
    job = together.Job()
    worker = together._Worker(partial(copying._copy, base, [copying._Run(0, 4096, None)], None), job)
    together._quiesce([worker], job)
    worker.start()
    worker.join()
    assert (memory == 0xAA).all()


def test_where_no_thread_can_be_had_the_caller_copies_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(together._Worker, "start", refuse)
    size = 9 * MIB
    memory, base = target(size)
    copy_pieces(base, size, [(0, b"\x11" * size)])
    check(memory, size, b"\x11" * size)


@pytest.mark.parametrize(
    "buffer",
    [
        b"abcdefgh",
        bytearray(b"abcdefgh"),
        memoryview(b"abcdefgh"),
        memoryview(b"xxabcdefgh")[2:],
        array.array("H", [1, 2, 3, 4]),
        pa.py_buffer(b"abcdefgh"),
        pa.py_buffer(b"xxabcdefgh").slice(2),
        np.arange(4, dtype=">i2"),
        np.array(["2020-01-01"], "M8[s]"),
        np.asfortranarray(np.arange(8, dtype="u1").reshape(2, 4)),
        np.frombuffer(b"abcdefgh", np.uint8),
    ],
)
def test_address_of(buffer: object) -> None:
    address, nbytes = address_of(buffer)
    assert nbytes == 8
    raw = buffer.tobytes("A") if isinstance(buffer, np.ndarray) else bytes(memoryview(buffer).cast("B"))
    assert ctypes.string_at(address, nbytes) == raw


def test_address_of_what_has_none() -> None:
    assert address_of(b"")[1] == 0
    with pytest.raises(TypeError, match="str"):
        address_of("text")
    with pytest.raises(ValueError, match="contiguous"):
        address_of(np.arange(10)[::2])
    with pytest.raises((TypeError, BufferError, ValueError)):
        address_of(memoryview(b"abcdef")[::2])
