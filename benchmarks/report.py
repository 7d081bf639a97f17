"""What a benchmark says in the end: the machine it ran on, a table for people, JSON for programs.

The machine is described by what bears on speed, never by its name or its paths.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from harness import OURS, Row, Spread
from rich.console import Console
from rich.table import Table

LIBRARIES = ("flightstore", "pyarrow", "lmdb", "numpy", "msgspec", "pandas", "polars")


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
        "last_level_cache": _first_line("/sys/devices/system/cpu/cpu0/cache/index3/size"),
        "libc": " ".join(platform.libc_ver()),
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


def _cells(row: Row) -> tuple[str, ...]:
    beside = [f"{label} {figure(spread, row.unit)}" for label, spread in row.baselines.items()]
    ratios = [_ratio(row.ratios.get(label)) for label in row.baselines]
    verdict = {None: "", True: "[green]pass[/green]", False: "[red]MISS[/red]"}[row.met]
    return (
        row.name + (f"\n[dim]{row.note}[/dim]" if row.note else ""),
        figure(row.ours, row.unit) if row.ours else "",
        "\n".join(beside),
        "\n".join(ratios),
        row.target.text(row.unit) if row.target else "",
        verdict,
    )


def figure(spread: Spread, unit: str) -> str:
    """Median, lowest and highest."""
    return f"{short(spread.median)} {unit} ({short(spread.low)}-{short(spread.high)})"


def _ratio(spread: Spread | None) -> str:
    return f"{short(spread.median)} ({short(spread.low)}-{short(spread.high)})" if spread else ""


def short(value: float) -> str:
    """Three significant digits, in full."""
    if abs(value) >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.1e}"


def _field(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _chosen(path: str) -> str:
    """The bracketed word of a kernel setting."""
    return _first_line(path).partition("[")[2].partition("]")[0] or "unknown"


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return "unknown"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
