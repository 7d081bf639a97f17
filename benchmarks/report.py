"""What a benchmark says in the end: the machine it ran on, a table for people, JSON for programs.

The machine is described by what bears on speed, never by its name or its paths. Run as a command, it turns
the JSON of a run into the Markdown of docs/benchmarks.md: python benchmarks/report.py FILE
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from harness import OURS, Row, Spread, Target
from rich.console import Console
from rich.table import Table

LIBRARIES = ("flightstore", "pyarrow", "lmdb", "numpy", "msgspec")


def describe_machine() -> dict[str, Any]:
    """Processor, memory, kernel and library versions."""
    return {
        "cpu": _field("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "hypervisor": "hypervisor" in _field("/proc/cpuinfo", "flags").split(),
        "huge_pages_shmem": _chosen("/sys/kernel/mm/transparent_hugepage/shmem_enabled"),
        "huge_pages": _chosen("/sys/kernel/mm/transparent_hugepage/enabled"),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in LIBRARIES},
    }


def load_average() -> list[float]:
    """Runnable processes over the last 1, 5 and 15 minutes."""
    return [round(value, 2) for value in os.getloadavg()]


def to_json(rows: Iterable[Row], machine: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that was measured, as plain values."""
    return {
        "machine": dict(machine),
        "settings": dict(settings),
        "rows": [asdict(row) | {"met": row.met} for row in rows],
    }


def print_table(rows: Iterable[Row], machine: Mapping[str, Any], console: Console) -> None:
    """The same for people."""
    table = Table(
        title="medians, each with its lowest and highest; ratios are ours / theirs, within one repetition"
    )
    for heading in ("", OURS, "beside it", "ratio", "target", ""):
        table.add_column(heading, no_wrap=True)
    group = None
    for row in rows:
        if group not in (None, row.group):
            table.add_section()
        group = row.group
        table.add_row(*_cells(row))
    console.print(table)
    for key, value in machine.items():
        console.print(f"{key}: {value}", highlight=False, markup=False)


def to_markdown(found: Mapping[str, Any]) -> str:
    """The JSON of a run as Markdown tables."""
    lines = [f"- {key.replace('_', ' ')}: {_plain(value)}" for key, value in found["machine"].items()]
    group = None
    for row in found["rows"]:
        if row["group"] != group:
            group = row["group"]
            lines += [
                "",
                f"### {group}",
                "",
                f"| | {OURS} | beside it: figure, ratio | target | |",
                "|" + "---|" * 5,
            ]
        lines.append(_markdown_row(row))
    return "\n".join(lines)


def _markdown_row(row: Mapping[str, Any]) -> str:
    unit, target = row["unit"], row["target"]
    beside = []
    for label, spread in row["baselines"].items():
        ratio = row["ratios"].get(label)
        beside.append(
            f"{label} {_figure(Spread(**spread), unit)}" + (f": {_ratio(Spread(**ratio))}" if ratio else "")
        )
    cells = (
        row["name"],
        _figure(Spread(**row["ours"]), unit) if row["ours"] else "",
        "<br>".join(beside),
        Target(**target).text(unit) if target else "",
        {None: "", True: "pass", False: "**miss**"}[row["met"]],
    )
    return f"| {' | '.join(cells)} |"


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {version}" for key, version in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _cells(row: Row) -> tuple[str, ...]:
    beside = [f"{label} {_figure(spread, row.unit)}" for label, spread in row.baselines.items()]
    ratios = [_ratio(row.ratios.get(label)) for label in row.baselines]
    verdict = {None: "", True: "[green]pass[/green]", False: "[red]MISS[/red]"}[row.met]
    return (
        row.name + (f"\n[dim]{row.note}[/dim]" if row.note else ""),
        _figure(row.ours, row.unit) if row.ours else "",
        "\n".join(beside),
        "\n".join(ratios),
        row.target.text(row.unit) if row.target else "",
        verdict,
    )


def _figure(spread: Spread, unit: str) -> str:
    return f"{_short(spread.median)} {unit} ({_short(spread.low)}-{_short(spread.high)})"


def _ratio(spread: Spread | None) -> str:
    return f"{_short(spread.median)} ({_short(spread.low)}-{_short(spread.high)})" if spread else ""


def _short(value: float) -> str:
    """Three significant digits, in full."""
    if value >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 0.001 else f"{value:.1e}"


def _field(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _chosen(path: str) -> str:
    """The bracketed word of a kernel setting."""
    try:
        return Path(path).read_text().partition("[")[2].partition("]")[0]
    except OSError:
        return "unknown"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    print(to_markdown(json.loads(Path(sys.argv[1]).read_text())))
