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


class Terminal:
    """The terminal this process talks to, read key by key. A context manager; for the main thread only.

    Where standard input is no terminal there are no keys; everything else works.
    """

    def __init__(self) -> None:
        self._input = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
        self._attributes: list[Any] | None = None
        self._handlers: dict[int, Any] = {}
        self._pipe: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        self._pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in _WATCHED:
            if signal.getsignal(number) is not signal.SIG_IGN:
                # Ignored it is where there is no shell that could continue us.
                self._handlers[number] = signal.signal(number, self._note)
        self._read_keys()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        for end in self._pipe or ():
            os.close(end)
        self._pipe = None

    def _note(self, number: int, _frame: FrameType | None) -> None:
        """Wake `wait`: a signal that comes just before it sleeps must not be missed."""
        if self._pipe is not None:
            os.write(self._pipe[1], bytes([number]))

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
            pressed = os.read(self._input, 64)
            if not pressed:  # the terminal hung up
                self._input = None
            return pressed[:1].decode(errors="replace")
        return ""

    def suspend(self) -> None:
        """Do what Ctrl-Z asked for; returns when the process is continued."""
        self._restore()
        ours = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, ours)
        self._read_keys()
