"""Kill a process that repeats an operation at random moments: this reaches what lies inside C calls.

Lives here: `random_kills`. Calls watched.py and the outcome type of killpoints.py.

Invariants: moments come from the seed alone, and are counted from the child's word that it is set up.
"""

from __future__ import annotations

import itertools
import mmap
import random
import signal
import time
from collections.abc import Callable
from typing import Any, TypeVar

from flightstore.testing.killpoints import KillPointFailure, KillReport, Kind, Outcome, name_of
from flightstore.testing.watched import Link, describe, fork_watched

__all__ = ["random_kills"]

S = TypeVar("S")


def random_kills(
    state: S,
    operation: Callable[[Any, int], object],
    verify: Callable[[S, Outcome], object],
    *,
    kills: int,
    seed: int,
    setup: Callable[[S], Any] | None = None,
    longest_s: float = 0.02,
    name: str | None = None,
) -> KillReport:
    """Let a child repeat the operation, kill it at a random moment, verify; `kills` times on one state.

    Args:
        state: What all children work on, one after the other.
        operation: Called with what `setup` returned (or the state) and the round, 0, 1, 2 ..., until it dies.
        verify: Called here with the state and the outcome, whose `rounds` says how many rounds were complete.
        kills: How many children.
        seed: Decides the moments.
        setup: Run in the child first.
        longest_s: The moments are uniform between 0 and this, after the setup.
        name: Name of the operation for errors and the report.

    Raises:
        KillPointFailure: `verify` failed, or the operation raised or crashed by itself.
    """
    label = name or name_of(operation)
    chance, began, child_seconds, rounds = random.Random(seed), time.monotonic(), 0.0, 0
    for number in range(kills):
        outcome = _one_kill(state, operation, setup, chance.uniform(0, longest_s))
        child_seconds += outcome.seconds
        rounds += outcome.rounds
        where = f"operation {label!r}, random kill {number} of seed {seed}, in round {outcome.rounds}"
        if outcome.kind != "killed":
            raise KillPointFailure(f"{where}: it {outcome.kind} instead\n{outcome.detail}")
        try:
            verify(state, outcome)
        except Exception as error:
            raise KillPointFailure(f"{where}: {type(error).__name__}: {error}") from error
    return KillReport(label, kills, 0, rounds, kills, 0, time.monotonic() - began, child_seconds)


def _one_kill(
    state: S, operation: Callable[[Any, int], object], setup: Callable[[S], Any] | None, moment_s: float
) -> Outcome:
    # Shared with the child. A memoryview stores an item in one instruction; struct.pack_into zeroes it first,
    # and a process killed in between leaves the zero.
    counter = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("q")

    def body(link: Link) -> None:
        context = setup(state) if setup else state
        link.tell("ready")
        for number in itertools.count():
            operation(context, number)
            counter[0] = number + 1

    watched = fork_watched(body)
    watched.wait_for("ready")
    watched.receive(timeout_s=moment_s)  # returns early only when the child has ended
    ending = watched.kill()
    detail = "" if ending.exit_code == -signal.SIGKILL else describe(ending)
    kind: Kind = "raised" if ending.exit_code > 0 else "crashed" if detail else "killed"
    return Outcome(kind, None, watched.pid, detail, ending.seconds, counter[0])
