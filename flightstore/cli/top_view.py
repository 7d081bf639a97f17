"""What `flightstore top` shows: one look at a store as a screen, as plain lines, or as JSON. Pure.

Calls rich only. Names are printed without control characters, as everywhere.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from flightstore.cli.output import human_age, human_bytes, human_count, printable
from flightstore.cli.values import shortened
from flightstore.lifecycle.watching import Look, WatchedClient, WatchedObject

__all__ = ["KEYS", "Frame", "document", "objects_that_fit", "rendered"]

KEYS = {"s": "size", "c": "recent", "r": "refs", "n": "name"}
"""Keys that choose an order."""

_BAR_CHARACTERS = 50
_CAPTION_CHARACTERS = 42
_COMMAND_CHARACTERS = 60
_LEAST_CHARACTERS = 12
_GAP = 2
_FIXED_LINES = 9
"""Lines of a screen that are neither an object nor a client."""
_HEADINGS = {"size": "largest", "recent": "most recent", "refs": "most referenced", "name": "by name"}
_STATES = {"sealed": "", "pending": "being made", "dying": "deleted"}


@dataclass(frozen=True, slots=True)
class Frame:
    """One look, and what changed since the one before."""

    look: Look
    order: str
    """Which order the objects are in."""
    made_per_s: float | None = None
    """Objects made since the last look, replaced and aborted ones included; None for a first look."""
    gone_per_s: float | None = None
    """Objects deleted, replaced or aborted since the last look."""

    @classmethod
    def after(cls, look: Look, order: str, before: Look | None) -> Frame:
        """The frame of a look.

        Every object takes the next serial number of the store, so the numbers tell how many were made, and
        those less the growth in objects, how many went.
        """
        seconds = look.moment_s - before.moment_s if before is not None else 0.0
        if before is None or seconds <= 0:
            return cls(look, order)
        made = look.made - before.made
        grown = (look.stats.objects + look.stats.pending) - (before.stats.objects + before.stats.pending)
        return cls(look, order, made / seconds, max(made - grown, 0) / seconds)


def document(frame: Frame) -> dict[str, Any]:
    """The frame as JSON has it."""
    look = frame.look
    return {
        "time_ns": time.time_ns(),
        "store": asdict(look.stats),
        "made": look.made,
        "made_per_s": frame.made_per_s,
        "gone_per_s": frame.gone_per_s,
        "sort": frame.order,
        "objects": [_object_document(one) for one in look.objects],
        "clients": [
            {
                "pid": client.pid,
                "process": client.process,
                "command": client.command,
                "state": client.state,
                "leases": client.leases,
                "objects": client.objects,
                "bytes": client.held_bytes,
            }
            for client in look.clients
        ],
    }


def _object_document(one: WatchedObject) -> dict[str, Any]:
    return {
        "id": None if one.id is None else str(one.id),
        "name": one.name,
        "kind": one.kind,
        "bytes": one.nbytes,
        "rows": one.num_rows,
        "created_ns": one.created_ns,
        "creator_pid": one.creator_pid,
        "refs": one.refs,
        "state": one.state,
    }


def objects_that_fit(height: int) -> int:
    """How many objects are worth asking for, for a screen of so many lines."""
    return max(height - _FIXED_LINES, 1)


def rendered(
    frame: Frame, *, width: int, height: int | None = None, interval_s: float | None = None
) -> RenderableType:
    """The frame for people.

    Args:
        frame: What to show.
        width: Characters of a line.
        height: Lines there are; None for as many as it takes.
        interval_s: Seconds between looks, told with the keys at the foot; None for a frame by itself.
    """
    look = frame.look
    objects, clients = look.objects, look.clients
    if height is not None:
        room = max(height - _FIXED_LINES, 2)
        shown_clients = min(len(clients), max(room // 3, room - len(objects), 1))
        objects, clients = objects[: max(room - shown_clients, 1)], clients[:shown_clients]
    parts: list[RenderableType] = [
        *_usage(frame, width),
        Text(),
        _objects_table(objects, frame.order, width),
        Text(),
        _clients_table(clients, len(look.clients), width),
    ]
    if interval_s is not None:
        keys = "  ".join(f"{key} {_HEADINGS[order]}" for key, order in KEYS.items())
        parts.append(Text(f"q quit  {keys}  every {interval_s:g} s", style="dim", no_wrap=True))
    return Group(*parts)


def _usage(frame: Frame, width: int) -> list[Text]:
    stats = frame.look.stats
    rates = ""
    if frame.made_per_s is not None and frame.gone_per_s is not None:
        rates = f"   made {frame.made_per_s:,.1f}/s   gone {frame.gone_per_s:,.1f}/s"
    clock = time.strftime("%H:%M:%S")
    lines = [
        Text(f"{printable(stats.path)}   {clock}", style="bold"),
        _bar(frame, max(min(width - _CAPTION_CHARACTERS, _BAR_CHARACTERS), 10)),
        Text(
            f"leased {human_bytes(stats.leased_bytes)}   backed {human_bytes(stats.backed_bytes)}   "
            f"free {human_bytes(stats.free_bytes)}   largest hole {human_bytes(stats.largest_hole_bytes)}   "
            f"pinned {human_bytes(stats.pinned_bytes)}"
        ),
        Text(
            f"objects {stats.objects:,}   being made {stats.pending:,}   "
            f"deleted, not free yet {stats.dying:,}   references {stats.leases:,}{rates}"
        ),
    ]
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return lines


def _bar(frame: Frame, length: int) -> Text:
    """Capacity as a bar: leased, used otherwise, backed by memory and free, not backed."""
    stats = frame.look.stats
    capacity = max(stats.capacity_bytes, 1)
    bounds = [
        min(stats.leased_bytes, stats.used_bytes),
        stats.used_bytes,
        max(stats.backed_bytes, stats.used_bytes),
        capacity,
    ]
    bar = Text("[")
    at = 0
    for bound, (character, style) in zip(
        bounds, (("#", "red"), ("=", "yellow"), ("-", "green"), (".", "dim")), strict=True
    ):
        # Whatever is not nothing is seen, if only as one character.
        end = max(-(-min(bound, capacity) * length // capacity), at)
        bar.append(character * (end - at), style=style)
        at = end
    share = stats.used_bytes / capacity
    bar.append(f"] used {human_bytes(stats.used_bytes)} of {human_bytes(capacity)} ({share:.0%})")
    return bar


def _objects_table(objects: Sequence[WatchedObject], order: str, width: int) -> Table:
    headings = (f"objects, {_HEADINGS[order]}", "kind", "size", "rows", "made", "refs", "")
    rows = [
        [
            one.name if one.name is not None else (str(one.id) if one.id is not None else "(no name)"),
            one.kind,
            human_bytes(one.nbytes),
            human_count(one.num_rows),
            human_age(one.created_ns),
            str(one.refs),
            _STATES[one.state],
        ]
        for one in objects
    ]
    return _table(headings, rows, frozenset({2, 3, 4, 5}), width)


def _clients_table(clients: Sequence[WatchedClient], total: int, width: int) -> Table:
    more = f" ({len(clients)} of {total})" if len(clients) < total else ""
    headings = (f"clients{more}", "pid", "references", "objects", "held", "")
    rows = [
        [
            shortened(client.command or client.process, _COMMAND_CHARACTERS),
            str(client.pid) if client.pid else "",
            human_count(client.leases),
            human_count(client.objects),
            human_bytes(client.held_bytes),
            "" if client.state == "alive" else client.state,
        ]
        for client in clients
    ]
    return _table(headings, rows, frozenset({1, 2, 3, 4}), width)


def _table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[int], width: int
) -> Table:
    """A table whose first column gives way where there is no room."""
    taken = sum(_GAP + max(len(cells[i]) for cells in (headings, *rows)) for i in range(1, len(headings)))
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for index, heading in enumerate(headings):
        table.add_column(
            Text(heading),
            justify="right" if index in right else "left",
            no_wrap=True,
            overflow="ellipsis",
            max_width=None if index else max(width - taken - _GAP, _LEAST_CHARACTERS),
        )
    for row in rows:
        # Text, because a plain str would be read as rich's markup.
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table
