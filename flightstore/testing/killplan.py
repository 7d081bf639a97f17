"""Which operation dies at which line, when each line is to be tried in a few operations only.

Lives here: `share_out`, a pure function. Calls nothing but the type of a line.

Most lines that an operation executes belong to the machinery that all of them use: nearly a hundred
operations take the writers' lock. Dying there in every one of them takes most of the time of a whole run and
seldom finds what a few did not. So a line may be left to a few of the operations that execute it, drawn by a
hash: the same ones in every run and on every machine, others for the next line. A line that fewer operations
execute is tried in all of them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping

from flightstore.testing.tracing import Line

__all__ = ["share_out"]


def share_out(executed: Mapping[str, Iterable[Line]], share: int) -> dict[str, frozenset[Line]]:
    """Of each operation, the lines to die at, so that `share` operations do at each line.

    Args:
        executed: The lines that each operation executes, by the operation's name.
        share: How many operations die at each line, if as many execute it.

    Raises:
        ValueError: `share` is less than 1.
    """
    if share < 1:
        raise ValueError(f"share is {share}; a line that nobody dies at is not tested")
    users: dict[Line, set[str]] = {}
    for name, lines in executed.items():
        for line in lines:
            users.setdefault(line, set()).add(name)
    plan: dict[str, set[Line]] = {name: set() for name in executed}
    for line, names in users.items():
        for name in sorted(names, key=lambda name: (_draw(line, name), name))[:share]:
            plan[name].add(line)
    return {name: frozenset(lines) for name, lines in plan.items()}


def _draw(line: Line, name: str) -> int:
    """A number that is the same in every process and every clone, wherever that lies."""
    return zlib.crc32(f"{name}|{line.function}|{line.offset}".encode())
