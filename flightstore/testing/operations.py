"""The table of operations that are killed at every line: what to prepare, to run, and to check afterwards.

Lives here: `Operation` and the table that the command ``python -m flightstore.testing.killpoints`` and the
crash tests share. Calls the public API only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flightstore.testing.killpoints import KillReport, Outcome, check_every_line

__all__ = ["OPERATIONS", "Operation", "register"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation to kill. The fields are the arguments of :func:`check_every_line`."""

    name: str
    """Unique name."""
    prepare: Callable[[], Any]
    """Makes a fresh state, in the parent."""
    run: Callable[[Any], object]
    """What dies, in the child."""
    verify: Callable[[Any, Outcome], object]
    """Raises when what was left behind is wrong."""
    setup: Callable[[Any], Any] | None = None
    """Run in the child before tracing begins; its result goes to `run`."""
    cleanup: Callable[[Any], object] | None = None
    """Removes the state."""
    in_grandchild: bool = False
    """Kill the processes that the operation forks, instead of its own."""

    def check(
        self,
        *,
        exhaustive: bool = False,
        progress: Callable[[int, int], object] | None = None,
        **options: Any,
    ) -> KillReport:
        """Kill it at every line; see :func:`check_every_line`."""
        return check_every_line(
            self.prepare,
            self.run,
            self.verify,
            name=self.name,
            setup=self.setup,
            cleanup=self.cleanup,
            in_grandchild=self.in_grandchild,
            exhaustive=exhaustive,
            progress=progress,
            **options,
        )


OPERATIONS: dict[str, Operation] = {}
"""All registered operations, by name."""


def register(operation: Operation) -> Operation:
    """Add an operation to the table.

    Raises:
        ValueError: the name is taken.
    """
    if operation.name in OPERATIONS:
        raise ValueError(f"an operation named {operation.name!r} is registered already")
    OPERATIONS[operation.name] = operation
    return operation
