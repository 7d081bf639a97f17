"""The kernel calls that Python does not offer: futex, membarrier, madvise, fallocate's punch, mmap at an
address.

Calls that can block go through ``_libc`` (ctypes drops the GIL around them), calls that cannot through
``_quick`` (it keeps the GIL, which is twice as fast). Every function raises OSError with the kernel's errno.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import time
from collections.abc import Sequence

__all__ = [
    "PAGE_BYTES",
    "futex_wait",
    "futex_wait_any",
    "futex_wake",
    "has_ended",
    "lives_since",
    "map_private_over",
    "membarrier",
    "pid_namespace",
    "populate_write",
    "process_name",
    "process_start",
    "process_state",
    "punch_hole",
    "register_membarrier",
    "round_up",
    "set_dont_fork",
    "thread_group",
]

PAGE_BYTES = mmap.PAGESIZE
"""Bytes of a page."""

_libc = ctypes.CDLL(None, use_errno=True)
_quick = ctypes.PyDLL(None, use_errno=True)

_MACHINE = os.uname().machine
_SYS_FUTEX = {"x86_64": 202}.get(_MACHINE, 98)  # 98 and 283: aarch64, riscv64 and whatever came after them
_SYS_MEMBARRIER = {"x86_64": 324}.get(_MACHINE, 283)
_SYS_FUTEX_WAITV = 449
_FUTEX_WAIT, _FUTEX_WAKE, _FUTEX_32 = 0, 1, 2
_BARRIER_GLOBAL, _BARRIER_GLOBAL_EXPEDITED, _BARRIER_REGISTER = 1, 2, 4
_FALLOC_FL_KEEP_SIZE, _FALLOC_FL_PUNCH_HOLE = 1, 2
_MADV_DONTFORK, _MADV_POPULATE_WRITE = 10, 23
_MAP_PRIVATE, _MAP_FIXED = 2, 0x10


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


_libc.syscall.restype = ctypes.c_long
_wait = _libc.syscall
_wake = _quick.syscall
_wake.restype = ctypes.c_long
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)


def round_up(value: int, step: int) -> int:
    """The smallest multiple of `step` that is not below `value`."""
    return -(-value // step) * step


def _fail(what: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, f"{what}: {os.strerror(code)}")


def futex_wait(address: int, expected: int, timeout_s: float) -> None:
    """Sleep while the 32-bit word at `address` holds `expected`, until woken, a signal, or `timeout_s`.

    Works between processes. Returns for any reason or none: look again.
    """
    span = _Timespec(int(timeout_s), int(timeout_s % 1 * 1e9))
    _wait(
        ctypes.c_long(_SYS_FUTEX),
        ctypes.c_void_p(address),
        ctypes.c_int(_FUTEX_WAIT),
        ctypes.c_uint32(expected),
        ctypes.byref(span),
        None,
        0,
    )


class _WaitEntry(ctypes.Structure):
    _fields_ = (
        ("value", ctypes.c_uint64),
        ("address", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
    )


def futex_wait_any(words: Sequence[tuple[int, int]], timeout_s: float) -> None:
    """Sleep while every word (address, expected value) is as expected; like `futex_wait` otherwise.

    Before Linux 5.16 it watches the first word only, and looks at all of them a hundred times a second.
    """
    entries = (_WaitEntry * len(words))(
        *(_WaitEntry(value, address, _FUTEX_32, 0) for address, value in words)
    )
    until = time.monotonic() + timeout_s
    span = _Timespec(int(until), int(until % 1 * 1e9))
    arguments = (ctypes.byref(entries), len(words), 0, ctypes.byref(span), time.CLOCK_MONOTONIC)
    if _wait(ctypes.c_long(_SYS_FUTEX_WAITV), *arguments) < 0 and ctypes.get_errno() == errno.ENOSYS:
        futex_wait(*words[0], min(timeout_s, 0.01))


def futex_wake(address: int) -> None:
    """Wake every process that sleeps on the word at `address`."""
    _wake(_SYS_FUTEX, ctypes.c_void_p(address), _FUTEX_WAKE, 0x7FFFFFFF, None, None, 0)


def register_membarrier() -> None:
    """Let :func:`membarrier`, called by any process, act on this one.

    Raises:
        OSError: the kernel has no membarrier.
    """
    if (
        _libc.syscall(_SYS_MEMBARRIER, _BARRIER_REGISTER, 0, 0)
        and _libc.syscall(_SYS_MEMBARRIER, 0, 0, 0) < 0
    ):
        raise _fail("membarrier")


def membarrier() -> None:
    """A full memory barrier on every thread of every registered process.

    Raises:
        OSError: the kernel refuses both forms of it.
    """
    if _libc.syscall(_SYS_MEMBARRIER, _BARRIER_GLOBAL_EXPEDITED, 0, 0) == 0:
        return
    if _libc.syscall(_SYS_MEMBARRIER, _BARRIER_GLOBAL, 0, 0):
        raise _fail("membarrier")


def populate_write(address: int, nbytes: int) -> None:
    """Back the pages of ``[address, address + nbytes)`` with memory and map them writable, without touching
    data.

    Only a hint: where the kernel is too old or memory is short, the copy that follows faults the pages in
    itself.
    """
    begin = address // PAGE_BYTES * PAGE_BYTES
    _libc.madvise(begin, address + nbytes - begin, _MADV_POPULATE_WRITE)


def set_dont_fork(address: int, nbytes: int) -> None:
    """Children forked from now on do not inherit this mapping."""
    if _libc.madvise(address, nbytes, _MADV_DONTFORK):
        raise _fail("madvise")


def map_private_over(address: int, nbytes: int, descriptor: int, offset: int) -> None:
    """Replace the mapping at `address` by a private, writable one of the same file range: writes stay in this
    process.
    """
    flags = _MAP_PRIVATE | _MAP_FIXED
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    if _libc.mmap(address, nbytes, protection, flags, descriptor, offset) != address:
        raise _fail("mmap")


def punch_hole(descriptor: int, offset: int, nbytes: int) -> None:
    """Give the memory behind a range of a file back; the range reads as zeros afterwards."""
    mode = _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE
    while _libc.fallocate(descriptor, mode, offset, nbytes):
        if ctypes.get_errno() != errno.EINTR:
            raise _fail("fallocate")


def pid_namespace() -> int:
    """Inode of this process's pid namespace."""
    return os.stat("/proc/self/ns/pid").st_ino


def _stat_fields(pid: int) -> list[str] | None:
    """Fields of /proc/<pid>/stat from the third one on, or None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def process_start(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None when there is none."""
    fields = _stat_fields(pid)
    return int(fields[19]) if fields else None


def process_state(pid: int) -> str:
    """The process's state letter (R, S, D, T, Z, ...), or ``gone``."""
    fields = _stat_fields(pid)
    return fields[0] if fields else "gone"


def has_ended(pid: int) -> bool:
    """Whether the process has ended, though its parent may not have waited for it yet."""
    fields = _stat_fields(pid)
    return fields is None or _is_over(fields)


def _is_over(fields: list[str]) -> bool:
    # A process whose first thread has ended says Z too, as long as others run: it counts its threads.
    return fields[0] in ("Z", "X") and int(fields[17]) <= 1


def lives_since(pid: int, start: int) -> bool:
    """Whether the process that started then (see `process_start`) has not ended."""
    fields = _stat_fields(pid)
    return fields is not None and int(fields[19]) == start and not _is_over(fields)


def process_name(pid: int) -> str:
    """The process's short name, or ``?``."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "?"


def thread_group(thread: int) -> int:
    """The process that a thread id belongs to; the thread id itself when it cannot be told."""
    try:
        with open(f"/proc/{thread}/status", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("Tgid:"):
                    return int(line.split()[1])
    except OSError:
        pass
    return thread
