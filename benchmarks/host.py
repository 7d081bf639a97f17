"""A peer's own process, in the peer's environment: holds its store and runs its half of each workload.

    python host.py DESCRIPTOR NAME SCRATCH WORK SIZE_BYTES QUICK

Started by the benchmark, commanded through a socket, ended by its closing; and with it all that it started.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection
from pathlib import Path

from harness import Contender, Settings
from processes import descendants, end_all, serve
from stores import backend_class
from workloads import ROOM_FACTOR, ROOM_MORE, all_workloads

_PR_SET_CHILD_SUBREAPER = 36


class Hosted:
    """A peer's store and the workload it is at."""

    def __init__(self, name: str, settings: Settings, work: Path) -> None:
        room_bytes = ROOM_FACTOR * settings.size_bytes + ROOM_MORE
        self._backend = backend_class(name)(settings.scratch, work, room_bytes)
        self._workloads = all_workloads(settings)
        self._stack = ExitStack()
        self._run: Contender | None = None

    def versions(self) -> dict[str, str]:
        """Of the peer's Python and libraries."""
        return {"python": ".".join(map(str, sys.version_info[:3])), **self._backend.versions()}

    def open(self, key: str) -> float:
        """Set the store up for a workload; how long one repetition will take, where that is known."""
        self._run = self._workloads[key].contender(self._stack, self._backend, True)
        return float(getattr(self._run, "cost_s", 0))

    def run(self) -> Mapping[str, float]:
        """One repetition of it."""
        assert self._run is not None
        return self._run()

    def finish(self) -> None:
        """Take it down again."""
        self._run = None
        self._stack.close()

    def close(self) -> None:
        """Stop the store."""
        self._run = None
        try:
            self._stack.close()
        finally:
            self._backend.close()


def main() -> None:
    """Serve until the socket closes."""
    descriptor, name, scratch, work, size_bytes, quick = sys.argv[1:]
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # orphans of ours are found below us
    settings = Settings(Path(scratch), int(size_bytes), quick == "1")
    try:
        serve(Connection(int(descriptor)), Hosted, (name, settings, Path(work)))
    finally:
        end_all(descendants(os.getpid()))
        with suppress(ChildProcessError):
            while True:
                os.wait()


if __name__ == "__main__":
    main()
