"""Kill an operation of the table at every line, from a fresh process.

What kills forks hundreds of times, and a fork takes as long as the forking process is large: ten times as
long in pytest with all its tests as in an interpreter that has nothing but flightstore. Calls children.py,
lightprocess.py and the table.
"""

from __future__ import annotations

from typing import Any

from flightstore.testing.children import start_spawned
from flightstore.testing.killpoints import KillReport
from flightstore.testing.lightprocess import make_light

__all__ = ["check_apart"]

LIMIT_S = 900


def check_apart(name: str, **options: Any) -> KillReport:
    """As :meth:`Operation.check` of the operation of that name; raises as it does."""
    with start_spawned(_check, name, options) as process:
        return process.result(deadline_s=LIMIT_S)


def _check(name: str, options: dict[str, Any]) -> KillReport:
    """The life of the fresh process."""
    make_light()
    from flightstore.testing import killcommand  # it knows all modules that fill the table
    from flightstore.testing.operations import OPERATIONS

    assert killcommand
    return OPERATIONS[name].check(**options)
