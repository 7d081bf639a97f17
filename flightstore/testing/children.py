"""Run a function in another process and get its result back, or the exception it raised.

Lives here: `child` / `start` (a forked process, warm) and `spawned` / `start_spawned` (a fresh interpreter,
that shares nothing). Calls watched.py.

Invariants: a `Child` used as a context manager leaves no process behind. Exceptions keep their class; the
traceback they had over there is added as a note.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import pickle
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, ParamSpec, Self, TypeVar

from flightstore.testing.watched import ChildDied, Link, Watched, catch_dumps, describe, fork_watched

__all__ = ["Child", "ChildDied", "child", "spawned", "start", "start_spawned"]

P = ParamSpec("P")
R = TypeVar("R")


class Child(Generic[R]):
    """A process that runs one function. As a context manager leaving the block kills it if need be."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched

    @property
    def pid(self) -> int:
        """Process id."""
        return self._watched.pid

    def result(self, *, deadline_s: float = 60) -> R:
        """Wait for the function and return what it returned (it must be picklable).

        Waits for processes that the function forked, too.

        Raises:
            ChildDied: it was killed, crashed, called exit, or is still running after `deadline_s`.
            BaseException: whatever the function raised.
        """
        ending = self._watched.wait(deadline_s=deadline_s)
        if ending.hung or not {"result", "raised"} & set(ending.messages):
            raise ChildDied(f"process {self.pid}: {describe(ending)}")
        value = pickle.loads(ending.bulk)
        if "raised" in ending.messages:
            raise value
        return value  # type: ignore[no-any-return]

    def kill(self) -> None:
        """Kill it and all that it forked with SIGKILL, and wait until it is gone. Idempotent."""
        self._watched.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()


def start(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Child[R]:
    """Begin to run ``function(*args, **kwargs)`` in a forked process."""
    return Child(fork_watched(lambda link: _hand_over(link, function, args, kwargs)))


def child(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run ``function(*args, **kwargs)`` in a forked process; return its result or raise what it raised."""
    with start(function, *args, **kwargs) as process:
        return process.result()


def start_spawned(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Child[R]:
    """Begin to run a module-level function in a fresh interpreter. Arguments must be picklable.

    Inherited descriptors are closed there but for those marked inheritable, as after any exec.
    """
    task = pickle.dumps((function.__module__, inspect.getfile(function), function.__qualname__))
    payload = pickle.dumps((sys.path, task, pickle.dumps((args, kwargs))))

    def execute(link: Link) -> None:
        task_fd = os.memfd_create("flightstore-test-task")
        with os.fdopen(os.dup(task_fd), "wb") as file:
            file.write(payload)
        fds = (task_fd, link.control_fd, link.bulk_fd, link.stack_fd)
        for fd in fds:
            os.set_inheritable(fd, True)
        package_root = str(Path(__file__).parents[2])
        begin = f"import sys; sys.path.insert(0, {package_root!r})"
        run = f"from flightstore.testing.children import run_task; run_task{fds}"
        os.execv(sys.executable, [sys.executable, "-c", f"{begin}; {run}"])

    return Child(fork_watched(execute))


def spawned(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a module-level function in a fresh interpreter; return its result or raise what it raised."""
    with start_spawned(function, *args, **kwargs) as process:
        return process.result()


def run_task(task_fd: int, control_fd: int, bulk_fd: int, stack_fd: int) -> None:
    """The fresh interpreter's main function."""
    for fd in (task_fd, control_fd, bulk_fd, stack_fd):
        os.set_inheritable(fd, False)
    catch_dumps(stack_fd)
    os.lseek(task_fd, 0, os.SEEK_SET)
    with os.fdopen(task_fd, "rb") as file:
        path, task, arguments = pickle.load(file)
    sys.path[:] = path
    module, file_name, qualname = pickle.loads(task)
    function: Any = _module(module, file_name)
    for name in qualname.split("."):
        function = getattr(function, name)
    args, kwargs = pickle.loads(arguments)
    _hand_over(Link(control_fd, bulk_fd, stack_fd), function, args, kwargs)


def _module(name: str, file_name: str) -> ModuleType:
    """Import a module by name, or from its file when its name leads nowhere (a test module, say)."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        spec = importlib.util.spec_from_file_location(name, file_name)
        if spec is None or spec.loader is None:
            raise
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


def _hand_over(
    link: Link, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Run the function and send what came of it. The message goes last: it vouches for the bulk."""
    home_pid = os.getpid()
    try:
        outcome, kind = pickle.dumps(function(*args, **kwargs)), "result"
    except BaseException as error:
        outcome, kind = _pickled_error(error), "raised"
    if os.getpid() != home_pid:
        return  # a process that the function forked came back from it: its outcome is not the result
    with os.fdopen(os.dup(link.bulk_fd), "wb") as file:
        file.write(outcome)
    link.tell(kind)


def _pickled_error(error: BaseException) -> bytes:
    text = "".join(traceback.format_exception(error))
    error.add_note(f"In process {os.getpid()}:\n{text}")
    try:
        pickled = pickle.dumps(error)
        pickle.loads(pickled)
        return pickled
    except Exception:
        return pickle.dumps(ChildDied(text))
