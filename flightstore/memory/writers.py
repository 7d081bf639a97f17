"""The writers' lock: one process at a time changes the store.

It is a POSIX mutex in the control page: process-shared, **robust** (the kernel hands it on when its holder
dies, at whatever instruction) and **error-checking** (unlocking it without holding it is refused,
harmlessly). LMDB has such a lock too, but waits for it without limit; ours comes first, with a deadline, and
can say who holds it.

Interrupts. A KeyboardInterrupt may arrive between any two bytecodes, also just after the lock was taken. So
callers write, in one function::

    try:
        lock.acquire(timeout_s)
        ...
    finally:
        lock.release()

``release`` is the C function itself: no bytecode of ours runs between the end of the ``try`` block and the
unlock, and when ``acquire`` failed it does nothing, because the mutex checks its owner. The price: the lock
must not be taken twice by one thread; `acquire` refuses that before it touches the lock, and so must be
called outside the ``try`` of an outer holder.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import threading
import time
from collections.abc import Callable

from flightstore.errors import FlightStoreError, StoreBusy, StoreDamaged
from flightstore.memory import kernel

__all__ = ["MUTEX_BYTES", "WritersLock"]

MUTEX_BYTES = 64
"""Room kept for the mutex in the control page (glibc's takes 40)."""

# The first word of glibc's robust mutex: the holder's thread id, or 0, and two flags. When the holder dies
# the kernel clears the id, so that it is never mistaken for a later thread of the same number.
_THREAD_MASK = 0x3FFFFFFF
_SLICE_S = 0.1  # longest wait in C: signal handlers run between slices
_CLOCK_MONOTONIC = 1
_SPINS = 600 if (os.cpu_count() or 1) > 1 else 0
_PROCESS_SHARED, _ROBUST, _ERRORCHECK = 1, 1, 2

_libc = ctypes.CDLL(None)
_quick = ctypes.PyDLL(None)


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class WritersLock:
    """The mutex at `address`, which is valid as long as `memory` lives."""

    def __init__(self, address: int, memory: object) -> None:
        self._memory = memory
        self._mutex = ctypes.c_void_p(address)
        self._word = ctypes.c_uint32.from_address(address)
        self._try: Callable[[], int] = functools.partial(_quick.pthread_mutex_trylock, self._mutex)
        self.release: Callable[[], int] = functools.partial(_quick.pthread_mutex_unlock, self._mutex)
        """Unlock; does nothing when this thread does not hold the lock."""

    @staticmethod
    def initialise(address: int) -> None:
        """Make a fresh, unlocked mutex at `address`. Only the store's creator does this, before anybody else
        connects.
        """
        attributes = ctypes.create_string_buffer(64)
        _libc.pthread_mutexattr_init(attributes)
        _libc.pthread_mutexattr_setpshared(attributes, _PROCESS_SHARED)
        _libc.pthread_mutexattr_setrobust(attributes, _ROBUST)
        _libc.pthread_mutexattr_settype(attributes, _ERRORCHECK)
        code = _libc.pthread_mutex_init(ctypes.c_void_p(address), attributes)
        if code:
            raise OSError(code, f"pthread_mutex_init: {os.strerror(code)}")

    def try_acquire(self) -> bool:
        """Take the lock if nobody holds it."""
        try:
            return self._took(self._try())
        except BaseException:
            self._settle()
            raise

    def acquire(self, timeout_s: float) -> None:
        """Take the lock, waiting at most `timeout_s`. A holder that died counts as having released it.

        Raises:
            StoreBusy: another process kept it; names that process.
            FlightStoreError: this thread holds it already (a finalizer or signal handler came in the middle).
        """
        try:
            code = self._try()
            if not code or self._took(code) or self._spin() or self._wait(timeout_s):
                return
        except BaseException:
            self._settle()
            raise
        raise self._busy(timeout_s)

    def _settle(self) -> None:
        """After an interrupt: had the lock just come to us from a dead holder, say that all is consistent.

        To unlock it without that would make it unusable for everybody, for ever.
        """
        if self._word.value & _THREAD_MASK == threading.get_native_id():
            _libc.pthread_mutex_consistent(self._mutex)

    def _took(self, code: int) -> bool:
        if code == errno.EOWNERDEAD:
            # LMDB has discarded the dead holder's transaction: what the lock protects is consistent.
            _libc.pthread_mutex_consistent(self._mutex)
            return True
        if code and code not in (errno.EBUSY, errno.ETIMEDOUT):
            raise StoreDamaged(f"the writers' lock is unusable: {os.strerror(code)}")
        return code == 0

    def _spin(self) -> bool:
        """Somebody holds the lock, as a rule for some 20 us: look again a few times before sleeping.

        Whoever sleeps, or yields, gives its processor away for a whole time slice if others want it, and
        finds the lock taken again when it is woken. So this neither sleeps nor yields, for some 0.3 ms. It
        does let go of the GIL each time: the holder may be another thread of this process.
        """
        look = _libc.pthread_mutex_trylock
        return any(self._took(look(self._mutex)) for _ in range(_SPINS))

    def _wait(self, timeout_s: float) -> bool:
        """Somebody holds the lock: wait for it in slices."""
        deadline = time.monotonic() + timeout_s
        while True:
            until = min(deadline, time.monotonic() + _SLICE_S)
            span = _Timespec(int(until), int(until % 1 * 1e9))
            code = _libc.pthread_mutex_clocklock(self._mutex, _CLOCK_MONOTONIC, ctypes.byref(span))
            if self._took(code):
                return True
            if time.monotonic() >= deadline:
                return False

    def held_by_this_thread(self) -> bool:
        """Whether the calling thread holds the lock."""
        return bool(self._word.value & _THREAD_MASK == threading.get_native_id())

    def refuse_reentry(self) -> None:
        """Raise when the calling thread holds the lock already."""
        if self.held_by_this_thread():
            raise FlightStoreError(
                "the store was written to in the middle of a write by the same thread",
                hint="do not call the store from finalizers, signal handlers or trace functions",
            )

    def holder(self) -> int:
        """Process id of the holder at this moment, 0 for none."""
        thread = self._word.value & _THREAD_MASK
        return kernel.thread_group(thread) if thread else 0

    def _busy(self, timeout_s: float) -> StoreBusy:
        pid = self.holder()
        state = kernel.process_state(pid) if pid else "gone"
        stopped = " (stopped)" if state in ("T", "t") else ""
        who = f"process {pid} {kernel.process_name(pid)!r}{stopped}" if pid else "another process"
        hint = f"resume it with 'kill -CONT {pid}' or end it" if stopped else "try again, or allow more time"
        error = StoreBusy(f"{who} has kept the writers' lock for more than {timeout_s:g} s", hint=hint)
        error.holder_pid = pid
        return error
