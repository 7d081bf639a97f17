"""`flightstore demo`: the main job on a store of its own, each step a process, each with its proof.

The store and the file live in temporary directories that are removed however the demo ends (a SIGKILL
excepted). The steps' own code is in demo_steps.py, the data in demo_data.py.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import IO, Any

import click

from flightstore.cli import exits
from flightstore.cli.context import common_options, settings
from flightstore.cli.demo_data import SEED, orders
from flightstore.cli.output import human_bytes, human_count, print_json
from flightstore.errors import FlightStoreError

__all__ = ["Step", "demo", "run"]

_STEP_TIMEOUT_S = 120
_KILL_TRIES = 20
_BYTES_PER_ROW = 100
"""More than a row of the data takes in the store."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the demo: what was done, how long it took, and what proves it."""

    what: str
    """What was done, and where."""
    seconds: float
    """How long the essential call took."""
    bytes: int | None
    """Bytes written or read; None where there is no such number."""
    proofs: dict[str, bool] = field(default_factory=dict)
    """What was checked, and whether it held."""
    facts: dict[str, Any] = field(default_factory=dict)
    """All that the step's process reported."""
    note: str = ""
    """More about the time."""

    @property
    def ok(self) -> bool:
        """Whether all that was checked held."""
        return all(self.proofs.values())


class DemoFailed(FlightStoreError):
    """A step of the demo did not do what it should."""


Report = Callable[[Step], None]


@click.command(
    epilog="""\b
Examples:
    flightstore demo
    flightstore demo --rows 200000
    flightstore demo --json"""
)
@click.option(
    "--rows",
    type=click.IntRange(min=1000),
    default=2_000_000,
    show_default=True,
    help="Rows of the generated table.",
)
@common_options
def demo(rows: int) -> int:
    """Show what flightstore does, with proofs, in some seconds.

    A Parquet file is put from one process and read from others as Arrow, pandas and polars, without a copy.
    A column is added without writing the others again. Then the object is replaced under a reader that holds
    it, and a writer is killed in the middle of a put.
    The demo works on a store of its own (--store is not used) and removes it at the end.
    """
    as_json = settings().json
    say = (lambda _text: None) if as_json else click.echo
    say(f"The data: {rows:,} generated orders of a made-up shop (seed {SEED}: the same on every run).")
    started = time.perf_counter()
    steps: list[Step] = []

    def report(step: Step) -> None:
        steps.append(step)
        if not as_json:
            _print_step(len(steps), step)

    with workplace(rows) as (store_path, file):
        say(f"The store: {store_path}, removed at the end.\n")
        run(rows, store_path, file, report)
    seconds = time.perf_counter() - started
    failed = [step for step in steps if not step.ok]
    if as_json:
        document = [{**asdict(step), "ok": step.ok} for step in steps]
        data = {"rows": rows, "seed": SEED, "origin": "generated"}
        print_json({"ok": not failed, "seconds": seconds, "data": data, "steps": document})
    elif failed:
        click.echo(f"\n{len(failed)} of {len(steps)} steps FAILED", err=True)
    else:
        click.echo(f"\nAll {len(steps)} steps proved in {seconds:.1f} s; the store has been removed.")
    return exits.ERROR if failed else exits.OK


def _print_step(number: int, step: Step) -> None:
    size = "" if step.bytes is None else human_bytes(step.bytes)
    click.echo(f"{number}. {step.what:<58} {step.seconds * 1000:>10,.2f} ms  {size:>10}")
    if step.note:
        click.echo(f"   {step.note}")
    for proof, held in step.proofs.items():
        click.echo(f"   {'ok' if held else 'FAILED'}: {proof}")


@contextmanager
def workplace(rows: int) -> Iterator[tuple[str, str]]:
    """(directory for the store, path for the file), both removed at the end."""
    with ExitStack() as stack:
        memory = stack.enter_context(_temporary(_memory_directory(rows)))
        disk = stack.enter_context(_temporary(tempfile.gettempdir()))
        yield os.path.join(memory, "store"), os.path.join(disk, "orders.parquet")


@contextmanager
def _temporary(parent: str) -> Iterator[str]:
    directory = tempfile.mkdtemp(prefix="flightstore-demo-", dir=parent)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _memory_directory(rows: int, shm: str = "/dev/shm") -> str:
    """Where the demo's store goes: /dev/shm, or the temporary directory when there is no room."""
    needed = 3 * rows * _BYTES_PER_ROW + (64 << 20)
    if os.path.isdir(shm) and os.access(shm, os.W_OK):
        if shutil.disk_usage(shm).free >= needed:
            return shm
        reason = f"{shm} has less than {human_bytes(needed)} free (try a smaller --rows)"
    else:
        reason = f"{shm} cannot be written"
    fallback = tempfile.gettempdir()
    click.echo(f"warning: {reason}; the store goes to {fallback}, so the times are those of a disk", err=True)
    return fallback


def run(rows: int, store_path: str, file: str, report: Report) -> None:
    """Run all steps on a new store at `store_path`; each is handed to `report` as soon as it is done."""
    import flightstore

    report(_generate(rows, file))
    capacity_bytes = 5 * rows * _BYTES_PER_ROW + (64 << 20)
    store = flightstore.connect(store_path, capacity=capacity_bytes)
    try:
        put = _run_step("put", store_path, file)
        report(_put_step(put))
        first: dict[str, Any] | None = None
        for library in ("arrow", "pandas", "polars"):
            if library != "arrow" and importlib.util.find_spec(library) is None:
                click.echo(f"   left out: {library} is not installed", err=True)
                continue
            facts = _run_step(library, store_path)
            first = first or facts
            report(_read_step(library, facts, first))
        report(_add_step(_run_step("add", store_path)))
        report(_overwrite(store_path))
        report(_kill(store, store_path, file))
        report(_recover(store))
    finally:
        with suppress(FlightStoreError):
            store.destroy()


def _generate(rows: int, file: str) -> Step:
    import pyarrow.parquet as pq

    started = time.perf_counter()
    pq.write_table(orders(rows), file, row_group_size=1 << 18)
    size = os.path.getsize(file)
    return Step(f"generated {human_count(rows)} rows as Parquet", time.perf_counter() - started, size)


def _put_step(facts: dict[str, Any]) -> Step:
    rate = human_bytes(facts["bytes"] / facts["seconds"])
    what = f"put by process {facts['pid']} ({rate}/s)"
    proofs = {f"{facts['rows']:,} rows under the name 'orders', {facts['id']}": facts["rows"] > 0}
    return Step(what, facts["seconds"], facts["bytes"], proofs, facts)


def _read_step(library: str, facts: dict[str, Any], first: dict[str, Any]) -> Step:
    call = {"arrow": "to_arrow", "pandas": "to_pandas", "polars": "to_polars"}[library]
    seconds = facts["get_seconds"] + facts["convert_seconds"]
    what = f"get + {call} by process {facts['pid']} ({library} {facts['library']})"
    shared, copied = facts["shared"], facts["copied"]
    share = f"{human_bytes(facts['shared_bytes'])} of {human_bytes(facts['total_bytes'])}"
    partly = f"; offsets or views rebuilt: {', '.join(copied)}" if copied else ""
    growth = facts["private_bytes"]
    allowed = facts["total_bytes"] - facts["shared_bytes"] + (16 << 20)
    # Strings a library may have to rebuild (offsets, views); numbers are always shared.
    numbers = {"order_id", "customer_id", "quantity", "unit_price", "discount"}
    proofs = {
        f"{len(shared)} of {len(shared) + len(copied)} columns ({share}) lie in the arena{partly}": (
            numbers <= set(shared) and (library != "arrow" or not copied)
        ),
        f"column quantity at {facts['address']}, arena mapped at {facts['mapping']}": (
            facts["permissions"] == "r--s"
        ),
        f"private memory grew by {human_bytes(growth)}": growth <= allowed,
        f"writing is refused: {facts['write_refused']}": "read-only" in facts["write_refused"],
        f"sums {facts['quantity']:,} / {facts['revenue_cents']:,}, as in every process": (
            _totals(facts) == _totals(first)
        ),
    }
    if "write_signal" in facts:
        proofs[f"writing all the same, through a pointer: {facts['write_signal']}"] = (
            facts["write_signal"] == "SIGSEGV"
        )
    get_us, convert_ms = facts["get_seconds"] * 1e6, facts["convert_seconds"] * 1e3
    note = f"of which get {get_us:,.0f} us, conversion {convert_ms:,.2f} ms"
    return Step(what, seconds, facts["bytes"], proofs, facts, note)


def _add_step(facts: dict[str, Any]) -> Step:
    extra, whole = facts["grown_bytes"] - facts["bytes"], human_bytes(facts["all_bytes"])
    proofs = {
        f"the store grew by the column and {extra:,} bytes; the new table has {whole}": (0 <= extra <= 8192),
        f"{facts['columns'] - 1} of its {facts['columns']} columns are the memory of 'orders'": (
            facts["same_memory"]
        ),
        "the new column reads as it was computed": facts["right"],
    }
    what = f"added a column by process {facts['pid']}: 'orders_total'"
    return Step(what, facts["seconds"], facts["bytes"], proofs, facts)


def _totals(facts: dict[str, Any]) -> tuple[int, int]:
    return facts["quantity"], facts["revenue_cents"]


def _overwrite(store_path: str) -> Step:
    """Replace the object while another process holds it."""
    with _step("hold", store_path) as reader:
        held = _line(reader)
        written = _run_step("overwrite", store_path)
        assert reader.stdin is not None
        reader.stdin.write("go\n")
        reader.stdin.flush()
        again, fresh = _line(reader), _line(reader)
        _finish(reader, "hold")
    proofs = {
        f"process {held['pid']}, holding {held['id']}, still reads {_totals(again)[1]:,}": (
            _totals(again) == _totals(held)
        ),
        f"a new get gives {fresh['id']} and reads {_totals(fresh)[1]:,}": (
            fresh["id"] == written["id"] != held["id"] and _totals(fresh) == _totals(written)
        ),
    }
    facts = {"held": held, "held_again": again, "fresh": fresh, "written": written}
    return Step("replaced 'orders' under a live reader", written["seconds"], written["bytes"], proofs, facts)


def _kill(store: Any, store_path: str, file: str) -> Step:
    """Kill a writer in the middle of a put: when the catalog shows its object as pending."""
    started = time.perf_counter()
    attempts = pending = pid = 0
    while not pending and attempts < _KILL_TRIES:
        attempts += 1
        with _step("put-forever", store_path, file) as writer:
            pid = _line(writer)["pid"]
            while store.stats().pending == 0 and writer.poll() is None:
                pass
            writer.kill()
            writer.wait()
        # The put may have been sealed between the look and the signal: nothing is half-stored. Once more.
        pending = store.stats().pending
    proofs = {
        f"it left {pending} object half-stored, which no reader sees": pending > 0,
        "'orders' is there as before": store.contains("orders"),
    }
    facts = {"attempts": attempts, "pending": pending}
    seconds = time.perf_counter() - started
    return Step(f"killed process {pid} (SIGKILL) in the middle of a put", seconds, None, proofs, facts)


def _recover(store: Any) -> Step:
    started = time.perf_counter()
    done = store.recover()
    seconds = time.perf_counter() - started
    damage = [finding.message for finding in store.fsck()]
    pending = store.stats().pending
    proofs = {
        f"reclaimed: {done.dead_clients} dead clients, {done.aborted_objects} half-stored object": (
            done.aborted_objects > 0 and pending == 0
        ),
        "fsck: clean" if not damage else f"fsck: {damage[0]}": not damage,
    }
    return Step("recover", seconds, done.freed_bytes, proofs, {"recovered": asdict(done), "fsck": damage})


@contextmanager
def _step(name: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process that runs one step; killed at the end if it still runs."""
    with tempfile.TemporaryFile("w+") as errors:
        # An interrupt within Popen would leave a process that nobody knows of; it has to wait. (The process
        # inherits the mask, which does not matter: it is ended by SIGKILL.)
        unmasked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            process = _spawn(name, arguments, errors)
        except BaseException:
            signal.pthread_sigmask(signal.SIG_SETMASK, unmasked)
            raise
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, unmasked)
            yield process
        except _StepDied as death:
            errors.seek(0)
            lines = errors.read().strip().splitlines()
            raise DemoFailed(f"step {name} failed: {lines[-1] if lines else death}") from None
        finally:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # what the step has forked goes with it
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with suppress(OSError):
                        stream.close()


def _spawn(name: str, arguments: tuple[str, ...], errors: IO[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "flightstore.cli.demo_steps", name, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        # A group of its own: Ctrl-C reaches the demo alone, which then ends its steps quietly.
        process_group=0,
    )


class _StepDied(Exception):
    """A step's process ended before it said what it should."""


def _line(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The next line that a step reports."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise _StepDied(f"exit code {process.wait()}")
    facts: dict[str, Any] = json.loads(line)
    return facts


def _finish(process: subprocess.Popen[str], name: str) -> None:
    """Wait for a step to end well."""
    code = process.wait(timeout=_STEP_TIMEOUT_S)
    if code:
        raise _StepDied(f"step {name}: exit code {code}")


def _run_step(name: str, *arguments: str) -> dict[str, Any]:
    """Run a step to its end; what it reported."""
    with _step(name, *arguments) as process:
        facts = _line(process)
        _finish(process, name)
    return facts
