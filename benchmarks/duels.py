"""Who is measured beside whom: the stores of this environment together, then each peer by itself with ours.

A peer runs in a process of its own environment; ours and memcpy are measured again beside it, because a ratio
is taken within one repetition. One at a time, because each keeps gigabytes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from harness import OURS, Contender, Row, Samples, Settings, interleave, say
from installs import LeftOut, environment
from processes import Host
from stores import LOCAL, PEERS, backend_class
from stores.base import Backend
from workload import Workload

NEEDS = {"pandas": "pandas", "mixed": "pandas", "polars": "polars"}
"""Workloads that need a library besides our dependencies."""


@dataclass
class Found:
    """What was measured, and what was not."""

    samples: dict[str, list[Samples]] = field(default_factory=dict)
    """Workload -> one entry for each time it was run."""
    labels: list[str] = field(default_factory=list)
    """The stores beside ours, in order."""
    versions: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """Of each peer's libraries."""
    left_out: list[str] = field(default_factory=list)

    def leave_out(self, what: str, why: object) -> None:
        """Say that something is not measured, and remember it."""
        lines = [line for line in str(why).splitlines() if line.strip()]
        self.left_out.append(f"{what}: {lines[-1].strip() if lines else type(why).__name__}")
        say(f"left out: {self.left_out[-1]}")

    def rows(self, works: Iterable[Workload]) -> list[Row]:
        """The rows of all workloads that were run."""
        return [
            row
            for work in works
            if work.key in self.samples
            for row in work.rows(self.samples[work.key], self.labels)
        ]


def run_here(works: Iterable[Workload], settings: Settings, found: Found) -> None:
    """Measure the stores of this environment, each workload with all of them together."""
    backends: list[Backend] = []
    for name in LOCAL:
        place = settings.scratch / name
        place.mkdir()
        backends.append(backend_class(name)(place, place, 0))
    if settings.baselines_only:
        backends = [backend for backend in backends if backend.label != OURS]
    found.labels += [backend.label for backend in backends if backend.label != OURS]
    for work in works:
        missing = NEEDS.get(work.key)
        if missing and not _installed(missing):
            found.leave_out(work.label, f"{missing} is not installed")
            continue
        say(f"{work.key}: {work.label}")
        able = []
        for backend in backends:
            reason = work.reason_without(type(backend))
            if reason is None:
                able.append(backend)
            elif backend.label == OURS:
                found.leave_out(work.label, reason)
        with ExitStack() as stack:
            contenders = {backend.label: work.contender(stack, backend, False) for backend in able}
            contenders |= work.copies(stack, False)
            repetitions, warmups = work.rounds(duel=False)
            samples = interleave(contenders, repetitions, warmups=warmups)
        found.samples.setdefault(work.key, []).append(samples)


def run_beside(name: str, works: Iterable[Workload], settings: Settings, found: Found) -> None:
    """Measure one peer and ours; what cannot be done is left out with its reason."""
    peer = backend_class_label(name)
    try:
        with _host(name, settings) as host:
            found.versions[peer] = host.call("versions")
            found.labels.append(peer)
            for work in works:
                if work.key in found.samples:  # what cannot be measured here is not compared
                    _duel(name, peer, host, work, settings, found)
    except (LeftOut, RuntimeError, EOFError, OSError) as error:
        found.leave_out(peer, error)


def _duel(name: str, peer: str, host: Host, work: Workload, settings: Settings, found: Found) -> None:
    if work.key in SKIPPED.get(name, {}):
        found.leave_out(f"{peer}, {work.label}", SKIPPED[name][work.key])
        return
    say(f"{peer}, {work.key}: {work.label}")
    place = settings.scratch / f"beside-{name}"
    place.mkdir(exist_ok=True)
    ours = backend_class("flightstore")(place, place, 0)
    with ExitStack() as stack:
        stack.callback(host.call, "finish")
        try:
            cost_s = host.call("open", work.key)
            contenders: dict[str, Contender] = {peer: partial(host.call, "run")}
            if not settings.baselines_only and work.reason_without(type(ours)) is None:
                contenders[OURS] = work.contender(stack, ours, True)
            contenders |= work.copies(stack, True)
            repetitions, warmups = (1, 0) if cost_s > SLOW_S else work.rounds(duel=True)
            samples = interleave(contenders, repetitions, warmups=warmups)
        except RuntimeError as error:  # in the peer's process
            found.leave_out(f"{peer}, {work.label}", error)
            return
    found.samples[work.key].append(samples)


@contextmanager
def _host(name: str, settings: Settings) -> Iterator[Host]:
    """The peer's process and its store, up and running."""
    python = environment(name, settings.environments)
    scratch = settings.scratch / name
    scratch.mkdir()
    work = Path(tempfile.mkdtemp(prefix="fsb-"))  # short: sockets lie in it
    log = work / "log"
    options = [name, str(scratch), str(work), str(settings.size_bytes), str(int(settings.quick))]
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    try:
        with Host(python, options, log, clean) as host:
            host.result()
            yield host
    finally:
        shutil.rmtree(work, ignore_errors=True)


def backend_class_label(name: str) -> str:
    """What a peer is called, without importing it."""
    return PEER_LABELS.get(name, PEERS[name])


SLOW_S = 5.0
"""A peer that takes so long to put and get once does so once more, and that is all."""
PEER_LABELS = {"iceoryx2": "iceoryx2"}
_FRAMES = "its environment holds tables, not frames of this library"
_CHANNEL = "a channel keeps nothing under a name"
SKIPPED: dict[str, dict[str, str]] = {
    "plasma": {"polars": _FRAMES},
    "vineyard": {"polars": _FRAMES},
    "ray": {"polars": _FRAMES},
    "iceoryx2": {"polars": _FRAMES, "many": _CHANNEL, "add": _CHANNEL},
}


def _installed(library: str) -> bool:
    from importlib.util import find_spec

    return find_spec(library) is not None
