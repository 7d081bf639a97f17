"""Copying payload into mapped memory: each piece to its place, zeros elsewhere, in several threads if large.

May call memory.together. Invariants:

- Every byte of the target range is written: padding is zeroed, so that no earlier object's bytes show
  through.
- When :func:`copy_pieces` returns or raises, nobody writes to the target any more (memory.together). The
  caller may give the memory back at once, even if what ended the copy was Ctrl-C.

How the sizes were chosen. ``memmove`` releases the GIL (ctypes), and glibc switches to non-temporal stores
for calls larger than about 3/4 of the last-level cache, which run nearly twice as fast on a large copy. So a
large piece is given to ``memmove`` in calls as large as can be, together with the neighbours that follow it
both here and there, bounded by MAX_CALL_BYTES so that Ctrl-C is noticed. Cold memory is different: there each
run is populated and then copied while its page tables are warm, in steps of POPULATE_RUN_BYTES.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa

from flightstore.memory.together import Job, run_together

__all__ = ["Populate", "address_of", "copy_pieces"]

Populate: TypeAlias = Callable[[int, int], None]
"""Called as ``populate(offset, nbytes)`` before the run at `offset` of the target is written; from any
thread.
"""

MAX_CALL_BYTES = 512 << 20
POPULATE_RUN_BYTES = 8 << 20
INLINE_BYTES = 6 << 20
"""Below this a second thread costs more (about 0.2 ms to start) than it brings: break-even measured at 6 MiB.
"""
TINY_BYTES = 4096
PAGE_BYTES = 4096

_memmove = ctypes.memmove
_memset = ctypes.memset


class _Run(NamedTuple):
    """Bytes `start` to `end` of the target; `source` is the address they come from, None for zeros."""

    start: int
    end: int
    source: int | None


def address_of(buffer: Any) -> tuple[int, int]:
    """Address and size in bytes of a contiguous buffer's memory, read-only ones included; nothing is copied.

    The address is valid while `buffer` lives and is not resized; it may be 0 for an empty buffer.

    Args:
        buffer: A ``pa.Buffer``, a NumPy array of any dtype, or anything with the buffer protocol.

    Raises:
        TypeError: `buffer` has no buffer.
        BufferError, ValueError: it is not contiguous.
    """
    address, nbytes, _ = _hold(buffer)
    return address, nbytes


def _hold(buffer: Any) -> tuple[int, int, Any]:
    """Address, size, and what must live (and keeps a bytearray from being resized) while they are used."""
    if not isinstance(buffer, pa.Buffer):
        interface = getattr(buffer, "__array_interface__", None)
        if interface is not None:  # datetime64 and others do not export the buffer protocol
            if not (buffer.flags.c_contiguous or buffer.flags.f_contiguous):
                raise ValueError("the array is not contiguous")
            return interface["data"][0], buffer.nbytes, buffer
        try:
            buffer = pa.py_buffer(buffer)
        except pa.ArrowException as error:
            raise TypeError(f"{type(buffer).__name__} has no contiguous buffer: {error}") from error
    size = buffer.size
    return (buffer.address if size else 0), size, buffer


def copy_pieces(
    base_address: int,
    size_bytes: int,
    pieces: Sequence[tuple[int, Any]],
    *,
    threads: int = 2,
    populate: Populate | None = None,
) -> None:
    """Write `pieces` to their offsets from `base_address`, and zeros to the rest of `size_bytes`.

    REQUIRES: the range is writable memory of this process, and stays so until this returns or raises.

    Args:
        base_address: Where the target begins.
        size_bytes: Size of the target.
        pieces: (offset, bytes-like object), offsets ascending, without overlap, within `size_bytes`.
        threads: How many threads may copy at once, the caller's included.
        populate: See :data:`Populate`; given when the target may be cold. Its exceptions end the copy.

    Raises:
        ValueError: `pieces` overlap, are out of order, or do not fit.
    """
    if populate is None and size_bytes <= TINY_BYTES and len(pieces) == 1:
        offset, data = pieces[0]
        if not offset and type(data) is bytes and len(data) <= size_bytes:
            _memmove(base_address, data.ljust(size_bytes, b"\0"), size_bytes)
            return
    held: list[Any] = []
    runs = _plan(size_bytes, pieces, held)
    if size_bytes < INLINE_BYTES or threads < 2:
        _copy(base_address, runs, populate, Job())
    else:
        _copy_threaded(base_address, _split(runs, size_bytes, threads), populate)


def _plan(size_bytes: int, pieces: Sequence[tuple[int, Any]], held: list[Any]) -> list[_Run]:
    """The runs that cover the whole target, in order; what must live meanwhile goes to `held`.

    Pieces that follow one another in the target and in the caller's memory are one run: the columns of a
    pandas block, the chunks of one buffer.
    """
    runs: list[_Run] = []
    at = 0
    for offset, data in pieces:
        address, nbytes, keep = _hold(data)
        if offset < at or offset + nbytes > size_bytes:
            raise ValueError(f"piece of {nbytes} bytes at {offset} overlaps or exceeds {size_bytes} bytes")
        if offset > at:
            runs.append(_Run(at, offset, None))
        if nbytes:
            last = runs[-1] if runs else None
            if last and last.source is not None and last.source + (offset - last.start) == address:
                runs[-1] = _Run(last.start, offset + nbytes, last.source)
            else:
                runs.append(_Run(offset, offset + nbytes, address))
            held.append(keep)
        at = offset + nbytes
    if at < size_bytes:
        runs.append(_Run(at, size_bytes, None))
    return runs


def _split(runs: list[_Run], size_bytes: int, threads: int) -> list[list[_Run]]:
    """Cut `runs` into one list per thread, equal in bytes, cut at page boundaries of the target."""
    share = -(-size_bytes // (threads * PAGE_BYTES)) * PAGE_BYTES
    shares: list[list[_Run]] = [[] for _ in range(threads)]
    for run in runs:
        start = run.start
        while start < run.end:
            index = min(start // share, threads - 1)
            end = run.end if index == threads - 1 else min(run.end, (index + 1) * share)
            source = None if run.source is None else run.source + start - run.start
            shares[index].append(_Run(start, end, source))
            start = end
    return shares


def _copy(base: int, runs: list[_Run], populate: Populate | None, job: Job) -> None:
    """Write `runs` one bounded call at a time; gives up between calls when the job is stopped."""
    step = MAX_CALL_BYTES if populate is None else POPULATE_RUN_BYTES
    populated = runs[0].start if runs else 0
    end = runs[-1].end if runs else 0
    for start, stop, source in runs:
        at = start
        while at < stop:
            if job.stop:
                return
            if populate is not None and at >= populated:
                nbytes = min(step, end - populated)
                populate(populated, nbytes)
                populated += nbytes
            limit = at + step if populate is None else populated
            nbytes = min(stop, limit) - at
            if source is None:
                _memset(base + at, 0, nbytes)
            else:
                _memmove(base + at, source + at - start, nbytes)
            at += nbytes


def _copy_threaded(base: int, shares: list[list[_Run]], populate: Populate | None) -> None:
    run_together([partial(_copy, base, share, populate) for share in shares])
