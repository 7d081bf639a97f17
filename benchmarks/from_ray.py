"""Ray's objects in the store: borrowed by from_ray, beside got and put again.

    python benchmarks/from_ray.py [--size BYTES] [--json FILE] [--quick]

A value lies in Ray's memory when the clock starts; when it stops, another process could get it from the store
by its name. The keepers are there already, as they are for all values but the first; what the very first
one took is a note. *Taken* is by how much the memory file system grew or the store's use did, whichever is
more; the store's pages are warm after the first round, so the put is as fast as it gets. Ray listens on
every interface, so all of it runs in a network of its own that has nothing but loopback.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import values
from command import console_for, options, write_json
from harness import (
    GIB,
    MIB,
    OURS,
    Row,
    Target,
    interleave,
    make_row,
    say,
    scratch_directory,
    seconds,
)
from report import describe_machine, load_average, print_table, to_json
from stores.loopback import enter_private_network

PUT = "ray.get + put"
KINDS: Mapping[str, Callable[[int], Any]] = {"Arrow table": values.table, "NumPy array": values.array}


class Rounds:
    """The contenders for one value: one repetition each."""

    def __init__(self, ray: Any, store: Any, value: Any) -> None:
        from flightstore.connectors.ray import from_ray

        self._ray, self._store, self._from_ray = ray, store, from_ray
        self._ref = ray.put(value)

    def borrowed(self) -> Mapping[str, float]:
        """As from_ray does it."""
        return self._measured(lambda: self._from_ray(self._ref, store=self._store, name="value", copy=False))

    def put(self) -> Mapping[str, float]:
        """As one would do without."""
        return self._measured(lambda: self._store.put(self._ray.get(self._ref), "value"))

    def _measured(self, operation: Callable[[], Any]) -> Mapping[str, float]:
        before = self._used()
        elapsed = seconds(operation)
        grown = max(after - then for after, then in zip(self._used(), before, strict=True))
        self._store.delete("value")
        self._store.recover()
        return {"time": elapsed * 1e3, "grown": grown / MIB}

    def _used(self) -> tuple[int, int]:
        """Bytes of the memory file system, and of the store, whose arena may have had the memory already."""
        found = os.statvfs(self._store.path)
        return (found.f_blocks - found.f_bfree) * found.f_frsize, self._store.stats().used_bytes


def measure(ray: Any, scratch: Path, size_bytes: int, *, quick: bool) -> list[Row]:
    """All rows."""
    import flightstore

    rows = []
    repetitions = 2 if quick else 5
    with flightstore.connect(scratch / "store", capacity=size_bytes + size_bytes // 4 + 64 * MIB) as store:
        for kind, make in KINDS.items():
            say(kind)
            rounds = Rounds(ray, store, make(size_bytes))
            first = rounds.borrowed()
            runs = [interleave({OURS: rounds.borrowed, PUT: rounds.put}, repetitions)]
            beside = {PUT: (PUT, "time")}
            group = f"{size_bytes / GIB:.3g} GiB, {kind}"
            rows += [
                make_row(group, "from_ray", "ms", runs, "time", beside, target=Target(1, True, PUT)),
                make_row(
                    group,
                    "memory taken",
                    "MiB",
                    runs,
                    "grown",
                    {PUT: (PUT, "grown")},
                    target=Target(1, at_most=True),
                    note=f"the first from_ray of this store's: {first['time']:.0f} ms",
                    compare=False,
                ),
            ]
            del rounds
        store.destroy()
    return rows


@click.command()
@click.option("--size", "size_bytes", default=GIB, show_default=True, help="Bytes of each value.")
@options
def main(size_bytes: int, json_to: str | None, quick: bool, parent: Path) -> None:
    """Measure from_ray beside ray.get and put."""
    enter_private_network()
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "RAY_DEDUP_LOGS": "0"}
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])  # where the keepers find us
    import ray

    console = console_for(json_to)
    machine: dict[str, Any] = describe_machine() | {"load_average_start": load_average()}
    work = tempfile.mkdtemp(prefix="fsray", dir="/tmp")  # short: Ray's sockets lie below
    try:
        with scratch_directory(parent) as scratch:
            ray.init(
                num_cpus=2,
                object_store_memory=max(int(size_bytes * 2.5), 128 * MIB),
                include_dashboard=False,
                log_to_driver=False,
                _temp_dir=work,
                _node_ip_address="127.0.0.1",
            )
            try:
                rows = measure(ray, scratch, size_bytes, quick=quick)
            finally:
                ray.shutdown()
    finally:
        shutil.rmtree(work, ignore_errors=True)
    machine["load_average_end"] = load_average()
    print_table(rows, machine, console)
    write_json(json_to, to_json(rows, machine, {"quick": quick, "size_bytes": size_bytes}))


if __name__ == "__main__":
    main()
