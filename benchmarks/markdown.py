"""The JSON of a run as the tables of docs/benchmarks.md.

    python benchmarks/markdown.py FILE [--into docs/benchmarks.md]

Prints them, or replaces what stands between the two marks of a page. What is to be said about the figures is
written by hand, below the marks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from harness import GIB, OURS, Spread, Target
from report import figure, short

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
COPIES = ("memcpy", "fresh", "one process", "1.3 x")
"""Beginnings of the labels that are not stores."""
COLUMNS = ("work", "unit", OURS)


def to_markdown(found: Mapping[str, Any]) -> str:
    """The tables of a run."""
    rows = found["rows"]
    parts = [_machine(found), "### Against the targets", _table(TARGET_TITLES, map(_target_cells, rows))]
    stores = _stores(rows)
    if stores:
        beside = (_store_cells(row, stores) for row in rows if set(stores) & set(row["baselines"]))
        parts += ["### Beside other stores", BESIDE, _table([*COLUMNS, *stores], beside)]
    floors = [row for row in rows if any(label.startswith("fresh") for label in row["baselines"])]
    if floors:
        parts += [
            "### Floors of fresh memory, GiB/s",
            _table(("work", OURS, *_fresh(floors)), map(_floor_cells, floors)),
        ]
    if found.get("left_out"):
        parts += ["Left out:", "\n".join(f"- {reason}" for reason in found["left_out"])]
    return "\n\n".join(parts)


TARGET_TITLES = ("work", OURS, "of memcpy", "target", "reached", "")
BESIDE = (
    "Medians; behind each the ratio flightstore : that store, from the repetitions that measured both "
    "(below 1 is good for durations, above 1 for rates)."
)


def _machine(found: Mapping[str, Any]) -> str:
    machine = found["machine"]
    libraries = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items())
    peers = (
        f"{peer}: {', '.join(f'{name} {version}' for name, version in versions.items())}"
        for peer, versions in found.get("peers", {}).items()
    )
    gib, load = (
        machine["memory_bytes"] / GIB,
        (machine["load_average_start"][0], machine["load_average_end"][0]),
    )
    facts = {
        "measured": found["date"],
        "processor": f"{machine['cpu']}, {machine['cores']} cores",
        "last-level cache": machine["last_level_cache"],
        "memory": f"{gib:.0f} GiB, huge pages for shared memory: {machine['huge_pages_shmem']}",
        "virtual machine": "yes" if machine["hypervisor"] else "no",
        "system": f"Linux {machine['kernel']}, {machine['libc']}, Python {machine['python']}",
        "load average": f"{load[0]} at the beginning, {load[1]} at the end",
        "libraries": libraries,
    }
    return "\n".join(
        [*(f"- {name}: {fact}" for name, fact in facts.items()), *(f"- {line}" for line in peers)]
    )


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _spread(found: Mapping[str, float] | None) -> Spread | None:
    return Spread(**found) if found else None


def _target_cells(row: Mapping[str, Any]) -> Sequence[str]:
    ours, share = _spread(row["ours"]), _spread(row["of_memcpy"].get(OURS))
    target = Target(**row["target"]) if row["target"] else None
    reached = _spread(row["ratios"].get(target.against)) if target and target.against else ours
    return (
        row["name"],
        figure(ours, row["unit"]) if ours else "not measured",
        f"{short(share.median)} x {row['memcpy']}" if share else "",
        target.text(row["unit"]) if target else "",
        short(reached.median) if target and reached else "",
        {None: "", True: "met", False: "**missed**"}[row["met"]],
    )


def _stores(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Every store beside ours, in the order in which they were measured."""
    labels = (label for row in rows for label in row["baselines"] if not label.startswith(COPIES))
    return list(dict.fromkeys(labels))


def _store_cells(row: Mapping[str, Any], stores: Sequence[str]) -> Iterator[str]:
    yield row["name"]
    yield row["unit"]
    yield short(row["ours"]["median"]) if row["ours"] else ""
    for store in stores:
        theirs, ratio = row["baselines"].get(store), row["ratios"].get(store)
        times = f" ({short(ratio['median'])} x)" if ratio else ""
        yield short(theirs["median"]) + times if theirs else ""


def _fresh(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    labels = (label for row in rows for label in row["baselines"] if label.startswith("fresh"))
    return list(dict.fromkeys(labels))


def _floor_cells(row: Mapping[str, Any]) -> list[str]:
    ours = short(row["ours"]["median"]) if row["ours"] else ""
    return [row["name"], ours, *(short(row["baselines"][label]["median"]) for label in _fresh([row]))]


def replaced(page: str, tables: str) -> str:
    """The page with other tables between its marks.

    Raises:
        ValueError: it has no marks.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page lacks {BEGIN} or {END}")
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}"


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--into", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A page with marks."
)
def main(file: Path, into: Path | None) -> None:
    """Turn the JSON of a run into Markdown."""
    tables = to_markdown(json.loads(file.read_text()))
    if into:
        into.write_text(replaced(into.read_text(), tables))
    else:
        click.echo(tables)


if __name__ == "__main__":
    main()
