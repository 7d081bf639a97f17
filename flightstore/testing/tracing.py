"""Which lines of our code run, and how a process dies right before one of them.

Lives here: what counts as our code (`Scope`), a place in it (`Line`), a moment to die (`KillPoint`), and the
two trace functions that a forked child arms (`arm_recorder`, `arm_killer`). Calls nothing else of
flightstore.

Theory of operation. Python tells a trace function about each line *before* it runs it. The recorder writes
every such line down; the killer waits for one of them and sends its own process SIGKILL, so the line has no
effect. A point is named by (file, line, bytecode offset) and the how-many-th hit of it, not by a global
count: what other threads run in between then moves nothing, and all frames of other functions run untraced.
The bytecode offset tells apart the visits of one line that do different work: entering a `with` and leaving
it (which may commit), the first step of a loop and the later ones, a `finally` after success and after an
error.

Invariants: trace functions call no code of the package under test and take no lock. Threads begun through
`threading` are traced; threads that C++ makes are not. A process forked by the operation goes on being traced
with the counts it inherited, its fork hooks included.
"""

from __future__ import annotations

import dis
import functools
import inspect
import itertools
import linecache
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

__all__ = [
    "KillPoint",
    "Line",
    "Scope",
    "arm_killer",
    "arm_recorder",
    "can_be_interrupted",
    "points_of",
    "read_record",
]


@dataclass(frozen=True, slots=True)
class Line:
    """One executed line of our code."""

    file: str
    """The source file, as its code object names it."""
    line: int
    """Line number, from 1."""
    function: str
    """Qualified name of the function."""
    offset: int
    """Bytecode offset at which the line was entered: one line may be entered at several."""

    @property
    def source(self) -> str:
        """The text of the line, stripped; empty when the file cannot be read."""
        return linecache.getline(self.file, self.line).strip()

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}: {self.source}"


@dataclass(frozen=True, slots=True)
class KillPoint:
    """The moment right before the `hit`-th execution of a line."""

    k: int
    """Its place in the recorded sequence of executed lines, from 1."""
    at: Line
    """The line that must not run any more."""
    hit: int
    """Which execution of that line, from 1."""

    def __str__(self) -> str:
        return f"k={self.k} (hit {self.hit}) {self.at}"


@dataclass(frozen=True, slots=True)
class Scope:
    """What counts as our code: files under `roots`, but not under `excluded`. Real paths."""

    roots: tuple[str, ...]
    """Directories, each ending with a slash."""
    excluded: tuple[str, ...] = ()
    """Directories left out, each ending with a slash."""

    @classmethod
    def of(cls, root: str | Path, *, exclude: Iterable[str | Path] = ()) -> Scope:
        """The files under `root`, those behind the symlinks that lie directly in it included."""
        top = Path(root).resolve()
        links = [entry.resolve() for entry in sorted(top.iterdir()) if entry.is_symlink() and entry.is_dir()]
        return cls(
            tuple(f"{path}/" for path in [top, *links]), tuple(f"{Path(x).resolve()}/" for x in exclude)
        )

    @classmethod
    def flightstore(cls) -> Scope:
        """The package itself, connectors and adapters included, these testing tools not."""
        here = Path(__file__).resolve().parent
        return cls.of(here.parent, exclude=[here])

    def covers(self, filename: str) -> bool:
        """Whether the file is ours."""
        real = os.path.realpath(filename)
        return real.startswith(self.roots) and not (self.excluded and real.startswith(self.excluded))


def points_of(lines: Iterable[Line], *, exhaustive: bool) -> Iterator[KillPoint]:
    """When to die in a recorded sequence: at each line, or only at the first hit of each distinct one."""
    hits: dict[Line, int] = {}
    for k, line in enumerate(lines, start=1):
        hits[line] = hit = hits.get(line, 0) + 1
        if exhaustive or hit == 1:
            yield KillPoint(k, line, hit)


def _is_function(code: CodeType) -> bool:
    """False for the bodies of modules and classes: they run while importing, which touches no store."""
    return bool(code.co_flags & inspect.CO_NEWLOCALS)


def _arm(trace: Callable[[FrameType, str, Any], Any]) -> None:
    threading.settrace(trace)
    sys.settrace(trace)


def disarm() -> None:
    """Stop tracing in this thread and in threads begun later."""
    sys.settrace(None)
    threading.settrace(None)  # type: ignore[arg-type,unused-ignore]


def arm_recorder(scope: Scope, record_fd: int) -> None:
    """Append every executed line of our code to the file `record_fd` (opened for appending), from now on.

    Each line is one unbuffered write, so that nothing is lost when the process dies, and processes forked
    later write to the same file. Read it with :func:`read_record`.
    """
    ours: dict[str, bool] = {}

    def on_line(frame: FrameType, event: str, arg: Any) -> Any:
        if event == "line":
            code = frame.f_code
            entry = (os.getpid(), frame.f_lineno, frame.f_lasti, code.co_qualname, code.co_filename)
            os.write(record_fd, ("\t".join(map(str, entry)) + "\n").encode())
        return on_line

    def on_call(frame: FrameType, event: str, arg: Any) -> Any:
        code = frame.f_code
        wanted = ours.get(code.co_filename)
        if wanted is None:
            wanted = ours[code.co_filename] = scope.covers(code.co_filename)
        return on_line if wanted and _is_function(code) else None

    _arm(on_call)


def read_record(record: bytes, *, home_pid: int, in_grandchild: bool) -> list[Line]:
    """The lines in a recorder's file: those of process `home_pid`, or those of processes it forked."""
    lines = []
    for entry in record.decode().splitlines():
        pid, line, offset, function, file = entry.split("\t", 4)
        if (int(pid) != home_pid) == in_grandchild:
            lines.append(Line(file, int(line), function, int(offset)))
    return lines


def arm_killer(point: KillPoint, *, in_grandchild: bool, announce: Callable[[], None]) -> None:
    """Kill the process with SIGKILL right before `point`, from now on.

    Args:
        point: When to die.
        in_grandchild: Kill the processes that this one forks, instead of this one.
        announce: Called right before dying, so that this death can be told from others; must not block.
    """
    at, home_pid, hits = point.at, os.getpid(), itertools.count(1)

    def on_line(frame: FrameType, event: str, arg: Any) -> Any:
        if (
            event == "line"
            and frame.f_lineno == at.line
            and frame.f_lasti == at.offset
            and (os.getpid() != home_pid) == in_grandchild
            and next(hits) == point.hit  # one C call: threads cannot count a hit twice
        ):
            announce()
            os.kill(os.getpid(), signal.SIGKILL)
        return on_line

    def on_call(frame: FrameType, event: str, arg: Any) -> Any:
        code = frame.f_code
        return on_line if code.co_filename == at.file and code.co_qualname == at.function else None

    _arm(on_call)


def can_be_interrupted(frame: FrameType) -> bool:
    """False at line events where no signal handler can run.

    Signals are looked for after calls, at the beginning of functions and at backward jumps. There is none of
    these between the last instruction of a with block and the call of ``__exit__``, in ``try:``, and between
    the end of a try block and the C function that is called first in its ``finally:``.
    """
    return _interruptible(frame.f_code, frame.f_lasti, frame.f_lineno)


@functools.cache
def _interruptible(code: CodeType, offset: int, number: int) -> bool:
    """The same of a place in the code: who traces every line asks about each many times."""
    line = linecache.getline(code.co_filename, number).lstrip()
    opcode = dis.opname[code.co_code[offset]]
    if opcode == "NOP" or line.startswith(("lock.release()", "txn.abort()", "abandon()")):
        return False
    return not line.startswith("with ") or (opcode.startswith("LOAD_") and opcode != "LOAD_CONST")
