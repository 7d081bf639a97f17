"""The processes of `flightstore demo`: each step is a Python process of its own that prints JSON lines.

Run as ``python -m flightstore.cli.demo_steps STEP ARGUMENT...``. The steps use the public API as any program
would; what they prove about memory they read from the kernel (/proc/self/maps, /proc/self/smaps_rollup).
A step that waits for its parent reads a line from stdin, so that it ends with its parent.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

__all__ = ["STEPS", "main", "private_bytes", "read_only_mapping"]

NAME = "orders"


def say(**facts: Any) -> None:
    """Report facts to the parent, one JSON document a line."""
    print(json.dumps(facts), flush=True)


def read_only_mapping(path: str, maps: str | None = None) -> tuple[int, int, str] | None:
    """(first address, end, permissions) of the shared mapping of a file in this process; None without one.

    Args:
        path: The mapped file.
        maps: Text of /proc/self/maps; read from there when None.
    """
    text = Path("/proc/self/maps").read_text() if maps is None else maps
    ranges = []
    for line in text.splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5] == path:
            first, _, end = fields[0].partition("-")
            ranges.append((int(first, 16), int(end, 16), fields[1]))
    return max(ranges, key=lambda r: r[1] - r[0], default=None)


def private_bytes() -> int:
    """Memory that belongs to this process alone: its anonymous pages, as the kernel counts them.

    Pages of the store do not count, however many of them this process has touched.
    """
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no line Anonymous in /proc/self/smaps_rollup")


def column_buffers(column: Any) -> Iterable[tuple[int, int]]:
    """(address, bytes) of the memory under an Arrow array or chunked array."""
    for chunk in getattr(column, "chunks", [column]):
        for buffer in chunk.buffers():
            if buffer is not None and buffer.size:
                yield buffer.address, buffer.size


def sharing(columns: dict[str, Iterable[tuple[int, int]]], mapping: tuple[int, int, str]) -> dict[str, Any]:
    """Which of the columns lie wholly inside the mapping, and how many bytes do."""
    first, end, _permissions = mapping
    shared: list[str] = []
    copied: list[str] = []
    shared_bytes = total_bytes = 0
    for name, buffers in columns.items():
        whole = True
        for address, size in buffers:
            inside = first <= address and address + size <= end
            whole &= inside
            total_bytes += size
            shared_bytes += size if inside else 0
        (shared if whole else copied).append(name)
    return {"shared": shared, "copied": copied, "shared_bytes": shared_bytes, "total_bytes": total_bytes}


def write_kills(address: int) -> str:
    """What the kernel does to a process (a forked child) that writes to an address: the signal's name."""
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        ctypes.memset(address, 255, 1)
        os._exit(0)
    _pid, status = os.waitpid(child, 0)
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else "nothing"


def refused_write(array: Any) -> str:
    """The error with which NumPy refuses to write into an array; empty when it does not refuse."""
    try:
        array[0] = array[0]
    except ValueError as error:
        return f"ValueError: {error}"
    return ""


def totals(quantity: Any, price: Any) -> dict[str, int]:
    """Sums that come out equal to the last digit whatever order they are made in: all integers."""
    import numpy as np

    cents = np.rint(np.asarray(price) * 100).astype(np.int64)
    count = np.asarray(quantity)
    return {"quantity": int(count.sum(dtype=np.int64)), "revenue_cents": int((cents * count).sum())}


def step_put(store_path: str, file: str) -> None:
    """Read the Parquet file and put it under NAME."""
    import pyarrow.parquet as pq

    import flightstore

    table = pq.read_table(file)  # in as many chunks as the file has; the put makes them one
    store = flightstore.connect(store_path, create=False)
    started = time.perf_counter()
    store.put(table, NAME)
    seconds = time.perf_counter() - started
    info = store.stat(NAME)
    say(seconds=seconds, bytes=info.nbytes, rows=info.num_rows, id=str(info.id), pid=os.getpid())


def _open(store_path: str) -> tuple[Any, dict[str, Any]]:
    """Get NAME; the object, and the time of the get."""
    import flightstore

    store = flightstore.connect(store_path, create=False)
    # Once for nothing: what Python imports on the first get is no part of its time.
    store.get(NAME).release()
    started = time.perf_counter()
    obj = store.get(NAME)
    return obj, {"get_seconds": time.perf_counter() - started, "bytes": obj.nbytes, "pid": os.getpid()}


def _mapping(store_path: str) -> tuple[int, int, str]:
    arena = os.path.join(os.path.realpath(store_path), "arena")
    found = read_only_mapping(arena)
    if found is None:
        raise RuntimeError(f"{arena} is not mapped")
    return found


def step_arrow(store_path: str) -> None:
    """Read NAME as an Arrow table."""
    import numpy as np
    import pyarrow as pa

    obj, facts = _open(store_path)
    before = private_bytes()
    started = time.perf_counter()
    table = obj.to_arrow()
    facts["convert_seconds"] = time.perf_counter() - started
    facts["private_bytes"] = private_bytes() - before
    mapping = _mapping(store_path)
    facts |= sharing({name: column_buffers(table[name]) for name in table.column_names}, mapping)
    quantity = table["quantity"].chunk(0).to_numpy()
    address = quantity.__array_interface__["data"][0]
    facts["write_refused"] = refused_write(quantity)
    facts["write_signal"] = write_kills(address)
    whole = {
        name: np.concatenate([c.to_numpy() for c in table[name].chunks])
        for name in ("quantity", "unit_price")
    }
    say(
        **facts,
        **_place(mapping, address),
        **totals(whole["quantity"], whole["unit_price"]),
        library=pa.__version__,
    )


def _place(mapping: tuple[int, int, str], address: int) -> dict[str, Any]:
    first, end, permissions = mapping
    return {
        "mapping": f"{first:x}-{end:x} {permissions}",
        "address": f"{address:x}",
        "permissions": permissions,
    }


def step_pandas(store_path: str) -> None:
    """Read NAME as a pandas frame."""
    import pandas as pd
    import pyarrow as pa

    # Once for nothing: what pyarrow imports on its first conversion is no memory of ours.
    pa.table({"x": [1]}).to_pandas()
    obj, facts = _open(store_path)
    before = private_bytes()
    started = time.perf_counter()
    frame = obj.to_pandas()
    facts["convert_seconds"] = time.perf_counter() - started
    facts["private_bytes"] = private_bytes() - before
    mapping = _mapping(store_path)
    columns: dict[str, Iterable[tuple[int, int]]] = {}
    for name in frame.columns:
        if isinstance(frame[name].dtype, pd.StringDtype | pd.CategoricalDtype | pd.ArrowDtype):
            columns[name] = column_buffers(pa.array(frame[name]))
        else:
            values = frame[name].array
            values = values.view("int64") if hasattr(values, "asi8") else values.to_numpy()
            columns[name] = [(values.__array_interface__["data"][0], values.nbytes)]
    facts |= sharing(columns, mapping)
    quantity = frame["quantity"].to_numpy()
    facts["write_refused"] = refused_write(quantity)
    address = quantity.__array_interface__["data"][0]
    say(**facts, **_place(mapping, address), **totals(quantity, frame["unit_price"]), library=pd.__version__)


def step_polars(store_path: str) -> None:
    """Read NAME as a polars frame."""
    import polars as pl
    import pyarrow as pa

    # Once for nothing: polars starts its threads on first use.
    pl.from_arrow(pa.table({"x": ["a"]}))
    obj, facts = _open(store_path)
    before = private_bytes()
    started = time.perf_counter()
    frame = obj.to_polars()
    facts["convert_seconds"] = time.perf_counter() - started
    facts["private_bytes"] = private_bytes() - before
    mapping = _mapping(store_path)
    newest = pl.CompatLevel.newest()
    chunks: dict[str, Iterable[tuple[int, int]]] = {
        name: [
            b
            for chunk in frame[name].get_chunks()
            for b in column_buffers(chunk.to_arrow(compat_level=newest))
        ]
        for name in frame.columns
    }
    facts |= sharing(chunks, mapping)
    quantity = frame["quantity"].get_chunks()[0].to_numpy(allow_copy=False)
    facts["write_refused"] = refused_write(quantity)
    address = quantity.__array_interface__["data"][0]
    say(
        **facts,
        **_place(mapping, address),
        **totals(frame["quantity"].to_numpy(), frame["unit_price"].to_numpy()),
        library=pl.__version__,
    )


def step_add(store_path: str) -> None:
    """Make a table with one column more of NAME."""
    import flightstore

    store = flightstore.connect(store_path, create=False)
    orders = store.get(NAME)
    table: Any = orders.to_arrow()  # type: ignore[attr-defined]
    total = table["quantity"].to_numpy() * table["unit_price"].to_numpy()
    store.recover()
    before = store.stats().used_bytes
    started = time.perf_counter()
    made = store.with_columns(orders, {"total": total}, f"{NAME}_total")
    seconds = time.perf_counter() - started
    store.recover()
    new: Any = made.to_arrow()  # type: ignore[attr-defined]
    old = [address for name in table.column_names for address in column_buffers(table[name])]
    say(
        seconds=seconds,
        bytes=total.nbytes,
        grown_bytes=store.stats().used_bytes - before,
        all_bytes=made.nbytes,
        columns=new.num_columns,
        same_memory=old == [address for name in table.column_names for address in column_buffers(new[name])],
        right=bool((new["total"].to_numpy() == total).all()),
        pid=os.getpid(),
    )


def step_hold(store_path: str) -> None:
    """Hold NAME while somebody replaces it: sums before and after, of the same view; then what is new."""
    obj, facts = _open(store_path)
    table = obj.to_arrow()
    say(**facts, id=str(obj.id), **_sums(table))
    sys.stdin.readline()
    say(**_sums(table))
    newer, facts = _open(store_path)
    say(**facts, id=str(newer.id), **_sums(newer.to_arrow()))


def _sums(table: Any) -> dict[str, int]:
    return totals(table["quantity"].to_numpy(), table["unit_price"].to_numpy())


def step_overwrite(store_path: str) -> None:
    """Put a changed half of NAME under the same name."""
    import pyarrow as pa

    import flightstore

    store: Any = flightstore.connect(store_path, create=False)
    table = store.get(NAME).to_arrow()
    half = table.slice(0, len(table) // 2)
    doubled = pa.array(half["quantity"].to_numpy() * 2)
    changed = half.set_column(half.schema.get_field_index("quantity"), "quantity", doubled)
    started = time.perf_counter()
    store.put(changed, NAME)
    seconds = time.perf_counter() - started
    info = store.stat(NAME)
    say(seconds=seconds, bytes=info.nbytes, rows=info.num_rows, id=str(info.id), **_sums(changed))


def step_put_forever(store_path: str, file: str) -> None:
    """Put the file under another name again and again, until killed (or left alone)."""
    import pyarrow.parquet as pq

    import flightstore

    parent = os.getppid()
    table = pq.read_table(file)
    store = flightstore.connect(store_path, create=False)
    say(ready=True, pid=os.getpid())
    while os.getppid() == parent:
        store.put(table, "never-finished", timeout=10)


STEPS: dict[str, Callable[..., None]] = {
    "put": step_put,
    "arrow": step_arrow,
    "pandas": step_pandas,
    "polars": step_polars,
    "add": step_add,
    "hold": step_hold,
    "overwrite": step_overwrite,
    "put-forever": step_put_forever,
}


def main() -> None:
    """Run one step."""
    STEPS[sys.argv[1]](*sys.argv[2:])


if __name__ == "__main__":
    main()
