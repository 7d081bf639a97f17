"""Other processes that a benchmark commands: each builds one object and calls its methods on request.

Processes are spawned, not forked, so that nothing of the parent's memory or store is inherited. A peer ends
when its command pipe closes, so none outlives the benchmark.
"""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

_context = multiprocessing.get_context("spawn")
JOIN_TIMEOUT_S = 20.0


class Peer:
    """A process that holds `factory(*args)` and runs its methods when told."""

    def __init__(self, factory: Callable[..., Any], *args: Any) -> None:
        """Start the process and wait until its object exists."""
        self._pipe, theirs = _context.Pipe()
        self._process = _context.Process(target=_serve, args=(theirs, factory, args), daemon=True)
        self._process.start()
        theirs.close()
        self.result()

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
        self._pipe.close()
        self._process.join(JOIN_TIMEOUT_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _serve(pipe: Connection, factory: Callable[..., Any], args: tuple[Any, ...]) -> None:
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
        except EOFError:
            break
        _answer(pipe, lambda: getattr(target, method)(*arguments))  # noqa: B023 (called at once)
    if target is not None:
        target.close()


def _answer(pipe: Connection, action: Callable[[], Any]) -> None:
    try:
        reply = (True, action())
    except Exception:
        reply = (False, traceback.format_exc())
    pipe.send(reply)
