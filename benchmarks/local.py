"""What one machine does: every figure beside memcpy and beside raw LMDB, measured in the same run.

    python benchmarks/local.py [--json FILE] [--only GROUP ...] [--quick] [--size 1GiB]

Prints a table, and writes JSON where asked. docs/benchmarks.md says what each row means.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from harness import GIB, MIB, Row, Settings, scratch_directory
from local_bulk import free_bytes, run_cold, run_warm
from local_latency import cases, run_case
from local_many import run_many
from report import describe_machine, load_average, print_table, to_json
from rich.console import Console

LATENCY = ("bytes", "numpy", "row16", "row1")
GROUPS: dict[str, Callable[[Settings], list[Row]]] = {
    **{name: lambda settings, name=name: _latency(settings, name) for name in LATENCY},  # type: ignore[misc]
    "warm": run_warm,
    "cold": run_cold,
    "many": run_many,
}
ROOM_FACTOR = 11
"""What the large table needs at its peak, in sizes of it: two stores, the source, two targets of memcpy."""
UNITS = {"": 1, "K": 1 << 10, "M": MIB, "G": GIB}


class Size(click.ParamType[int]):
    """A number of bytes such as 64MiB or 1GiB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse it, or fail with a usage error."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+)\s*(?:([KMG])i?)?B?", value.strip(), re.IGNORECASE)
        if not match or not int(match[1]):
            self.fail(f"{value!r} is not a size; write 64MiB, say", param, ctx)
        return int(match[1]) * UNITS[(match[2] or "").upper()]


@click.command()
@click.option("--json", "json_to", metavar="FILE", help="Write JSON there; - for standard output.")
@click.option(
    "--only", multiple=True, type=click.Choice(list(GROUPS)), help="Measure this group; may be repeated."
)
@click.option(
    "--quick", is_flag=True, help="Little work: shows that everything runs, says nothing about speed."
)
@click.option("--size", type=Size(), default="1GiB", show_default=True, help="Size of the large table.")
@click.option("--baselines-only", is_flag=True, help="Measure memcpy and LMDB, without a store.")
@click.option(
    "--dir",
    "parent",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path("/dev/shm"),
    show_default=True,
    help="A directory on a memory file system.",
)
def main(
    json_to: str | None, only: tuple[str, ...], quick: bool, size: int, baselines_only: bool, parent: Path
) -> None:
    """Measure one machine's store beside memcpy and raw LMDB."""
    _check_room(parent, size, only)
    # With JSON on standard output, what people read goes to standard error.
    console = Console(stderr=json_to == "-", width=None if sys.stdout.isatty() else 200)
    machine = describe_machine() | {"load_average_start": load_average()}
    with scratch_directory(parent) as scratch:
        settings = Settings(scratch, size, quick, baselines_only, lambda text: click.echo(text, err=True))
        rows = [row for name in GROUPS if not only or name in only for row in GROUPS[name](settings)]
    machine["load_average_end"] = load_average()
    print_table(rows, machine, console)
    chosen = {"size_bytes": size, "quick": quick, "baselines_only": baselines_only}
    if json_to:
        text = json.dumps(to_json(rows, machine, chosen), indent=1)
        click.echo(text) if json_to == "-" else Path(json_to).write_text(text + "\n")


def _latency(settings: Settings, name: str) -> list[Row]:
    """The rows of one kind of small value."""
    return [row for case in cases(settings) if case.group == name for row in run_case(case, settings)]


def _check_room(parent: Path, size: int, only: tuple[str, ...]) -> None:
    needed = GIB + (ROOM_FACTOR * size if not only or {"warm", "cold"} & set(only) else 0)
    free = free_bytes(parent)
    if free < needed:
        raise click.ClickException(
            f"{needed / GIB:.1f} GiB of memory are needed, {free / GIB:.1f} are free: choose a smaller --size"
        )


if __name__ == "__main__":
    main()
