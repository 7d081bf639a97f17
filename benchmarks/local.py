"""What one machine does: every figure beside memcpy and beside other stores, measured in the same run.

    python benchmarks/local.py [--json FILE] [--only WORKLOAD ...] [--peers all] [--quick] [--size 1GiB]

Prints a table, and writes JSON where asked. docs/benchmarks.md says what each row means.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import click
from command import console_for, options, write_json
from duels import Found, run_beside, run_here
from harness import GIB, MIB, Settings, scratch_directory
from installs import ROOT
from report import describe_machine, load_average, print_table, to_json
from stores import PEERS
from workloads import KEYS, all_workloads

LARGE = frozenset(KEYS[KEYS.index("table") : KEYS.index("wide")])
ROOM_FACTOR = 14
"""What the large table needs at its peak, in sizes of it: three stores, the source, the targets of memcpy."""
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
        number, unit = int(match[1]), match[2] or ""
        return number * UNITS[unit.upper()]


@click.command()
@options
@click.option("--only", multiple=True, type=click.Choice(KEYS), help="Measure this; may be repeated.")
@click.option(
    "--peers",
    default="none",
    show_default=True,
    metavar="all|none|NAME,...",
    help=f"Stores to install and measure too: {', '.join(PEERS)}.",
)
@click.option(
    "--environments",
    type=click.Path(file_okay=False, resolve_path=True, path_type=Path),
    default=ROOT,
    help="Where those are installed, and found again.  [default: .cache/peers]",
)
@click.option("--size", type=Size(), default="1GiB", show_default=True, help="Size of the large table.")
@click.option("--baselines-only", is_flag=True, help="Measure memcpy and the other stores alone.")
def main(
    json_to: str | None,
    only: tuple[str, ...],
    peers: str,
    environments: Path,
    quick: bool,
    size: int,
    baselines_only: bool,
    parent: Path,
) -> None:
    """Measure one machine's store beside memcpy and other stores."""
    beside = _chosen_peers(peers)
    _check_room(parent, size, only)
    # With JSON on standard output, what people read goes to standard error.
    console = console_for(json_to)
    machine = describe_machine() | {"load_average_start": load_average()}
    found = Found()
    with scratch_directory(parent) as scratch:
        settings = Settings(scratch, size, quick, baselines_only, environments)
        known = all_workloads(settings)
        works = [known[key] for key in KEYS if not only or key in only]
        run_here(works, settings, found)
        for name in beside:
            run_beside(name, works, settings, found)
    machine["load_average_end"] = load_average()
    rows = found.rows(works)
    print_table(rows, machine, console)
    for reason in found.left_out:
        console.print(f"left out: {reason}", highlight=False, markup=False)
    chosen = {"size_bytes": size, "quick": quick, "baselines_only": baselines_only}
    content = to_json(rows, machine, chosen) | {"peers": found.versions, "left_out": found.left_out}
    write_json(json_to, content)


def _chosen_peers(text: str) -> list[str]:
    if text in ("all", "none"):
        return list(PEERS) if text == "all" else []
    names = text.split(",")
    if unknown := set(names) - set(PEERS):
        raise click.BadParameter(f"{min(unknown)!r} is none of {', '.join(PEERS)}", param_hint="--peers")
    return names


def _check_room(parent: Path, size: int, only: tuple[str, ...]) -> None:
    needed = GIB + (ROOM_FACTOR * size if not only or LARGE & set(only) else 0)
    free = free_bytes(parent)
    if free < needed:
        raise click.ClickException(
            f"{needed / GIB:.1f} GiB of memory are needed, {free / GIB:.1f} are free: choose a smaller --size"
        )


def free_bytes(directory: Path) -> int:
    """Room on the file system of `directory`, or in memory, whichever is less."""
    free = shutil.disk_usage(directory).free
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return min(free, int(line.split()[1]) * 1024)
    return free


if __name__ == "__main__":
    main()
