"""The stress driver: many processes get and replace objects in a tight arena, fork, and are killed.

``python -m flightstore.testing.stress --gets 1000000 --forks --kills`` prints what was done, and exits with 1
when a reader saw one wrong byte, a process hung or failed, fsck found something, or memory did not come back.

Lives here: `stress` (the controller), `Result`, and the command. Calls stressworker.py and watched.py.

Invariants: the controller is not connected while it forks, so each process connects for itself. The arena is
a third larger than what lives in it: memory is used again at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import flightstore
from flightstore.testing.stresspattern import LARGE_EVERY, content, length, name_of, problem
from flightstore.testing.stressworker import COUNTERS, Plan, Tally, fill, run
from flightstore.testing.watched import Ending, Watched, describe, fork_watched

__all__ = ["Result", "main", "stress"]

_OBJECTS = 1024
_TIGHTNESS = 1.3
_HANG_S = 60.0
_KILL_EVERY_S = 0.15


@dataclass(frozen=True, slots=True)
class Result:
    """What a run did and found."""

    counts: dict[str, int]
    """See stressworker.COUNTERS."""
    kills: int
    """Processes killed by SIGKILL, their forked children not counted."""
    seconds: float
    """Wall time, without making and checking the store."""
    capacity_bytes: int
    """Size of the arena."""
    live_bytes: int
    """Bytes of the objects in it at the end."""
    seed: int
    """What decided the moves."""
    failures: tuple[str, ...]
    """What went wrong; empty when all is well."""

    @property
    def ok(self) -> bool:
        """Whether nothing went wrong."""
        return not self.failures


class _Crew:
    """The processes of a run."""

    def __init__(self, plan: Plan, tally: Tally) -> None:
        self._plan = plan
        self._tally = tally
        self._born = 0
        self._watched: list[Watched] = []
        self._orphans: list[Watched] = []
        self._progress: list[tuple[float, int]] = []
        self.kills = 0
        self.failures: list[str] = []
        for process in range(tally.processes):
            self._watched.append(self._start(process))
            self._progress.append((time.monotonic(), -1))

    def _start(self, process: int) -> Watched:
        self._born += 1
        incarnation = self._born
        return fork_watched(lambda link: run(self._plan, self._tally, process, incarnation))

    def kill_one(self, chance: random.Random) -> None:
        """Kill a process and start another in its place; half of the time its forked children live on."""
        process = chance.randrange(len(self._watched))
        victim = self._watched[process]
        if chance.random() < 0.5:
            victim.kill()
        else:
            os.kill(victim.pid, signal.SIGKILL)
            self._orphans.append(victim)
        self.kills += 1
        # Its children count in the rows of their own until they end: start the next one when they are gone.
        self._settle_orphans()
        self._watched[process] = self._start(process)
        self._progress[process] = time.monotonic(), -1

    def _settle_orphans(self) -> None:
        for orphan in self._orphans:
            ending = orphan.wait(deadline_s=_HANG_S)
            if ending.hung:
                self.failures.append(f"a forked child of a killed process hung: {describe(ending)}")
        self._orphans.clear()

    def look_after(self) -> None:
        """Notice processes that ended or hang."""
        now = time.monotonic()
        for process, watched in enumerate(self._watched):
            if not self._tally.ended and not _lives(watched.pid):
                self.failures.append(f"a process ended: {describe(watched.wait(deadline_s=_HANG_S))}")
            done = self._tally.total("gets", process) + self._tally.total("replacements", process)
            since, before = self._progress[process]
            if done != before:
                self._progress[process] = now, done
            elif now - since > _HANG_S:
                ending = watched.wait(deadline_s=0)
                self.failures.append(f"a process made no move for {_HANG_S:.0f} s: {describe(ending)}")

    def finish(self) -> None:
        """Wait until all have ended."""
        self._tally.end()
        for watched in self._watched:
            ending = watched.wait(deadline_s=_HANG_S)
            if not _ended_well(ending):
                self.failures.append(f"a process did not end well: {describe(ending)}")

    def kill_all(self) -> None:
        """Leave nobody behind."""
        for watched in (*self._watched, *self._orphans):
            watched.kill()


def _lives(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def _ended_well(ending: Ending) -> bool:
    return not ending.hung and ending.exit_code == 0


def stress(
    *,
    gets: int = 100_000,
    seconds: float | None = None,
    processes: int = 4,
    forks: bool = False,
    kills: bool = False,
    seed: int = 0,
    min_forks: int = 0,
    fork_every: int = 400,
    directory: str | None = None,
    least: Mapping[str, int] | None = None,
) -> Result:
    """Run the stress and check the store afterwards.

    Args:
        gets: End after so many gets, each of them checked in full.
        seconds: End after so long at the latest; None for no limit.
        processes: How many work at a time.
        forks: Let them fork.
        kills: Kill one of them every now and then.
        seed: Decides the moves.
        min_forks: Go on until there were so many forks, too.
        fork_every: Moves of a process between two forks, in the mean.
        directory: Where to make the store; a memory file system. Default: /dev/shm.
        least: Go on beyond `seconds`, ten times as long at most, until so much was counted, by the names of
            the counters and "kills": for machines that have much else to do.
    """
    place = Path(tempfile.mkdtemp(prefix="flightstore-stress-", dir=directory or "/dev/shm"))
    try:
        live = sum(8 * length(index, 0) for index in range(_OBJECTS))
        plan = Plan(str(place / "store"), _OBJECTS, seed, forks=forks, fork_every=fork_every)
        tally = Tally(processes, str(place / "log"))
        with flightstore.connect(plan.store, capacity=int(_TIGHTNESS * live)) as store:
            capacity_bytes = store.capacity_bytes
            fill(store, plan.objects)
        began = time.monotonic()
        crew = _Crew(plan, tally)
        try:
            chance = random.Random(seed) if kills else None
            _supervise(crew, tally, chance, gets, seconds, min_forks, least or {})
            crew.finish()
        finally:
            crew.kill_all()
        elapsed = time.monotonic() - began
        counts = {name: tally.total(name) for name in COUNTERS}
        live_bytes, found = _check_store(plan)
        failures = [*crew.failures, *found]
        if counts["wrong_bytes"] or counts["errors"]:
            failures.append(Path(tally.log).read_text())
        return Result(counts, crew.kills, elapsed, capacity_bytes, live_bytes, seed, tuple(failures))
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _supervise(
    crew: _Crew,
    tally: Tally,
    chance: random.Random | None,
    gets: int,
    seconds: float | None,
    min_forks: int,
    least: Mapping[str, int],
) -> None:
    """Watch, kill, until enough was done, the time is over, or something failed."""
    began = time.monotonic()

    def lacks() -> bool:
        return any(
            (crew.kills if name == "kills" else tally.total(name)) < count for name, count in least.items()
        )

    while not crew.failures and not tally.total("wrong_bytes") and not tally.total("errors"):
        if tally.total("gets") >= gets and tally.total("forks") >= min_forks:
            return
        elapsed = time.monotonic() - began
        if seconds is not None and elapsed > seconds and (elapsed > 10 * seconds or not lacks()):
            return
        time.sleep(_KILL_EVERY_S if chance is None else chance.uniform(0, 2 * _KILL_EVERY_S))
        if chance is not None:
            crew.kill_one(chance)
        crew.look_after()


def _check_store(plan: Plan) -> tuple[int, list[str]]:
    """(live bytes, what is wrong): the store is sound, all objects are right, all other memory came back."""
    failures: list[str] = []
    with flightstore.connect(plan.store, create=False) as store:
        store.recover()
        failures += [f"fsck: {finding}" for finding in store.fsck()]
        for index in range(plan.objects):
            if name_of(index) in store:
                what = problem(store.get(name_of(index)).value(), index)
                failures += [f"at the end: {what}"] if what else []
        stats = store.stats()
        extents = sum(-(-info.nbytes // 64) * 64 for info in store.list())
        if not extents <= stats.used_bytes <= extents + 4096 * stats.objects:
            failures.append(f"{stats.used_bytes:,} bytes are used by objects of {extents:,} bytes")
        left = {name: getattr(stats, name) for name in ("pending", "dying", "leases")}
        if any(left.values()) or stats.clients != 1:
            failures.append(f"left behind: {left}, {stats.clients} clients")
        store.delete([name_of(index) for index in range(plan.objects)])
        failures += _check_reuse(store)
        store.recover()
        if store.stats().used_bytes or store.fsck():
            failures.append(f"after all was deleted: {store.stats()}, fsck: {store.fsck()}")
    return stats.used_bytes, failures


def _check_reuse(store: flightstore.Store) -> list[str]:
    """The store works on: an object of each size goes in and comes out."""
    found = []
    for index in (0, LARGE_EVERY - 1):
        store.put(content(index, 1), name_of(index))
        found.append(problem(store.get(name_of(index)).value(), index))
        store.delete(name_of(index))
    return [f"put after the run: {what}" for what in found if what]


# --- the command ---


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    result = stress(
        gets=options.gets,
        seconds=options.seconds,
        processes=options.processes,
        forks=options.forks,
        kills=options.kills,
        seed=options.seed,
        min_forks=options.min_forks,
        fork_every=options.fork_every,
    )
    if options.json:
        print(json.dumps({**dataclasses.asdict(result), "ok": result.ok}))
    else:
        _print(result)
    return 0 if result.ok else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flightstore.testing.stress",
        description="Get and replace objects from many processes in a tight arena, and check every byte.",
    )
    parser.add_argument("--gets", type=int, default=100_000, help="gets to make, over all processes")
    parser.add_argument("--seconds", type=float, help="end after so many seconds at the latest")
    parser.add_argument("--processes", type=int, default=4, help="processes at a time")
    parser.add_argument("--forks", action="store_true", help="let the processes fork")
    parser.add_argument("--fork-every", type=int, default=400, help="moves between two forks of a process")
    parser.add_argument("--min-forks", type=int, default=0, help="go on until there were so many forks")
    parser.add_argument("--kills", action="store_true", help="kill processes with SIGKILL")
    parser.add_argument("--seed", type=int, default=0, help="decides the moves")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    return parser


def _print(result: Result) -> None:
    rows = {**result.counts, "kills": result.kills}
    rows |= {"capacity_bytes": result.capacity_bytes, "live_bytes": result.live_bytes, "seed": result.seed}
    for name, value in rows.items():
        print(f"{name:<16}{value:>14,}")
    print(f"{'seconds':<16}{result.seconds:>14.1f}")
    print(f"{'gets/s':<16}{result.counts['gets'] / result.seconds:>14,.0f}")
    for failure in result.failures:
        print(f"FAILED: {failure}", file=sys.stderr)
    print("no wrong byte, nothing left behind" if result.ok else "FAILED")


if __name__ == "__main__":
    sys.exit(main())
