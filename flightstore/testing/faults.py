"""Faults of the machine, made on purpose: full file systems, stopped processes, other pid namespaces.

Lives here: context managers and helpers, each of which puts everything back; those that need a privilege
raise `FaultUnavailable` naming it. Memory limits are in cgroups.py, processes in children.py and events in
events.py; they are re-exported here. Calls nothing of the store.

Invariants: nothing is ever filled that was not small to begin with; what was mounted is unmounted and what
was stopped runs again, however the block is left.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from flightstore.testing.cgroups import FaultUnavailable, MemoryGroup, memory_cgroup
from flightstore.testing.children import Child, ChildDied, child, spawned, start, start_spawned
from flightstore.testing.events import Barrier, Gate, wait_for_file, wait_until

__all__ = [
    "Barrier",
    "Child",
    "ChildDied",
    "FaultUnavailable",
    "Filler",
    "Gate",
    "MemoryGroup",
    "child",
    "fill_file_system",
    "memory_cgroup",
    "other_pid_namespace",
    "small_tmpfs",
    "spawned",
    "start",
    "start_spawned",
    "stopped",
    "wait_for_file",
    "wait_until",
]

MS_NOSUID, MS_NODEV, MNT_DETACH = 2, 4, 2
_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def small_tmpfs(nbytes: int, inodes: int | None = None) -> Iterator[Path]:
    """A memory file system of its own, in a temporary directory; gone at the end with all that is in it.

    It is unmounted lazily: mappings of its files stay valid until their processes drop them.

    Args:
        nbytes: Its size, rounded up to whole pages.
        inodes: How many files and directories it can hold, its root included; no limit for None.

    Raises:
        FaultUnavailable: this process may not mount.
    """
    where = Path(tempfile.mkdtemp(prefix="flightstore-tmpfs-"))
    options = f"size={nbytes},mode=0700" + (f",nr_inodes={inodes}" if inodes is not None else "")
    try:
        if _libc.mount(b"tmpfs", bytes(where), b"tmpfs", MS_NOSUID | MS_NODEV, options.encode()) != 0:
            code = ctypes.get_errno()
            if code == errno.EPERM:
                raise FaultUnavailable("mount", "mounting a tmpfs needs root (CAP_SYS_ADMIN)")
            raise OSError(code, os.strerror(code), str(where))
        try:
            yield where
        finally:
            if _libc.umount2(bytes(where), MNT_DETACH) != 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code), str(where))
    finally:
        where.rmdir()


class Filler:
    """The file that fills a file system."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    @property
    def nbytes(self) -> int:
        """Its size."""
        return os.fstat(self._fd).st_size

    def fill(self) -> None:
        """Take what is free now, to the last block."""
        step = self._free_bytes()
        block = os.fstatvfs(self._fd).f_frsize
        while step >= block:
            try:
                os.posix_fallocate(self._fd, self.nbytes, step)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                step //= 2  # blocks are needed for more than data, or others took some meanwhile

    def release(self, nbytes: int) -> None:
        """Give `nbytes` back, in whole blocks, rounded up."""
        block = os.fstatvfs(self._fd).f_frsize
        os.ftruncate(self._fd, max(0, (self.nbytes - nbytes) // block * block))

    def close(self) -> None:
        """Remove the file: everything is free again. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self.path.unlink(missing_ok=True)

    def _free_bytes(self) -> int:
        numbers = os.fstatvfs(self._fd)
        return numbers.f_bavail * numbers.f_frsize


@contextlib.contextmanager
def fill_file_system(
    path: str | Path, leave_bytes: int = 0, *, most_bytes: int = 1 << 30
) -> Iterator[Filler]:
    """Fill the file system that holds the directory `path` to the last block, and empty it again at the end.

    The last, partly used block of each file that exists can still be written.

    Args:
        path: A directory on it; the filler lies there.
        leave_bytes: How much to leave free, in whole blocks.
        most_bytes: Refuse to fill more than this: nobody wants a machine's own file system full.

    Raises:
        ValueError: more than `most_bytes` are free there.
    """
    numbers = os.statvfs(path)
    free_bytes = numbers.f_bavail * numbers.f_frsize
    if free_bytes > most_bytes:
        raise ValueError(f"{path} has {free_bytes:,} bytes free, more than most_bytes={most_bytes:,}")
    filler = Filler(Path(path) / f".filler-{os.getpid()}")
    try:
        filler.fill()
        if leave_bytes:
            filler.release(leave_bytes)
        yield filler
    finally:
        filler.close()


@contextlib.contextmanager
def stopped(pid: int, *, timeout_s: float = 30) -> Iterator[None]:
    """Stop a process (SIGSTOP), all of its threads, for as long as the block lasts.

    Raises:
        ProcessLookupError: there is none, or it has ended.
        TimeoutError: it did not stop.
    """
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: _all_stopped(pid), what=f"process {pid} stops", timeout_s=timeout_s)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _all_stopped(pid: int) -> bool:
    states = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread may end meanwhile
            states.add((task / "stat").read_bytes().rpartition(b")")[2].split()[0])
    if b"Z" in states or not states:
        raise ProcessLookupError(errno.ESRCH, f"process {pid} has ended")
    return states <= {b"T", b"t"}


def other_pid_namespace(
    command: Sequence[str], *, timeout_s: float = 60, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command in a pid namespace of its own, with a /proc that fits, and return what came of it.

    Without root a user namespace is made as well. The command ends with its timeout.

    Raises:
        FaultUnavailable: there is no ``unshare``, or it is not permitted.
    """
    tool = shutil.which("unshare")
    if tool is None:
        raise FaultUnavailable("unshare", "the command unshare (util-linux) is not installed")
    flags = ["--pid", "--fork", "--mount-proc", "--kill-child"]
    if os.geteuid() != 0:
        flags.append("--map-root-user")
    probe = subprocess.run([tool, *flags, "true"], capture_output=True, text=True, timeout=timeout_s)
    if probe.returncode != 0:
        raise FaultUnavailable("unshare", f"a new pid namespace is not permitted: {probe.stderr.strip()}")
    return subprocess.run(
        [tool, *flags, *command], capture_output=True, text=True, timeout=timeout_s, env=env, check=False
    )
