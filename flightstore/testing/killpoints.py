"""Kill a process at every line of our code that an operation executes, and look at what it leaves behind.

Lives here: recording an operation's lines (`enumerate_lines`), the moments to die (`kill_points`), one death
(`run_killed`), all of them (`check_every_line`), and the command
``python -m flightstore.testing.killpoints``. Tracing is in tracing.py, the forks are in watched.py, kills by
time in randomkills.py, the table of operations in operations.py.

Invariants: the operation runs in a forked child only, never here. Each child starts from the same warm
process, so the lines recorded in one child come again in the next; the cycle collector is off there, so that
finalizers of cycles do not come at random. A child that finishes ends as abruptly as one that is killed:
nothing is closed.
"""

from __future__ import annotations

import gc
import os
import sys
import time
import traceback
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar

from flightstore.testing.tracing import (
    KillPoint,
    Line,
    Scope,
    arm_killer,
    arm_recorder,
    disarm,
    points_of,
    read_record,
)
from flightstore.testing.watched import Ending, Link, describe, fork_watched

__all__ = [
    "KillPoint",
    "KillPointFailure",
    "KillReport",
    "Line",
    "OperationFailed",
    "Outcome",
    "Scope",
    "check_every_line",
    "enumerate_lines",
    "kill_points",
    "run_killed",
]

S = TypeVar("S")
Kind: TypeAlias = Literal["killed", "finished", "raised", "crashed", "hung"]
TRIES = 3
"""Runs that a point gets while none comes to it: a busy machine leads past a wait, or into one."""


class OperationFailed(RuntimeError):
    """The operation failed although nobody killed it."""


class KillPointFailure(AssertionError):
    """What was left behind by a death at one point is wrong. Names operation, point and source line."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the process that ran an operation."""

    kind: Kind
    """Killed at the point; finished without coming to it; raised; ended otherwise; beyond its deadline."""
    point: KillPoint | None
    """Where it was to be killed; None when it was not."""
    pid: int
    """The child's process id."""
    detail: str
    """The traceback, how it crashed, or the stacks of its threads; empty when killed or finished."""
    seconds: float
    """How long it lived."""
    rounds: int = 0
    """For random kills: how many times it had finished the operation."""


@dataclass(frozen=True, slots=True)
class KillReport:
    """What a run over all kill points did."""

    operation: str
    """Name of the operation."""
    points: int
    """Kill points tried, each followed by a check."""
    distinct_lines: int
    """Distinct lines (file and number) among them."""
    executed_lines: int
    """Lines of our code that one run executes, repetitions counted."""
    killed: int
    """Points that a child died at."""
    finished: int
    """Points that no child came to in three runs (other threads, or chance, took another way)."""
    seconds: float
    """Wall time of it all."""
    child_seconds: float
    """Part of it spent in children, fork to end."""


def enumerate_lines(
    operation: Callable[[], object],
    *,
    setup: Callable[[], object] | None = None,
    scope: Scope | None = None,
    in_grandchild: bool = False,
    deadline_s: float = 30,
) -> list[Line]:
    """The lines of our code that the operation executes, in order, found by running it once in a child.

    Args:
        operation: What to run.
        setup: Run before it in the child, not recorded.
        scope: What our code is; flightstore by default.
        in_grandchild: Give the lines executed in processes that the operation forks, instead of its own.
        deadline_s: How long it may take.

    Raises:
        OperationFailed: it raised, crashed or hung.
    """
    recorded_in = scope or Scope.flightstore()

    def body(link: Link) -> None:
        _run(link, setup, lambda: arm_recorder(recorded_in, link.bulk_fd), operation)

    watched = fork_watched(body)
    ending = watched.wait(deadline_s=deadline_s)
    if ending.hung or "finished" not in ending.messages:
        raise OperationFailed(describe(ending))
    return read_record(ending.bulk, home_pid=watched.pid, in_grandchild=in_grandchild)


def kill_points(
    operation: Callable[[], object],
    *,
    exhaustive: bool = False,
    setup: Callable[[], object] | None = None,
    scope: Scope | None = None,
    in_grandchild: bool = False,
) -> Iterator[KillPoint]:
    """When to kill the operation: the first hit of each distinct line, or every executed line."""
    lines = enumerate_lines(operation, setup=setup, scope=scope, in_grandchild=in_grandchild)
    return points_of(lines, exhaustive=exhaustive)


def run_killed(
    operation: Callable[[], object],
    point: KillPoint,
    *,
    setup: Callable[[], object] | None = None,
    in_grandchild: bool = False,
    deadline_s: float = 30,
) -> Outcome:
    """Run the operation in a child that dies right before `point`; return when all its processes are gone."""

    def body(link: Link) -> None:
        def arm() -> None:
            arm_killer(point, in_grandchild=in_grandchild, announce=lambda: link.tell("killed"))

        _run(link, setup, arm, operation)

    watched = fork_watched(body)
    ending = watched.wait(deadline_s=deadline_s)
    kind = _kind(ending)
    detail = "" if kind in ("killed", "finished") else describe(ending)
    return Outcome(kind, point, watched.pid, detail, ending.seconds)


def check_every_line(
    prepare: Callable[[], S],
    operation: Callable[[Any], object],
    verify: Callable[[S, Outcome], object],
    *,
    name: str | None = None,
    setup: Callable[[S], Any] | None = None,
    cleanup: Callable[[S], object] | None = None,
    exhaustive: bool = False,
    scope: Scope | None = None,
    in_grandchild: bool = False,
    only: Container[Line] | None = None,
    deadline_s: float = 30,
    progress: Callable[[int, int], object] | None = None,
) -> KillReport:
    """Kill the operation at each of its lines, and check after each death what it left.

    The first run is not killed: it records the lines, and is checked like the others.

    Args:
        prepare: Makes a fresh state, here, before each run.
        operation: What dies, in a child; given what `setup` returned, or the state without a setup.
        verify: Called here with the state and the outcome; raises when what was left behind is wrong.
        name: Name of the operation for errors and the report.
        setup: Run in the child before tracing begins.
        cleanup: Called here with the state after `verify`, also when that failed.
        exhaustive: Every executed line instead of the first hit of each distinct one.
        scope: What our code is; flightstore by default.
        in_grandchild: Kill the processes that the operation forks, instead of its own.
        only: The lines to kill it at; None for all. See killplan.py.
        deadline_s: How long one child may take.
        progress: Called with (points done, points in all).

    Raises:
        OperationFailed: the operation failed without being killed.
        KillPointFailure: `verify` failed, or the operation raised, crashed or hung instead of dying.
    """
    began, label = time.monotonic(), name or name_of(operation)
    run, ready, load = _bound(operation, setup)
    lines: list[Line] = []

    def record(state: S) -> Outcome:
        load(state)
        lines.extend(
            enumerate_lines(run, setup=ready, scope=scope, in_grandchild=in_grandchild, deadline_s=deadline_s)
        )
        return Outcome("finished", None, 0, "", 0.0)

    def die(point: KillPoint, state: S) -> Outcome:
        load(state)
        return run_killed(run, point, setup=ready, in_grandchild=in_grandchild, deadline_s=deadline_s)

    _one_run(label, prepare, record, verify, cleanup)
    points = list(points_of(lines, exhaustive=exhaustive))
    if only is not None:
        points = [point for point in points if point.at in only]
    outcomes: list[Outcome] = []
    for done, point in enumerate(points, start=1):
        outcome, tries = _one_run(label, prepare, partial(die, point), verify, cleanup), 1
        while outcome.kind != "killed" and tries < TRIES:
            outcome, tries = _one_run(label, prepare, partial(die, point), verify, cleanup), tries + 1
        outcomes.append(outcome)
        if progress is not None:
            progress(done, len(points))
    return KillReport(
        operation=label,
        points=len(points),
        distinct_lines=len({(line.file, line.line) for line in lines}),
        executed_lines=len(lines),
        killed=sum(outcome.kind == "killed" for outcome in outcomes),
        finished=sum(outcome.kind == "finished" for outcome in outcomes),
        seconds=time.monotonic() - began,
        child_seconds=sum(outcome.seconds for outcome in outcomes),
    )


def name_of(operation: Callable[..., object]) -> str:
    """What to call an operation that was given no name."""
    return str(getattr(operation, "__qualname__", operation))


def _bound(
    operation: Callable[[Any], object], setup: Callable[[S], Any] | None
) -> tuple[Callable[[], object], Callable[[], object], Callable[[S], object]]:
    """(run, ready, load): load a state here, make it ready and run on it in a child."""
    state: list[S] = []
    context: list[Any] = []  # filled in the child only

    def run() -> object:
        return operation(context[0])

    def ready() -> None:
        context[:] = [setup(state[0]) if setup else state[0]]

    def load(fresh: S) -> None:
        state[:] = [fresh]

    return run, ready, load


def _one_run(
    label: str,
    prepare: Callable[[], S],
    act: Callable[[S], Outcome],
    verify: Callable[[S, Outcome], object],
    cleanup: Callable[[S], object] | None,
) -> Outcome:
    """Prepare, run, verify, clean up; whatever is wrong is told with operation, point and source line."""
    state = prepare()
    try:
        outcome = act(state)
        where = f"operation {label!r}, {f'killed at {outcome.point}' if outcome.point else 'not killed'}"
        if outcome.kind not in ("killed", "finished"):
            raise KillPointFailure(f"{where}: it {outcome.kind} instead\n{outcome.detail}")
        try:
            verify(state, outcome)
        except Exception as error:
            raise KillPointFailure(f"{where} ({outcome.kind}): {type(error).__name__}: {error}") from error
    finally:
        if cleanup is not None:
            cleanup(state)
    return outcome


def _run(
    link: Link, setup: Callable[[], object] | None, arm: Callable[[], None], operation: Callable[[], object]
) -> None:
    """The life of the child. Nothing that the operation holds is closed at the end."""
    home_pid = os.getpid()
    gc.disable()
    if setup is not None:
        setup()
    arm()
    try:
        operation()
        said = "finished"
    except BaseException:
        said = "raised"
        link.note(traceback.format_exc())
    disarm()
    if os.getpid() == home_pid:  # else a process that the operation forked came back from it
        link.tell(said)


def _kind(ending: Ending) -> Kind:
    """Dying at the point outweighs what the parent of the dead process made of it, but not hanging."""
    if ending.hung:
        return "hung"
    for kind in ("killed", "raised", "finished"):
        if kind in ending.messages:
            return kind
    return "crashed"


if __name__ == "__main__":
    from flightstore.testing.lightprocess import make_light

    make_light()
    from flightstore.testing.killcommand import main

    sys.exit(main())
