"""Kill an operation of the table at every line, from a fresh process.

What kills forks hundreds of times, and a fork takes as long as the forking process is large: ten times as
long in pytest with all its tests as in an interpreter that has nothing but flightstore. Calls children.py,
lightprocess.py and the table.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flightstore.testing.children import start_spawned
from flightstore.testing.killpoints import KillReport
from flightstore.testing.lightprocess import make_light
from flightstore.testing.tracing import Line

__all__ = ["check_apart", "shared_apart"]

LIMIT_S = 900


def check_apart(name: str, **options: Any) -> KillReport:
    """As :meth:`Operation.check` of the operation of that name; raises as it does."""
    with start_spawned(_check, name, options) as process:
        return process.result(deadline_s=LIMIT_S)


def shared_apart(names: Iterable[str], share: int) -> dict[str, frozenset[Line]]:
    """As :func:`flightstore.testing.operations.shared`."""
    with start_spawned(_plan, tuple(names), share) as process:
        return process.result(deadline_s=LIMIT_S)


def _check(name: str, options: dict[str, Any]) -> KillReport:
    """The life of a fresh process that kills."""
    report: KillReport = _operations().OPERATIONS[name].check(**options)
    return report


def _plan(names: tuple[str, ...], share: int) -> dict[str, frozenset[Line]]:
    """The life of a fresh process that plans."""
    plan: dict[str, frozenset[Line]] = _operations().shared(names, share)
    return plan


def _operations() -> Any:
    """The module of the table, filled, in a process made cheap to fork before anything else is imported."""
    make_light()
    from flightstore.testing import killcommand, operations

    assert killcommand  # it knows all modules that fill the table
    return operations
