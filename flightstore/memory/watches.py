"""A client that is asked about often: does it live? For the owners of batches and sessions, with every get.

`clients.Clients.alive` opens the client's file and reads /proc each time, some 40 us. A Watch keeps the file
and the process open between the questions, and answers in a few.

Its answer is the same: a client is dead when its file is gone or its lock can be taken, or when its process
is gone (one that was forked by C code keeps the lock). A watch never keeps anybody's lock: should it get it,
the client is dead, and the lock is let go at once. What a forked child inherits is closed with the objects.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct

from flightstore.memory import kernel
from flightstore.memory.leases import CLIENT_HEADER, CLIENT_MAGIC

__all__ = ["Watch", "watch"]


class Watch:
    """One client."""

    __slots__ = ("_file", "_process")

    def __init__(self, file: int, process: int) -> None:
        self._file = file
        self._process = process

    def lives(self) -> bool:
        """Whether the client lives."""
        if not os.fstat(self._file).st_nlink:
            return False
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            poll = select.poll()  # one for each question: threads may ask at once
            poll.register(self._process, select.POLLIN)
            return not poll.poll(0)
        fcntl.flock(self._file, fcntl.LOCK_UN)
        return False

    def __del__(self) -> None:
        for descriptor in (self._file, self._process):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def watch(path: str) -> Watch | None:
    """A watch on the client of that file; None when it is dead, not signed yet, or cannot be watched."""
    with contextlib.ExitStack() as opened:
        try:
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            opened.callback(os.close, file)
            header = os.pread(file, CLIENT_HEADER.size, 0)
            magic, _, pid, start, _, _ = CLIENT_HEADER.unpack(header)
            if magic != CLIENT_MAGIC or not pid:
                return None
            process = os.pidfd_open(pid)
            opened.callback(os.close, process)
        except (OSError, struct.error):
            return None
        if kernel.process_start(pid) != start:  # after opening it: else the number could be another's by now
            return None
        made = Watch(file, process)
        opened.pop_all()
        return made
