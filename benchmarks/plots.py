"""Two plots of a run's JSON, as SVG that is legible on light and dark pages.

    python benchmarks/plots.py FILE DIRECTORY

put.svg: what share of memcpy's speed each store reaches when a gigabyte is put; get.svg: how long a get from
another process takes, on a logarithmic axis. Drawn by hand: bars and text are all there is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import click
from harness import OURS
from markdown import COPIES

WIDTH, LEFT, RIGHT = 760, 130, 70
BAR, STEP, TITLE, HEAD, FOOT = 12, 17, 28, 46, 34
STYLE = """
  text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #59636e }
  .title { font-size: 15px; font-weight: 600 } .panel { font-weight: 600 }
  .ours { fill: #1f6feb } .other { fill: #8b949e } .grid { stroke: #8b949e; stroke-opacity: .35 }
  @media (prefers-color-scheme: dark) {
    text { fill: #9da7b1 } .ours { fill: #4493f8 } .other { fill: #6e7681 }
  }
"""


@dataclass(frozen=True, slots=True)
class Panel:
    """Bars under a heading: store -> value."""

    title: str
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Axis:
    """Where a value lies between 0 (left) and 1 (right), and which values are marked."""

    place: Callable[[float], float]
    ticks: Sequence[tuple[float, str]]
    text: Callable[[float], str]


def linear(highest: float) -> Axis:
    """From nothing to `highest`, marked in quarters of memcpy."""
    ticks = [(i / 4, f"{i / 4:g}") for i in range(int(highest * 4) + 1)]
    return Axis(lambda value: min(value / highest, 1.0), ticks, lambda value: f"{value:.2f}")


def logarithmic(lowest_us: float, highest_us: float) -> Axis:
    """Powers of ten that hold both ends."""
    first, last = math.floor(math.log10(lowest_us)), math.ceil(math.log10(highest_us))
    ticks = [(10.0**power, duration(10.0**power)) for power in range(first, last + 1)]
    span = max(last - first, 1)
    return Axis(lambda value: max((math.log10(value) - first) / span, 0.002), ticks, duration)


def duration(value_us: float) -> str:
    """Microseconds as a person writes them."""
    for limit, factor, unit in ((1e3, 1.0, "µs"), (1e6, 1e3, "ms"), (math.inf, 1e6, "s")):
        if value_us < limit:
            return f"{value_us / factor:.3g} {unit}"
    raise ValueError(value_us)


def draw(title: str, foot: str, panels: Sequence[Panel], axis: Axis) -> str:
    """The whole picture."""
    shown = [panel for panel in panels if panel.values]
    bottom = HEAD + sum(TITLE + STEP * len(panel.values) for panel in shown)
    height = bottom + FOOT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<text class="title" x="8" y="20">{escape(title)}</text>',
    ]
    for value, text in axis.ticks:
        x = _x(axis, value)
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{HEAD}" y2="{bottom}"/>')
        parts.append(f'<text x="{x}" y="{HEAD - 6}" text-anchor="middle">{escape(text)}</text>')
    top = HEAD
    for panel in shown:
        parts.append(f'<text class="panel" x="8" y="{top + TITLE - 10}">{escape(panel.title)}</text>')
        parts += _bars(panel, axis, top + TITLE)
        top += TITLE + STEP * len(panel.values)
    parts.append(f'<text x="8" y="{height - 10}">{escape(foot)}</text></svg>')
    return "\n".join(parts) + "\n"


def _x(axis: Axis, value: float) -> float:
    return round(LEFT + axis.place(value) * (WIDTH - LEFT - RIGHT), 1)


def _bars(panel: Panel, axis: Axis, top: float) -> Iterable[str]:
    for number, (store, value) in enumerate(panel.values.items()):
        y, end = top + number * STEP, _x(axis, value)
        kind = "ours" if store == OURS else "other"
        yield f'<text x="{LEFT - 8}" y="{y + 10}" text-anchor="end">{escape(store)}</text>'
        size = f'width="{round(end - LEFT, 1)}" height="{BAR}"'
        yield f'<rect class="{kind}" x="{LEFT}" y="{y}" {size} rx="2"/>'
        yield f'<text x="{end + 5}" y="{y + 10}">{escape(axis.text(value))}</text>'


def put_plot(rows: Sequence[Mapping[str, Any]], date: str) -> str:
    """Shares of memcpy, for each kind of large value."""
    panels = []
    for group in ("table", "table16", "pandas"):
        row = _row(rows, group, "put")
        if row:
            shares = {store: spread["median"] for store, spread in row["of_memcpy"].items()}
            stores = {store: share for store, share in shares.items() if _is_store(store)}
            panels.append(Panel(row["name"].partition(": ")[2], _ours_first(stores)))
    most = max((value for panel in panels for value in panel.values.values()), default=1.0)
    title = "Put into a store in use: share of memcpy's speed (longer is better)"
    foot = f"1 = as fast as two threads of memcpy copy the same bytes, measured beside it. {date}"
    return draw(title, foot, panels, linear(max(1.0, most)))


def get_plot(rows: Sequence[Mapping[str, Any]], date: str) -> str:
    """Durations of gets in another process."""
    panels = []
    for group in ("bytes", "row16", "table", "pandas"):
        row = _row(rows, group, "get")
        if row:
            spreads = {OURS: row["ours"]} if row["ours"] else {}
            spreads |= {label: spread for label, spread in row["baselines"].items() if _is_store(label)}
            times = {label: spread["median"] for label, spread in spreads.items()}
            panels.append(Panel(row["name"].partition(": ")[2], times))
    values = [value for panel in panels for value in panel.values.values()] or [1.0]
    axis = logarithmic(min(values), max(values))
    foot = f"The first get of an object; logarithmic axis. {date}"
    return draw("Get in another process (shorter is better)", foot, panels, axis)


def _row(rows: Sequence[Mapping[str, Any]], group: str, measure: str) -> Mapping[str, Any] | None:
    return next((row for row in rows if (row["group"], row["measure"]) == (group, measure)), None)


def _is_store(label: str) -> bool:
    return not label.startswith(COPIES)


def _ours_first(values: Mapping[str, float]) -> Mapping[str, float]:
    return {store: values[store] for store in sorted(values, key=lambda store: store != OURS)}


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
def main(file: Path, directory: Path) -> None:
    """Draw the plots of a run."""
    found = json.loads(file.read_text())
    machine = found["machine"]
    where = f"{machine['cpu']}, {machine['cores']} cores, {found['date']}"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "put.svg").write_text(put_plot(found["rows"], where))
    (directory / "get.svg").write_text(get_plot(found["rows"], where))


if __name__ == "__main__":
    main()
