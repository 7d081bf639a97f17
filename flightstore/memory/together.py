"""One piece of work, done by several threads, on memory that is given back as soon as it ends.

Calls nothing else of flightstore. Invariants:

- When :func:`run_together` returns or raises, none of its tasks runs, or ever will, even if what ended it was
  Ctrl-C: what they wrote to may be somebody else's at once.
- Threads live for one call: nothing to inherit by a fork, nothing to wait for at exit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeAlias

__all__ = ["Job", "Task", "run_together"]


class Job:
    """What the tasks of one call share."""

    __slots__ = ("error", "stop")

    def __init__(self) -> None:
        self.stop = False
        """Tasks look at it between steps that are short enough for Ctrl-C, and give up once it is set."""
        self.error: BaseException | None = None
        """What ended one of them."""


Task: TypeAlias = Callable[[Job], None]
"""Does its part, or raises."""


class _Worker(threading.Thread):
    """Runs one task. Whoever holds `gate` knows that it is not running."""

    def __init__(self, task: Task, job: Job) -> None:
        super().__init__(name="flightstore-copy", daemon=True)
        self.gate = threading.Lock()
        self._task = task
        self._job = job

    def run(self) -> None:
        job = self._job
        with self.gate:
            try:
                if not job.stop:
                    self._task(job)
            except BaseException as error:  # handed to the caller's thread
                job.error = error
                job.stop = True


def run_together(tasks: Sequence[Task]) -> None:
    """Run the tasks, the first in the caller's thread; where no thread can be had, one after the other.

    Raises:
        BaseException: what one of them raised; the others were stopped.
    """
    job = Job()
    workers = [_Worker(task, job) for task in tasks[1:]]
    try:
        unstarted = [worker for worker in workers if not _start(worker)]
        tasks[0](job)
        for worker in unstarted:
            worker.run()
        for worker in workers:
            if worker not in unstarted:
                worker.join()
    except BaseException:
        try:
            _quiesce(workers, job)
        except BaseException:  # Ctrl-C on the way into it
            _quiesce(workers, job)
        raise
    if job.error is not None:
        raise job.error


def _start(worker: _Worker) -> bool:
    """Start a thread; False where none can be had (a limit, or the interpreter is shutting down)."""
    try:
        worker.start()
    except RuntimeError:
        return False
    return True


def _quiesce(workers: list[_Worker], job: Job) -> None:
    """Return only when no worker runs its task, or ever will.

    ``join`` would not do: Ctrl-C can leave ``start`` when the thread exists but is not known as started. A
    worker runs its task only while it holds its gate, and looks at `stop` first: once `stop` is set, each
    gate taken once proves that its worker is done, or will find `stop` when it comes. Another Ctrl-C in here
    begins the wait again; the first exception is what the caller sees.
    """
    while True:
        try:
            job.stop = True
            for worker in workers:
                with worker.gate:
                    pass
            return
        except BaseException:
            continue
