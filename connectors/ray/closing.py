"""In which order a dying process lets go: of its lock in the store before Ray hears of its death.

A get trusts a borrowed object's memory while a keeper lives, and what tells that it lives is a lock on its
file in the store, which the kernel drops when the process dies. Ray learns of the death by a socket that is
closed, and may then give the memory to somebody else. Were the socket closed first, there would be a moment
in which the memory is another's already and the keeper seems to live.

Since Linux 4.3 the kernel releases the files of a dying process from the highest descriptor to the lowest,
each file at its highest one. So one more descriptor of the lock, above those of all sockets, makes it go
first. The lock then lasts until that descriptor is closed, too.
"""

from __future__ import annotations

import fcntl
import os
import resource

__all__ = ["release_first"]

_HIGH = 4096
"""Above what a process usually has open; the kernel's table of descriptors is as long as the highest one."""


def release_first(path: str) -> int:
    """Have the kernel release an open file of this process before its other files, when the process dies.

    Returns:
        The further descriptor that does it. Close it when the file is closed, or else it stays open.

    Raises:
        FileNotFoundError: this process does not have the file open.
    """
    wanted = os.stat(path)
    numbers = [int(entry) for entry in os.listdir("/proc/self/fd")]
    found = next((number for number in numbers if _is_same(number, wanted)), None)
    if found is None:
        raise FileNotFoundError(f"{path} is not open in this process")
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    least = max(*numbers, min(limit, _HIGH) - 2)
    return fcntl.fcntl(found, fcntl.F_DUPFD_CLOEXEC, least)


def _is_same(number: int, wanted: os.stat_result) -> bool:
    try:
        status = os.fstat(number)
    except OSError:
        return False  # the listing's own
    return (status.st_dev, status.st_ino) == (wanted.st_dev, wanted.st_ino)
