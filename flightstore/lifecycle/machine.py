"""What this machine and this process offer a store: values read here, judged in doctor.py.

Every reader answers for a machine it was not written on: what cannot be read is None, never an error. The
system calls are made in forms that change nothing. Calls memory.cgroup only.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import re
import resource
from dataclasses import dataclass
from pathlib import Path

from flightstore.memory.cgroup import group_memories

__all__ = [
    "FileSystem",
    "Machine",
    "Mount",
    "find_mount",
    "futex_works",
    "membarrier_commands",
    "parse_mounts",
    "pid_namespace",
    "populate_write_works",
    "read_file_system",
    "read_machine",
    "selected_option",
]

# System call numbers: fixed for each architecture, for ever.
_MEMBARRIER = {"x86_64": 324, "aarch64": 283, "riscv64": 283, "ppc64le": 365, "s390x": 356}
_FUTEX = {"x86_64": 202, "aarch64": 98, "riscv64": 98, "ppc64le": 221, "s390x": 238}
_FUTEX_WAKE = 1
_MADV_POPULATE_WRITE = 23


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/self/mounts."""

    path: str
    """Where it is mounted."""
    kind: str
    """Type of the file system: ``tmpfs``, ``ext4``."""


@dataclass(frozen=True, slots=True)
class FileSystem:
    """The file system under a directory."""

    path: str
    """The mount point."""
    kind: str
    """Its type, empty when unknown."""
    total_bytes: int
    """Its size."""
    free_bytes: int
    """What this user may still write."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What doctor looks at outside the store. None means: could not be found out."""

    kernel: str
    """Release of the kernel."""
    membarrier: int | None
    """Bits of the commands that membarrier(2) supports."""
    populate_write: bool | None
    """Whether madvise(MADV_POPULATE_WRITE) works."""
    futex: bool | None
    """Whether futex(2) works."""
    huge_shmem: str | None
    """Policy of huge pages for shared memory: ``never``, ``advise``, ``within_size``, ``always``."""
    cgroup_headroom_bytes: int | None
    """What the memory control group still allows; None for no limit."""
    cgroup_path: str
    """The group that has the least headroom; empty when there is no limit."""
    address_limit_bytes: int | None
    """RLIMIT_AS; None for no limit."""
    file_limit_bytes: int | None
    """RLIMIT_FSIZE; None for no limit."""
    open_files_limit: int | None
    """RLIMIT_NOFILE; None for no limit."""
    pid_namespace: int | None
    """Inode number of this process's pid namespace."""


def read_machine() -> Machine:
    """Look at this machine and this process."""
    groups = group_memories()
    tightest = min(groups, key=lambda group: group.headroom_bytes, default=None)
    return Machine(
        kernel=platform.release(),
        membarrier=membarrier_commands(),
        populate_write=populate_write_works(),
        futex=futex_works(),
        huge_shmem=selected_option(_text("/sys/kernel/mm/transparent_hugepage/shmem_enabled")),
        cgroup_headroom_bytes=tightest.headroom_bytes if tightest else None,
        cgroup_path=tightest.path if tightest else "",
        address_limit_bytes=_limit(resource.RLIMIT_AS),
        file_limit_bytes=_limit(resource.RLIMIT_FSIZE),
        open_files_limit=_limit(resource.RLIMIT_NOFILE),
        pid_namespace=pid_namespace(),
    )


def read_file_system(path: str, mounts: str | None = None) -> FileSystem:
    """The file system that holds `path`, or would hold it once it exists.

    Args:
        path: A directory; its nearest existing parent is looked at.
        mounts: Text of /proc/self/mounts; read from there when None.
    """
    directory = Path(path).absolute()
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    numbers = os.statvfs(directory)
    text = mounts if mounts is not None else _text("/proc/self/mounts") or ""
    mount = find_mount(parse_mounts(text), str(directory.resolve()))
    return FileSystem(
        path=mount.path if mount else str(directory),
        kind=mount.kind if mount else "",
        total_bytes=numbers.f_blocks * numbers.f_frsize,
        free_bytes=numbers.f_bavail * numbers.f_frsize,
    )


def parse_mounts(text: str) -> list[Mount]:
    """Parse /proc/self/mounts. Blanks in paths are written there as octal escapes."""
    fields = [line.split(" ") for line in text.splitlines()]
    return [Mount(_unescape(row[1]), row[2]) for row in fields if len(row) >= 3]


def find_mount(mounts: list[Mount], path: str) -> Mount | None:
    """The mount that `path` lies on: the one with the longest matching path, the later of two equal ones."""
    best: Mount | None = None
    for mount in mounts:
        prefix = mount.path.rstrip("/") + "/"
        if (path + "/").startswith(prefix) and (best is None or len(mount.path) >= len(best.path)):
            best = mount
    return best


def selected_option(text: str | None) -> str | None:
    """The option in brackets of a file like ``always [never] advise``; None when there is none."""
    match = re.search(r"\[([^\]]+)\]", text or "")
    return match.group(1) if match else None


def membarrier_commands() -> int | None:
    """The commands that membarrier(2) supports, as bits; 0 when the kernel or a filter refuses the call."""
    number = _MEMBARRIER.get(platform.machine())
    if number is None:
        return None
    # Command 0 is MEMBARRIER_CMD_QUERY.
    return max(0, _syscall(number, 0, 0, 0)[0])


def futex_works() -> bool | None:
    """Whether futex(2) may be called: wakes nobody on a word of our own."""
    number = _FUTEX.get(platform.machine())
    if number is None:
        return None
    word = ctypes.c_uint32(0)
    return _syscall(number, ctypes.addressof(word), _FUTEX_WAKE, 1)[0] == 0


def populate_write_works() -> bool | None:
    """Whether MADV_POPULATE_WRITE (Linux 5.14) works: tried on one private page."""
    page = mmap.mmap(-1, mmap.PAGESIZE)
    try:
        page.madvise(_MADV_POPULATE_WRITE)
    except OSError as error:
        return False if error.errno in (errno.EINVAL, errno.ENOSYS, errno.EPERM) else None
    finally:
        page.close()
    return True


def pid_namespace() -> int | None:
    """Inode number of this process's pid namespace."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return None


def _syscall(number: int, *arguments: int) -> tuple[int, int]:
    """(result, errno) of a system call."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(value) for value in arguments))
    return int(result), ctypes.get_errno()


def _limit(which: int) -> int | None:
    soft, _hard = resource.getrlimit(which)
    return None if soft == resource.RLIM_INFINITY else soft


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text()
    except OSError:
        return None
