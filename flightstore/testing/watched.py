"""The supervised fork under all of these tools: a child that is watched and never left behind.

Lives here: `fork_watched`, and the two ends of what it makes, `Link` (the child's) and `Watched` (the
parent's). Calls nothing else of flightstore.

Invariants: a forked child never returns into its parent's code, never runs its parent's exit handlers, and
sits in a process group of its own, all of which is killed when it has ended or its deadline has passed. The
control pipe carries only messages below PIPE_BUF bytes, so that several processes may write to it; bulk goes
through a memory file. End of file on the control pipe means that the child *and* all that it forked are gone.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import os
import select
import signal
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

__all__ = ["ChildDied", "Ending", "Link", "Watched", "catch_dumps", "fork_watched"]

DUMP_SIGNAL = signal.SIGRTMAX - 3
"""Makes a watched child write the stacks of its threads down."""
DUMP_LIMIT_S = 20
"""How long a process may take for that, which others may keep from the processor."""


class ChildDied(RuntimeError):
    """The process ended without a result: killed, crashed, or beyond its deadline. Tells its stack."""


class Link:
    """The child's side: how it reports to the process that watches it."""

    def __init__(self, control_fd: int, bulk_fd: int, stack_fd: int) -> None:
        self.control_fd = control_fd
        """The pipe to the parent."""
        self.stack_fd = stack_fd
        """A memory file for notes and stacks, opened for appending."""
        self.bulk_fd = bulk_fd
        """A memory file opened for appending, for what is large; read by the parent at the end."""

    def tell(self, message: str) -> None:
        """Send a short message (below 4,096 bytes, no newline)."""
        os.write(self.control_fd, message.encode() + b"\n")

    def note(self, text: str) -> None:
        """Leave a text of any length, for an error message."""
        os.write(self.stack_fd, text.encode(errors="replace"))


@dataclass(frozen=True, slots=True)
class Ending:
    """How a watched child ended."""

    exit_code: int
    """Its exit status; minus the signal's number when a signal ended it."""
    messages: tuple[str, ...]
    """What it told."""
    bulk: bytes
    """What it wrote to the bulk file."""
    hung: bool
    """Whether it, or a process it forked, was still there at the deadline, and was killed for that."""
    notes: str
    """What it noted, and the stacks of its threads when it hung or crashed; else empty."""
    seconds: float
    """How long it lived."""


class Watched:
    """The parent's side of a watched child."""

    def __init__(self, pid: int, control_fd: int, bulk_fd: int, stack_fd: int) -> None:
        self.pid = pid
        self._control_fd = control_fd
        self._bulk_fd = bulk_fd
        self._stack_fd = stack_fd
        self._started = time.monotonic()
        self._received = bytearray()
        self._ending: Ending | None = None

    @property
    def ended(self) -> Ending | None:
        """How it ended, once :meth:`wait` has returned."""
        return self._ending

    def receive(self, *, timeout_s: float) -> bool:
        """Wait for something from the child; False after `timeout_s`, or when nothing can come any more."""
        poll = select.poll()
        poll.register(self._control_fd, select.POLLIN)
        if not poll.poll(max(0, timeout_s) * 1000):
            return False
        data = os.read(self._control_fd, 65536)
        self._received += data
        return bool(data)

    @property
    def messages(self) -> tuple[str, ...]:
        """The messages received up to now."""
        return tuple(self._received.decode().split("\n")[:-1])

    def wait_for(self, message: str, *, timeout_s: float = 30) -> None:
        """Wait until the child has told `message`.

        Raises:
            ChildDied: it ended, or `timeout_s` passed, without that.
        """
        end = time.monotonic() + timeout_s
        while message not in self.messages:
            if not self.receive(timeout_s=end - time.monotonic()):
                raise ChildDied(f"process {self.pid} did not tell {message!r}: {describe(self.kill())}")

    def wait(self, *, deadline_s: float) -> Ending:
        """Wait until the child and all processes it forked are gone; kill them when `deadline_s` passes."""
        if self._ending is not None:
            return self._ending
        end = time.monotonic() + deadline_s
        while self.receive(timeout_s=end - time.monotonic()):
            pass
        return self._finish(hung=time.monotonic() >= end)

    def kill(self) -> Ending:
        """Kill the child and all that it forked with SIGKILL, now."""
        return self._ending or self._finish(hung=False)

    def _finish(self, *, hung: bool) -> Ending:
        if hung:
            self._dump_stacks()
        # The child is not reaped yet, so its pid still names its group and nobody else's.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        self._outlast_group()
        while self.receive(timeout_s=0):
            pass
        self._ending = Ending(
            exit_code=os.waitstatus_to_exitcode(status),
            messages=self.messages,
            bulk=_contents(self._bulk_fd),
            hung=hung,
            notes=_contents(self._stack_fd).decode(errors="replace"),
            seconds=time.monotonic() - self._started,
        )
        for fd in (self._control_fd, self._bulk_fd, self._stack_fd):
            os.close(fd)
        return self._ending

    def _outlast_group(self) -> None:
        """Wait until what the child forked is gone for good.

        A process that exits closes its descriptors one after the other: the end of file on the control pipe
        can come while it still holds the locks it had on other files.
        """
        end = time.monotonic() + 10
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, 0)  # raises when nobody is left, which is nearly always so
            while _group_members(self.pid) and time.monotonic() < end:
                time.sleep(0.001)

    def _dump_stacks(self) -> None:
        """Have each process of the group write its stacks, and wait until it has, or is gone."""
        for pid in _group_members(self.pid):
            os.write(self._stack_fd, f"process {pid}:\n".encode())
            before, blocked = os.fstat(self._stack_fd).st_size, _signalled_threads(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, DUMP_SIGNAL)
            end = time.monotonic() + DUMP_LIMIT_S
            while pid in _group_members(self.pid) and time.monotonic() < end:
                if os.fstat(self._stack_fd).st_size > before and _signalled_threads(pid) <= blocked:
                    break
                time.sleep(0.005)


def fork_watched(body: Callable[[Link], object]) -> Watched:
    """Fork a child that runs ``body(link)`` and then ends at once with status 0; 70 when `body` raised.

    The child is warm: it has all that this process has imported. What `body` raises is noted.
    """
    read_fd, control_fd = os.pipe()
    bulk_fd, stack_fd = _append_file("bulk"), _append_file("stack")
    with warnings.catch_warnings():
        # Python 3.12 warns that forking beside native threads may deadlock; that is what is tested here.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os.close(read_fd)
        _run_and_exit(body, Link(control_fd, bulk_fd, stack_fd))
    os.close(control_fd)
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpgid(pid, pid)  # both sides do: whichever is first
    return Watched(pid, read_fd, bulk_fd, stack_fd)


def _run_and_exit(body: Callable[[Link], object], link: Link) -> NoReturn:
    """The whole life of a forked child."""
    status = 70
    try:
        os.setpgid(0, 0)
        catch_dumps(link.stack_fd)
        body(link)
        status = 0
    except BaseException:
        link.note(traceback.format_exc())
    finally:
        os._exit(status)


def catch_dumps(stack_fd: int) -> None:
    """Have this process write its stacks to `stack_fd` when it crashes or is asked by DUMP_SIGNAL."""
    # Not dump_traceback_later(): its thread is missing after a fork; re-arming would wait for it for ever.
    faulthandler.enable(stack_fd, all_threads=True)
    faulthandler.register(DUMP_SIGNAL, stack_fd, all_threads=True)


def describe(ending: Ending) -> str:
    """How a child ended, for an error message."""
    if ending.hung:
        return f"still running after {ending.seconds:.1f} s, killed\n{ending.notes}".strip()
    if ending.exit_code < 0:
        return f"ended by {signal.Signals(-ending.exit_code).name}\n{ending.notes}".strip()
    return f"ended with status {ending.exit_code}\n{ending.notes}".strip()


def _append_file(name: str) -> int:
    """A memory file whose writes always append, from whichever process they come."""
    fd = os.memfd_create(f"flightstore-test-{name}")
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)
    return fd


def _contents(fd: int) -> bytes:
    size = os.fstat(fd).st_size
    parts, at = [], 0
    while at < size:
        part = os.pread(fd, size - at, at)
        parts.append(part)
        at += len(part)
    return b"".join(parts)


def _signalled_threads(pid: int) -> set[str]:
    """Threads for which DUMP_SIGNAL is pending, or blocked, as it is while its handler runs."""
    bit, found = 1 << DUMP_SIGNAL - 1, set()
    with contextlib.suppress(OSError):  # it may end meanwhile
        for task in Path(f"/proc/{pid}/task").iterdir():
            for line in (task / "status").read_text().splitlines():
                field, _, value = line.partition(":")
                if field in ("SigPnd", "ShdPnd", "SigBlk") and int(value, 16) & bit:
                    found.add(f"{task.name} {field}")
    return found


def _group_members(group: int) -> list[int]:
    members = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = Path(entry.path, "stat").read_bytes().rpartition(b")")[2].split()
                if int(fields[2]) == group and fields[0] != b"Z":
                    members.append(int(entry.name))
    return sorted(members)
