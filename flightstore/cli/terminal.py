"""Waiting at a terminal for whichever comes first: a key, a change of its size, Ctrl-Z, or the time.

The terminal is left as it was found, however the block ends. Ctrl-C stays what it is: KeyboardInterrupt.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
import tty
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["RESIZED", "SUSPENDED", "Terminal"]

RESIZED = "resized"
SUSPENDED = "suspended"
_WATCHED = (signal.SIGWINCH, signal.SIGTSTP)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """What is to be done is told by the byte that the signal leaves."""


class Terminal:
    """The terminal this process talks to, read key by key. A context manager; for the main thread only.

    Where standard input is no terminal there are no keys; everything else works.
    """

    def __init__(self) -> None:
        self._input = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
        self._attributes: list[Any] | None = None
        self._handlers: dict[int, Any] = {}
        self._pipe: tuple[int, int] | None = None
        self._woken = -1

    def __enter__(self) -> Self:
        try:
            self._take()
        except BaseException:  # Ctrl-C, for one
            self._give_back()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back()

    def _take(self) -> None:
        self._pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in _WATCHED:
            if signal.getsignal(number) is not signal.SIG_IGN:
                # Ignored it is where there is no shell that could continue us.
                self._handlers[number] = signal.signal(number, _nothing)
        # Python runs handlers between its own steps only: a signal that comes just before `select` sleeps
        # would be noticed after it. The byte that this has written at once wakes it.
        self._woken = signal.set_wakeup_fd(self._pipe[1])
        self._read_keys()

    def _give_back(self) -> None:
        self._restore()
        signal.set_wakeup_fd(self._woken)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        for end in self._pipe or ():
            os.close(end)
        self._pipe = None

    def _read_keys(self) -> None:
        if self._input is not None:
            self._attributes = termios.tcgetattr(self._input)
            tty.setcbreak(self._input)

    def _restore(self) -> None:
        if self._input is not None and self._attributes is not None:
            termios.tcsetattr(self._input, termios.TCSADRAIN, self._attributes)
            self._attributes = None

    def wait(self, until_s: float) -> str:
        """Wait until something happens, or until `until_s` (monotonic seconds).

        Returns:
            The key that was pressed, RESIZED, SUSPENDED, or an empty text when the time has come.
        """
        assert self._pipe is not None
        sources = [self._pipe[0], *([] if self._input is None else [self._input])]
        ready, _, _ = select.select(sources, [], [], max(until_s - time.monotonic(), 0))
        if self._pipe[0] in ready:
            numbers = os.read(self._pipe[0], 64)
            return SUSPENDED if signal.SIGTSTP in numbers else RESIZED
        if self._input is not None and self._input in ready:
            pressed = os.read(self._input, 1)
            if not pressed:  # the terminal hung up
                self._input = None
            return pressed.decode(errors="replace")
        return ""

    def suspend(self) -> None:
        """Do what Ctrl-Z asked for; returns when the process is continued."""
        self._restore()
        ours = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, ours)
        self._read_keys()
