"""Where the steps of the pipeline hand their tables over: a store, or a folder of Parquet files.

Both have the same methods, and measure how long a step is busy with taking and giving.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as parquet

from flightstore.abc import AbstractBatch
from flightstore.connectors.duckdb import query

T = TypeVar("T")


class Place(Protocol):
    """Tables by name, for the processes of a pipeline."""

    busy_s: float
    """How long this process was busy with handing over."""

    def put(self, name: str, table: Any) -> None:
        """Give a polars frame, or an Arrow table."""

    def frames(self, names: Sequence[str]) -> pl.DataFrame:
        """Take the rows of several, for polars."""

    def pandas(self, name: str) -> pd.DataFrame:
        """Take one, for pandas."""

    def put_with(self, name: str, columns: dict[str, Any], new: str) -> None:
        """Give a table with more columns than another one."""

    def sql(self, statement: str, names: Sequence[str], columns: Sequence[str]) -> pa.Table:
        """The result of a statement about these columns of several, which it calls ``steps``."""


class Clocked:
    """Adds up what is spent on handing over."""

    busy_s = 0.0

    def clocked(self, work: Callable[[], T]) -> T:
        began = time.perf_counter()
        try:
            return work()
        finally:
            self.busy_s += time.perf_counter() - began


class StorePlace(Clocked):
    """Hands over by a store: everything goes with one batch, which every process has joined."""

    def __init__(self, batch: AbstractBatch) -> None:
        self.batch = batch  # pickled, it travels as its token

    def put(self, name: str, table: Any) -> None:
        with self.batch.activate():
            self.clocked(lambda: self.batch.store.put(table, name))

    def frames(self, names: Sequence[str]) -> pl.DataFrame:
        objects: list[Any] = self.clocked(lambda: self.batch.store.get_many(names))
        return self.clocked(lambda: pl.concat([obj.to_polars() for obj in objects], rechunk=False))

    def pandas(self, name: str) -> pd.DataFrame:
        obj: Any = self.clocked(lambda: self.batch.store.get(name))
        return self.clocked(obj.to_pandas)

    def put_with(self, name: str, columns: dict[str, Any], new: str) -> None:
        with self.batch.activate():  # the other columns are shared
            self.clocked(lambda: self.batch.store.with_columns(name, columns, new))

    def sql(self, statement: str, names: Sequence[str], columns: Sequence[str]) -> pa.Table:
        parts = [f'select {", ".join(columns)} from "{name}"' for name in names]
        whole = f"with steps as ({' union all '.join(parts)}) {statement}"
        relation = self.clocked(lambda: query(whole, store=self.batch.store))
        return relation.to_arrow_table()


class FilePlace(Clocked):
    """Hands over by Parquet files, which every process writes and reads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        path = self.folder / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def put(self, name: str, table: Any) -> None:
        if isinstance(table, pa.Table):
            self.clocked(lambda: parquet.write_table(table, self.path(name)))
        else:
            self.clocked(lambda: table.write_parquet(self.path(name), compression="snappy"))

    def frames(self, names: Sequence[str]) -> pl.DataFrame:
        return self.clocked(
            lambda: pl.concat([pl.read_parquet(self.path(name)) for name in names], rechunk=False)
        )

    def pandas(self, name: str) -> pd.DataFrame:
        return self.clocked(lambda: pd.read_parquet(self.path(name)))

    def put_with(self, name: str, columns: dict[str, Any], new: str) -> None:
        def write() -> None:
            table = parquet.read_table(self.path(name))
            for label, values in columns.items():
                table = table.append_column(label, pa.array(values))
            parquet.write_table(table, self.path(new))

        self.clocked(write)

    def sql(self, statement: str, names: Sequence[str], columns: Sequence[str]) -> pa.Table:
        paths, con = [str(self.path(name)) for name in names], duckdb.connect()
        # By itself DuckDB would read files while it computes: read first, what that takes can be told.
        read = f"create temp table steps as select {', '.join(columns)} from read_parquet($1)"
        self.clocked(lambda: con.execute(read, [paths]))
        return con.sql(statement).to_arrow_table()
