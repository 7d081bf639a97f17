"""Other processes that a benchmark commands: each builds one object and calls its methods on request.

A helper runs the same Python as its parent, and is spawned, not forked, so that nothing of the parent's
memory or store is inherited. A host runs the Python of another environment. Both end when their command pipe
closes, so none outlives the benchmark. Imported in the peers' environments too: the standard library alone.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import subprocess
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_context = multiprocessing.get_context("spawn")
JOIN_TIMEOUT_S = 20.0
HOST_TIMEOUT_S = 60.0
"""What a host may take to stop its store's processes."""


class Commanded:
    """A process that holds an object and runs its methods when told."""

    _pipe: Connection

    @property
    def pid(self) -> int:
        """Its process id."""
        raise NotImplementedError

    def call(self, method: str, *args: Any) -> Any:
        """Run a method there and return its result."""
        self.begin(method, *args)
        return self.result()

    def begin(self, method: str, *args: Any) -> None:
        """Start a method there; :meth:`result` returns what comes of it."""
        self._pipe.send((method, args))

    def result(self) -> Any:
        """The result of what was begun.

        Raises:
            RuntimeError: it failed there; carries the other process's traceback.
            EOFError: the process died.
        """
        fine, value = self._pipe.recv()
        if not fine:
            raise RuntimeError(f"in the other process:\n{value}")
        return value

    def close(self) -> None:
        """End the process."""
        raise NotImplementedError

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Helper(Commanded):
    """A process that holds `factory(*args)`."""

    def __init__(self, factory: Callable[..., Any], *args: Any) -> None:
        """Start the process and wait until its object exists."""
        self._pipe, theirs = _context.Pipe()
        self._process = _context.Process(target=serve, args=(theirs, factory, args), daemon=True)
        self._process.start()
        theirs.close()
        self.result()

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    def close(self) -> None:
        self._pipe.close()
        self._process.join(JOIN_TIMEOUT_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


class Host(Commanded):
    """A process of another Python: runs ``host.py``, which tells what it can do."""

    def __init__(self, python: Path, args: Sequence[str], log: Path, environment: dict[str, str]) -> None:
        """Start it; its output goes to `log`. The first :meth:`result` tells whether it came up."""
        self.log = log
        ours, theirs = socket.socketpair()
        self._pipe = Connection(ours.detach())
        script = str(Path(__file__).with_name("host.py"))
        with theirs, log.open("wb") as output:
            self._process = subprocess.Popen(
                [str(python), script, str(theirs.fileno()), *args],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for us; closing the pipe tells them
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        self._pipe.close()
        try:
            self._process.wait(HOST_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            end_all([*descendants(self.pid), self.pid])
            self._process.wait()


def serve(pipe: Connection, factory: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Build the object, then obey until the pipe closes; Ctrl-C is for the parent, which closes it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    target: Any = None

    def build() -> None:
        nonlocal target
        target = factory(*args)

    _answer(pipe, build)
    while target is not None:
        try:
            method, arguments = pipe.recv()
        except (EOFError, OSError):
            break
        _answer(pipe, lambda: getattr(target, method)(*arguments))  # noqa: B023 (called at once)
    if target is not None:
        target.close()


def _answer(pipe: Connection, action: Callable[[], Any]) -> None:
    try:
        reply = (True, action())
    except Exception:
        reply = (False, traceback.format_exc())
    with contextlib.suppress(OSError):  # the parent has gone: the next read tells
        pipe.send(reply)


def descendants(pid: int) -> list[int]:
    """The processes below `pid`, children before grandchildren."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found = list(parents.get(pid, []))
    for child in found:
        found += parents.get(child, [])
    return found


def end_all(pids: Sequence[int]) -> None:
    """Kill processes by their ids; those that have gone are no matter."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def private_bytes(pids: Sequence[int]) -> int:
    """Anonymous memory of these processes, exactly (VmRSS and RssAnon are approximate)."""
    total = 0
    for pid in pids:
        try:
            found = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:  # it has ended
            continue
        for line in found.splitlines():
            if line.startswith("Anonymous:"):
                total += int(line.split()[1]) * 1024
    return total
