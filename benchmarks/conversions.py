"""What it takes to have a stored table in another library, beside the library's own conversion from Arrow.

    python benchmarks/conversions.py [--json FILE] [--only LIBRARY ...] [--quick] [--size 1GiB]

For each library: ours, from the store; and what the library does by itself with the same table in private
memory. Both results are used: a column of each is summed, inside the clock for ``and sum``. polars' scan with
a filter on one column stands beside reading all. Prints a table, and writes JSON where asked.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import pyarrow as pa
from command import console_for, options, write_json
from harness import GIB, OURS, Row, Target, interleave, make_row, say, scratch_directory, seconds
from local import Size, free_bytes
from report import describe_machine, load_average, print_table, to_json

import flightstore as fs

COLUMNS = 8
ROW_BYTES = COLUMNS * 8 + 14
"""Seven numbers and a text of 6 bytes, with its offset."""
ROOM_FACTOR = 6
"""What a run needs at its peak, in sizes of the table: store, source, two results, polars' views of text."""


class Case(NamedTuple):
    """One conversion, ours and the library's own."""

    key: str
    name: str
    own: str
    """What the library does by itself, in words."""
    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    total: Callable[[Any], float]
    """Uses a result: the sum of a column."""
    target: Target | None = None
    note: str = ""


def sample(size_bytes: int) -> pa.Table:
    """Numbers, and a column of short texts."""
    rows = max(size_bytes // ROW_BYTES, 10)
    numbers = {f"n{i}": np.arange(rows, dtype=np.int64 if i % 2 else np.float64) for i in range(COLUMNS - 1)}
    texts = pa.array([f"{i:06}" for i in range(1000)]).take(pa.array(np.arange(rows) % 1000))
    return pa.table(numbers | {"text": texts})


def cases(store: fs.Store, table: pa.Table, tensor: np.ndarray[Any, Any]) -> list[Case]:
    """All that is measured."""
    import dask.dataframe as frames
    import duckdb
    import pandas as pd
    import polars as pl

    from flightstore.connectors.dask import to_dask
    from flightstore.connectors.polars import scan

    con = duckdb.connect()
    rows = table.num_rows
    last = rows - rows // 100

    def got(name: str = "table") -> Any:
        return store.get(name)

    def summed(frame: Any) -> float:
        return float(frame["n0"].sum())

    def in_duckdb(relation: Any) -> float:
        return float(relation.sum("n0").fetchall()[0][0])

    def own_dask() -> Any:
        return frames.from_pandas(table.to_pandas(), npartitions=8)

    def dask_sum(lazy: Any) -> float:
        return float(lazy["n0"].sum().compute(scheduler="threads"))

    wanted = pl.col("n0") >= last
    nothing_lost = Target(1.1, at_most=True, against="own")
    return [
        Case("pandas", "to_pandas()", "Table.to_pandas()", lambda: got().to_pandas(),
             table.to_pandas, summed, nothing_lost),
        Case("pandas-arrow", "to_pandas(dtype_backend='pyarrow')", "to_pandas(types_mapper=ArrowDtype)",
             lambda: got().to_pandas(dtype_backend="pyarrow"),
             lambda: table.to_pandas(types_mapper=pd.ArrowDtype), summed),
        Case("polars", "to_polars()", "pl.from_arrow(table)", lambda: got().to_polars(),
             lambda: pl.from_arrow(table), summed, nothing_lost),
        Case("duckdb", "to_duckdb(con)", "con.from_arrow(table)", lambda: got().to_duckdb(con),
             lambda: con.from_arrow(table), in_duckdb),
        Case("dask", "to_dask()", "dd.from_pandas(table.to_pandas())", lambda: to_dask(got(), npartitions=8),
             own_dask, dask_sum),
        Case("numpy", "to_numpy() of a tensor", "pa.Tensor.to_numpy()", lambda: got("tensor").to_numpy(),
             pa.Tensor.from_numpy(tensor).to_numpy, lambda array: float(array[0].sum())),
        Case("scan", "polars scan, 1 % of the rows, one column", "read all, then filter",
             lambda: scan(got()).filter(wanted).select("n1").collect(),
             lambda: got().to_polars().filter(wanted).select("n1"),
             lambda frame: float(frame["n1"].sum()), note="beside it: the same object, read whole"),
        Case("scan-sum", "polars scan, sum of one column", "read all, then sum",
             lambda: scan(got()).select(pl.col("n0").sum()).collect(),
             lambda: got().to_polars().select(pl.col("n0").sum()),
             lambda frame: float(frame.item()), note="beside it: the same object, read whole"),
    ]  # fmt: skip


def jax_case(store: fs.Store, tensor: np.ndarray[Any, Any]) -> Case:
    """JAX, which is loaded last: from then on it warns of forks."""
    import jax.numpy as jnp

    return Case(
        "jax", "to('jax') of a tensor", "jnp.array(tensor)",
        lambda: store.get("tensor").to("jax").block_until_ready(),
        lambda: jnp.array(tensor).block_until_ready(), lambda array: float(array[0].sum()),
    )  # fmt: skip


KEYS = ("pandas", "pandas-arrow", "polars", "duckdb", "dask", "numpy", "scan", "scan-sum", "jax")


def measure(case: Case, repetitions: int) -> list[Row]:
    """Two rows: to have it, and to have it and sum a column."""
    say(case.name)

    def run(make: Callable[[], Any]) -> Callable[[], dict[str, float]]:
        return lambda: {
            "have": seconds(make) * 1e3,
            "use": seconds(lambda: case.total(make())) * 1e3,
        }

    if not np.isclose(case.total(case.ours()), case.total(case.theirs())):
        raise click.ClickException(f"{case.name} and {case.own} give different values")
    samples = interleave({OURS: run(case.ours), "own": run(case.theirs)}, repetitions)
    target, note = case.target, f"own: {case.own}" + (f"; {case.note}" if case.note else "")
    return [
        make_row(
            case.key, case.name, "ms", [samples], "have", {"own": ("own", "have")}, note=note, target=target
        ),
        make_row(case.key, "... and sum a column", "ms", [samples], "use", {"own": ("own", "use")}),
    ]


@click.command()
@options
@click.option("--only", multiple=True, type=click.Choice(KEYS), help="Measure this; may be repeated.")
@click.option("--size", type=Size(), default="1GiB", show_default=True, help="Size of table and tensor.")
def main(json_to: str | None, only: tuple[str, ...], quick: bool, size: int, parent: Path) -> None:
    """Measure conversions of a stored table beside the libraries' own."""
    needed = ROOM_FACTOR * size + GIB // 4
    if free_bytes(parent) < needed:
        raise click.ClickException(f"{needed / GIB:.1f} GiB of memory are needed: choose a smaller --size")
    machine = describe_machine() | {"load_average_start": load_average()}
    rows: list[Row] = []
    with scratch_directory(parent) as scratch:
        with fs.connect(scratch / "store", capacity=2 * size + (64 << 20)) as store:
            table = sample(size)
            tensor = np.arange(size // 4, dtype=np.float32).reshape(8, -1)
            store.put(table, "table")
            store.put(tensor, "tensor")
            wanted = [key for key in KEYS if not only or key in only]
            chosen = [case for case in cases(store, table, tensor) if case.key in wanted]
            repetitions = 2 if quick else 7
            for case in chosen:
                rows += measure(case, repetitions)
            if "jax" in wanted:
                rows += measure(jax_case(store, tensor), repetitions)
            store.destroy()
    machine["load_average_end"] = load_average()
    print_table(rows, machine, console_for(json_to))
    write_json(json_to, to_json(rows, machine, {"size_bytes": size, "quick": quick}))


if __name__ == "__main__":
    main()
