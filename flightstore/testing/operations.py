"""The table of operations that are killed at every line: what to prepare, to run, and to check afterwards.

Lives here: `Operation` and the table that the command ``python -m flightstore.testing.killpoints`` and the
crash tests share. Calls the public API only.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from typing import Any

from flightstore.testing.killplan import share_out
from flightstore.testing.killpoints import KillReport, Outcome, check_every_line, enumerate_lines
from flightstore.testing.tracing import Line

__all__ = ["OPERATIONS", "Operation", "register", "shared"]


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
        only: Container[Line] | None = None,
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
            only=only,
            progress=progress,
            **options,
        )

    def lines(self) -> frozenset[Line]:
        """The lines of flightstore that it executes, found by running it once without killing it.

        Raises:
            OperationFailed: it failed.
        """
        state = self.prepare()
        context: list[Any] = []  # filled in the child only

        def ready() -> None:
            context.append(self.setup(state) if self.setup else state)

        try:
            executed = enumerate_lines(
                lambda: self.run(context[0]), setup=ready, in_grandchild=self.in_grandchild, deadline_s=120
            )
            return frozenset(executed)
        finally:
            if self.cleanup is not None:
                self.cleanup(state)


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


def shared(names: Iterable[str], share: int) -> dict[str, frozenset[Line]]:
    """The lines that each of these operations dies at when they share the lines between them (killplan.py).

    Runs each of them once.
    """
    return share_out({name: OPERATIONS[name].lines() for name in names}, share)
