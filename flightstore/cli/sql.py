"""`flightstore sql`: a DuckDB statement over stored tables; its result shown, in a file, or in the store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click

from flightstore.cli import exits, writers
from flightstore.cli.context import common_options, open_store, session_option, settings
from flightstore.cli.formats import FormatName, format_for, format_of
from flightstore.cli.output import human_bytes, human_count, print_json
from flightstore.cli.preview import Wanted, describe, json_rows, show_rows
from flightstore.errors import InvalidArgument

__all__ = ["sql"]


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows in memory, as the preview shows those of an object."""

    table: Any

    @property
    def num_rows(self) -> int:
        rows: int = self.table.num_rows
        return rows

    @property
    def schema(self) -> Any:
        return self.table.schema

    def to_arrow(self) -> Any:
        return self.table


@click.command(
    epilog="""\b
Examples:
    flightstore sql "select distinct who from orders" -n 5
    flightstore sql 'from "2030/orders" where price < 100' -o cheap.parquet
    flightstore sql "select * from orders order by price" --name by-price
    flightstore sql "summarize orders" --json"""
)
@click.argument("statement")
@click.option(
    "-n",
    "--rows",
    type=click.IntRange(min=0),
    default=20,
    metavar="ROWS",
    help="How many rows to show [default: 20].",
)
@click.option("-o", "--output", metavar="FILE", type=click.Path(), help="File to write all rows to.")
@click.option("--format", "format_", type=FormatName(), help="Format of FILE [default: by extension].")
@click.option("--name", metavar="NAME", help="Put the result into the store under this name.")
@session_option
@common_options
def sql(statement: str, rows: int, output: str | None, format_: str | None, name: str | None) -> int:
    """Query stored tables by name with DuckDB.

    STATEMENT is one statement of SQL; a name that is no identifier stands in double quotes. Only the tables
    that it names are touched, and of them the columns that it needs. The first rows of the result are shown;
    -o writes all to a file, --name puts them into the store.
    """
    if output is not None and name is not None:
        raise click.UsageError("-o FILE and --name NAME: choose one")
    from flightstore.connectors.duckdb import from_duckdb, query
    from flightstore.objects.extras import require

    duckdb = require("duckdb", "flightstore sql")
    with open_store() as store:
        try:
            relation = query(statement, store=store)
            if relation is None:
                raise InvalidArgument("this statement gives no rows", hint="flightstore sql is for queries")
            if name is not None:
                _told(from_duckdb(relation, store, name))
            elif output is not None:
                _written(relation.to_arrow_table(), output, format_)
            else:
                _shown(relation.limit(rows + 1).to_arrow_table(), rows)
        except duckdb.Error as error:
            raise InvalidArgument(
                f"DuckDB: {error}", hint="flightstore ls shows which tables there are"
            ) from error
    return exits.OK


def _shown(table: Any, rows: int) -> None:
    more, table = table.num_rows > rows, table.slice(0, rows)
    if settings().json:
        print_json({"columns": table.column_names, "values": json_rows(table), "more": more})
        return
    show_rows(_Rows(table), Wanted(rows))
    if more:
        click.echo(f"first {rows:,} rows; there are more: -n ROWS shows them, -o FILE writes all")


def _written(table: Any, path: str, file_format: str | None) -> None:
    chosen = file_format or format_for(path)
    known = format_of(chosen)
    if known.holds != "table" or not known.writes:
        raise InvalidArgument(f"tables cannot be written as {chosen}", hint="use --format parquet")
    with writers.atomic_file(path) as file:
        writers.write_table(table, file, chosen, lambda _count: None)
        size_bytes = file.tell()
    if settings().json:
        print_json({"file": path, "format": chosen, "bytes": size_bytes, "rows": table.num_rows})
    else:
        click.echo(f"{path}: {human_count(table.num_rows)} rows, {human_bytes(size_bytes)} as {chosen}")


def _told(obj: Any) -> None:
    if settings().json:
        print_json(describe(obj))
    else:
        click.echo(f"{obj.name}: {human_count(obj.num_rows)} rows, {human_bytes(obj.nbytes)} ({obj.id})")
