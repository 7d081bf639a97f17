"""The chaos test: the whole life cycle at random, in many processes that are killed, stopped and forked.

``python -m flightstore.testing.chaos --minutes 10 --processes 8 --seed 1`` prints what was done, and exits
with 1 when anything was wrong: a byte, a lost object, an error that a busy store does not give, a call that
never came back, memory or files that nobody accounts for.

Lives here: `chaos` (the controller), `ChaosResult`, and the command. Calls chaosworker.py, chaoschecks.py and
watched.py.

Invariants: the controller is not connected while it forks or kills. Rounds end with all processes at the
gate; only then is the store checked, so that every byte and file has to be accounted for.

The seed decides which moves each process makes and whom the controller disturbs, not how their moves
interleave: a failure comes again with its seed as a rule, not for certain.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import flightstore
from flightstore.testing.chaosboard import Board
from flightstore.testing.chaoschecks import Checker
from flightstore.testing.chaosmoves import KEEP_SESSION, MOVES
from flightstore.testing.chaosworker import CHILD_ROWS, COUNTERS, INTERRUPT, SETTLED, Plan, follow, run
from flightstore.testing.faultystorage import faulty_url
from flightstore.testing.watched import Watched, describe, fork_watched

__all__ = ["ChaosResult", "chaos", "main"]

_HANG_S = 90.0
_KILL_EVERY_S = 0.4
_STOP_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class ChaosResult:
    """What a run did and found."""

    counts: dict[str, int]
    """See chaosworker.COUNTERS; ``checked`` are objects whose every byte was compared by processes."""
    kills: int
    """Processes killed by SIGKILL, their forked children not counted."""
    stops: int
    """Processes stopped for a while."""
    rounds: int
    """How often all was checked."""
    checked: int
    """Objects that were checked between rounds."""
    seconds: float
    """Wall time."""
    seed: int
    """What decided the moves."""
    interrupted: bool
    """Whether Ctrl-C ended it."""
    failures: tuple[str, ...]
    """What went wrong; empty when all is well."""

    @property
    def ok(self) -> bool:
        """Whether nothing went wrong."""
        return not self.failures


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C waits: what was forked and is not noted yet would be left behind."""
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)


class _Crew:
    """The processes of a run, and what happens to them."""

    def __init__(self, plan: Plan, board: Board, processes: int, chance: random.Random) -> None:
        self._plan = plan
        self._board = board
        self._chance = chance
        self._born = 0
        self._stopped: tuple[float, int] | None = None  # until when, which
        self._orphans: list[Watched] = []
        self.processes = processes
        self.kills = 0
        self.stops = 0
        self.failures: list[str] = []
        self.workers: list[Watched] = []
        self.followers: list[Watched] = []

    def start(self) -> None:
        """Start all processes."""
        with _undisturbed():
            for row in range(self.processes):
                self.workers.append(self._start(row))
            self.followers.append(fork_watched(lambda link: follow(self._plan, self._board, self.processes)))

    def _start(self, row: int) -> Watched:
        self._born += 1
        incarnation = self._born
        return fork_watched(lambda link: run(self._plan, self._board, row, incarnation))

    def interrupt(self) -> None:
        """Interrupt somebody, in the middle of whatever it does."""
        os.kill(self.workers[self._chance.randrange(self.processes)].pid, INTERRUPT)

    def disturb(self) -> None:
        """Kill a process and start another, or stop one for a while."""
        with _undisturbed():
            self._disturb()

    def _disturb(self) -> None:
        row = self._chance.randrange(1, self.processes)
        if self._chance.random() < _STOP_SHARE:
            os.kill(self.workers[row].pid, signal.SIGSTOP)
            self._stopped = time.monotonic() + self._chance.uniform(0.01, 1.0), row
            self.stops += 1
            return
        victim = self.workers[row]
        if self._chance.random() < 0.5:
            victim.kill()
        else:
            os.kill(victim.pid, signal.SIGKILL)  # its forked children live on
            ending = victim.wait(deadline_s=_HANG_S)  # their rows are used again: not before they end
            if ending.hung:
                self.failures.append(f"a forked child of a killed process hung: {describe(ending)}")
        for number in range(row * CHILD_ROWS, (row + 1) * CHILD_ROWS):
            self._board.conclude(self._board.rows - 1 - number)  # its children have ended, perhaps in a call
        self.kills += 1
        self.workers[row] = self._start(row)

    def resume(self, *, now: bool = False) -> bool:
        """Let a stopped process go on when its time has come; whether none is stopped."""
        if self._stopped is not None and (now or time.monotonic() > self._stopped[0]):
            os.kill(self.workers[self._stopped[1]].pid, signal.SIGCONT)
            self._stopped = None
        return self._stopped is None

    def look_after(self) -> None:
        """Notice processes that ended or hang."""
        board = self._board
        for row, watched in enumerate((*self.workers, *self.followers)):
            if os.waitid(os.P_PID, watched.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                ending = watched.wait(deadline_s=_HANG_S)
                last = "\n    ".join(board.last(row)[-6:])
                self.failures.append(f"process {row} ended: {describe(ending)}\n    {last}")
        for row in range(board.rows):
            if board.busy_s(row) > _HANG_S:
                which = row if row <= self.processes else (board.rows - 1 - row) // CHILD_ROWS
                lasts = "\n    ".join(board.last(row)[-6:])
                ending = self.workers[which].wait(deadline_s=0)
                self.failures.append(
                    f"row {row}: one call takes {_HANG_S:.0f} s: {describe(ending)}\n    {lasts}"
                )
                return

    def gather(self, number: int) -> bool:
        """Have all processes stand at the gate of a round; whether they do."""
        self.resume(now=True)
        self._board.gate = number
        return self._await(lambda: all(self._board.arrived(row) == number for row in range(self.processes)))

    def settle(self) -> bool:
        """Have the follower compare its books, then let everybody go on."""
        self._board.gate = SETTLED
        came = self._await(lambda: self._board.arrived(self.processes) == SETTLED)
        self._board.gate = 0
        return came

    def _await(self, condition: Callable[[], bool]) -> bool:
        end = time.monotonic() + _HANG_S
        while not condition():
            self.look_after()
            if self.failures:
                return False
            if time.monotonic() > end:
                self.failures.append("a process did not come to the gate")
                for row, watched in enumerate((*self.workers, *self.followers)):
                    if self._board.arrived(row) != self._board.gate:
                        self.failures.append(f"row {row}: {describe(watched.wait(deadline_s=0))}")
                return False
            time.sleep(0.005)
        return True

    def finish(self) -> None:
        """Have all end."""
        self.resume(now=True)
        self._board.end()
        for row, watched in enumerate((*self.workers, *self.followers)):
            ending = watched.wait(deadline_s=_HANG_S)
            if ending.hung or ending.exit_code:
                self.failures.append(f"process {row} did not end well: {describe(ending)}")

    def kill_all(self) -> None:
        """Leave nobody behind."""
        for watched in (*self.workers, *self.followers):
            watched.kill()


def chaos(
    *,
    seconds: float = 600,
    processes: int = 8,
    seed: int = 0,
    round_s: float = 20,
    capacity: int | str = "64MiB",
    faulty: bool = True,
    interrupts: bool = True,
    least_checked: int = 0,
) -> ChaosResult:
    """Run the chaos, check the store after each round and at the end.

    Args:
        seconds: For how long; the last checks come on top.
        processes: How many work at a time, two at least.
        seed: Decides the moves, the kills and the stops.
        round_s: Time between two checks.
        capacity: Of the store.
        faulty: Spill through a storage that fails, too, now and then.
        interrupts: Raise KeyboardInterrupt in the middle of moves.
        least_checked: Go on beyond `seconds`, ten times as long at most, until so many objects were compared,
            every move was made, and there were two kills, forks and rounds: for machines that have much else
            to do.
    """
    place = Path(tempfile.mkdtemp(prefix=f"flightstore-chaos-{os.getpid()}-", dir="/dev/shm"))
    disk = Path(tempfile.mkdtemp(prefix=f"flightstore-chaos-{os.getpid()}-", dir="/var/tmp"))
    # Whoever is not ready to be interrupted yet ignores it, from its birth.
    before = signal.signal(INTERRUPT, signal.SIG_IGN)
    try:
        return _chaos(
            place, disk, seconds, processes, seed, round_s, capacity, faulty, interrupts, least_checked
        )
    finally:
        signal.signal(INTERRUPT, before)
        shutil.rmtree(place, ignore_errors=True)
        shutil.rmtree(disk, ignore_errors=True)


def _chaos(
    place: Path,
    disk: Path,
    seconds: float,
    processes: int,
    seed: int,
    round_s: float,
    capacity: int | str,
    faulty: bool,
    interrupts: bool,
    least_checked: int,
) -> ChaosResult:
    for name in ("ledgers", "spilled"):
        (disk / name).mkdir()
    url = f"file://{disk}/spilled"
    urls = (
        (url, url, faulty_url(url, fail=0.2, fail_reads=0.05, fail_removes=0.2, seed=seed))
        if faulty
        else (url,)
    )
    plan = Plan(str(place / "store"), str(disk / "ledgers"), seed, urls)
    board = Board(processes + 1 + processes * CHILD_ROWS, COUNTERS, str(disk / "log"))
    checker = Checker(plan.store, plan.ledgers, str(disk / "spilled"))
    began = time.monotonic()
    crew = _Crew(plan, board, processes, random.Random(seed))
    failures: list[str] = []
    rounds, interrupted = 0, False
    try:
        with flightstore.connect(plan.store, capacity=capacity, spill=url) as store:
            store.session(KEEP_SESSION).close()
        crew.start()
        while not failures and not _is_over(crew, board, rounds, began, seconds, least_checked):
            _work(crew, board, time.monotonic() + min(round_s, seconds), interrupts)
            failures = crew.failures or _check(crew, checker, rounds + 1)
            rounds += 1
            failures = [f"round {rounds}: {one}" for one in failures]
    except KeyboardInterrupt:
        interrupted = True
    finally:
        if not failures and not interrupted:
            crew.finish()
        crew.kill_all()
    if not failures and not interrupted:
        failures = crew.failures or checker.empty()
    if os.path.exists(board.log):
        failures.append(Path(board.log).read_text())
    counts = {name: board.total(name) for name in board.counters}
    elapsed = time.monotonic() - began
    return ChaosResult(
        counts, crew.kills, crew.stops, rounds, checker.checked, elapsed, seed, interrupted, tuple(failures)
    )


def _is_over(
    crew: _Crew, board: Board, rounds: int, began: float, seconds: float, least_checked: int
) -> bool:
    elapsed = time.monotonic() - began
    lacking = least_checked and (
        board.total("checked") < least_checked
        or not all(board.total(f"move {name}") for name in MOVES)
        or min(crew.kills, board.total("forks"), rounds) < 2
    )
    return elapsed > (10 * seconds if lacking else seconds)


def _work(crew: _Crew, board: Board, until: float, interrupts: bool) -> None:
    """One round: let them work, and disturb them."""
    chance = random.Random(until)
    disturb_at = time.monotonic()
    while time.monotonic() < until and not crew.failures and not board.total("failures"):
        time.sleep(0.02)
        if interrupts:
            crew.interrupt()
        if crew.resume() and time.monotonic() > disturb_at:
            crew.disturb()
            disturb_at = time.monotonic() + chance.uniform(0, 2 * _KILL_EVERY_S)
        crew.look_after()


def _check(crew: _Crew, checker: Checker, number: int) -> list[str]:
    if not crew.gather(number):
        return crew.failures
    time.sleep(0.3)  # longer than any timed batch: what they hold is over for all of the checks
    failures = checker.look(crew.processes + 1)
    checker.tidy()
    if not failures:
        failures = checker.look(crew.processes + 1)
    if not failures and not crew.settle():
        return crew.failures
    return failures


# --- the command ---


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 20)
    print(f"seed {seed}", file=sys.stderr)
    result = chaos(
        seconds=60 * options.minutes,
        processes=options.processes,
        seed=seed,
        round_s=options.round,
        faulty=not options.no_faults,
        capacity=options.capacity,
        interrupts=not options.no_interrupts,
    )
    if options.json:
        print(json.dumps({**dataclasses.asdict(result), "ok": result.ok}))
    else:
        _print(result)
    return 130 if result.interrupted else 0 if result.ok else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flightstore.testing.chaos",
        description="Make every operation at random in many processes that are killed, and check everything.",
    )
    parser.add_argument("--minutes", type=float, default=10, help="for how long")
    parser.add_argument("--processes", type=int, default=8, help="processes at a time, two at least")
    parser.add_argument("--seed", type=int, help="decides the moves; random by default, and printed")
    parser.add_argument("--round", type=float, default=20, help="seconds between two checks of everything")
    parser.add_argument("--capacity", default="64MiB", help="of the store; less is more chaotic")
    parser.add_argument("--no-faults", action="store_true", help="spill to a storage that never fails")
    parser.add_argument("--no-interrupts", action="store_true", help="raise no KeyboardInterrupt in moves")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    return parser


def _print(result: ChaosResult) -> None:
    counts = dict(result.counts)
    moves = {
        name.removeprefix("move "): counts.pop(name) for name in list(counts) if name.startswith("move ")
    }
    rows = {**moves, **counts, "kills": result.kills, "stops": result.stops, "rounds": result.rounds}
    rows["checked between rounds"] = result.checked
    for name, value in rows.items():
        print(f"{name:<24}{value:>14,}")
    print(f"{'seconds':<24}{result.seconds:>14.1f}")
    print(f"{'seed':<24}{result.seed:>14}")
    for failure in result.failures:
        print(f"FAILED (seed {result.seed}): {failure}", file=sys.stderr)
    print("interrupted" if result.interrupted else "all is well" if result.ok else "FAILED")


if __name__ == "__main__":
    sys.exit(main())
