"""Exit codes of the command line, and which error gets which.

The numbers are part of the interface: programs test for them. Never renumber. Calls nothing but errors.
"""

from __future__ import annotations

from flightstore import errors

__all__ = [
    "BROKEN_PIPE",
    "BUSY",
    "DAMAGE",
    "ERROR",
    "FULL",
    "INTERRUPTED",
    "NOT_FOUND",
    "OK",
    "TERMINATED",
    "USAGE",
    "exit_code",
]

OK = 0
"""Done."""
ERROR = 1
"""Anything that has no code of its own."""
USAGE = 2
"""The command was not understood: an unknown option, a malformed id, a missing argument."""
NOT_FOUND = 3
"""No such object, session, store or file."""
FULL = 4
"""No room in the store."""
BUSY = 5
"""Waited in vain: the timeout passed, the writers' lock is held, or an object is in use."""
DAMAGE = 6
"""``fsck`` or ``doctor`` found a problem, or the store's files contradict each other."""
INTERRUPTED = 130
"""Ctrl-C."""
BROKEN_PIPE = 141
"""Whoever read our output went away; nothing is printed (as `cat` ends when `head` has seen enough)."""
TERMINATED = 143
"""SIGTERM."""

# The first match counts, so a class stands before those it derives from.
_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (errors.GetTimeout, BUSY),
    (errors.ObjectNotFound, NOT_FOUND),
    (errors.ObjectLost, NOT_FOUND),
    (errors.NotAStore, NOT_FOUND),
    (errors.SessionNotFound, NOT_FOUND),
    (errors.StoreFull, FULL),
    (errors.StoreBusy, BUSY),
    (errors.StoreDamaged, DAMAGE),
    (errors.InvalidArgument, USAGE),
    (FileNotFoundError, NOT_FOUND),
)


def exit_code(error: BaseException) -> int:
    """The exit code for an error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), ERROR)
