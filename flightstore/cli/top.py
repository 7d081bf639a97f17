"""`flightstore top`: what happens in a store, as it happens. Looks only: writes nothing, holds nothing."""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from flightstore.cli import exits
from flightstore.cli.context import common_options, open_store, settings
from flightstore.cli.output import console_on_stdout, print_rendered

if TYPE_CHECKING:
    from flightstore.lifecycle.watching import Look

__all__ = ["SORTS", "top"]

SORTS = ("size", "recent", "refs", "name")
"""The orders of lifecycle.watching, which is not imported just to show the help."""
_OBJECTS = 20
"""How many objects are shown where no screen sets the bound."""

Looker: TypeAlias = "Callable[[str, int], Look]"


@click.command(
    epilog="""\b
Examples:
    flightstore top
    flightstore top --sort refs --interval 0.5
    flightstore top --once
    flightstore top --json -n 60 --interval 1 | jq .store.used_bytes"""
)
@click.option(
    "--sort",
    "order",
    type=click.Choice(SORTS),
    default="size",
    help="Which objects come first: the largest, the most recent, the most referenced [default: size].",
)
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=2.0,
    metavar="S",
    help="Seconds between looks [default: 2].",
)
@click.option("-n", "--frames", type=click.IntRange(min=1), metavar="N", help="End after N looks.")
@click.option("--once", is_flag=True, help="One look, as plain lines; so it is where there is no terminal.")
@common_options
def top(order: str, interval: float, frames: int | None, once: bool) -> int:
    """Watch the store: its memory, its foremost objects, its clients.

    The bar shows the capacity: `#` is memory of objects that somebody holds, `=` of other objects, `-` is
    backed by memory and free, `.` not backed. Rates are counted from the serial numbers of objects; gets
    leave no trace in a store, and are not counted. `q` or Ctrl-C ends it; `s`, `c`, `r` and `n` sort by
    size, creation, references and name. With --json, each look is one document on one line.
    """
    if once:
        frames = 1
    on_terminal = sys.stdout.isatty()
    if frames is None and not on_terminal:
        frames = 1
    live = on_terminal and not once and not settings().json and os.environ.get("TERM") != "dumb"
    with open_store() as store, _looker(store) as see:
        if live:
            _watch(see, order, interval, frames)
        else:
            _print(see, order, interval, frames)
    return exits.OK


@contextmanager
def _looker(store: Any) -> Iterator[Looker]:
    """What looks at the store, in an order and at so many objects."""
    from flightstore.lifecycle.registry import connection_for, release_connection
    from flightstore.lifecycle.watching import look

    connection = connection_for(store.path, 0)
    try:
        yield lambda order, most: look(connection, order, most)
    finally:
        release_connection(connection)


def _print(see: Looker, order: str, interval_s: float, frames: int | None) -> None:
    """Frame after frame, as lines or as JSON."""
    from flightstore.cli.top_view import Frame, document, rendered

    before: Look | None = None
    next_s = time.monotonic()
    for number in itertools.count() if frames is None else range(frames):
        if number:
            next_s = max(next_s + interval_s, time.monotonic())
            time.sleep(max(next_s - time.monotonic(), 0))
        frame = Frame.after(see(order, _OBJECTS), order, before)
        before = frame.look
        if settings().json:
            click.echo(json.dumps(document(frame), default=str))
        else:
            if number:
                click.echo()
            wrapped = sys.stdout.isatty()
            width = console_on_stdout(wrapped=wrapped).width
            print_rendered(rendered(frame, width=width), wrapped=wrapped)
        sys.stdout.flush()


def _watch(see: Looker, order: str, interval_s: float, frames: int | None) -> None:
    """The live view on a terminal, until a key or `frames` end it."""
    from rich.live import Live

    from flightstore.cli.terminal import RESIZED, SUSPENDED, Terminal
    from flightstore.cli.top_view import KEYS, Frame, objects_that_fit, rendered

    console = console_on_stdout(wrapped=True)
    before: Look | None = None
    shown = 0
    due_s = time.monotonic() + interval_s
    with Terminal() as terminal, Live(console=console, screen=True, auto_refresh=False) as view:
        while True:
            seen = see(order, objects_that_fit(console.height))
            frame = Frame.after(seen, order, before)
            view.update(_screen(frame, console, interval_s), refresh=True)
            event = terminal.wait(due_s)
            while event and event not in (*KEYS, "q", RESIZED, SUSPENDED):
                event = terminal.wait(due_s)
            if event == "q":
                return
            if event == SUSPENDED:
                view.stop()
                terminal.suspend()
                view.start()
            order = KEYS.get(event, order)
            if not event:
                # Rates are counted from look to look that came in time, not to one that a key asked for.
                before, due_s, shown = seen, time.monotonic() + interval_s, shown + 1
                if shown == frames:
                    break
    # What was asked for by number is to be read afterwards, too.
    print_rendered(rendered(frame, width=console.width), wrapped=True)


def _screen(frame: Any, console: Any, interval_s: float) -> Any:
    from flightstore.cli.top_view import rendered

    return rendered(frame, width=console.width, height=console.height, interval_s=interval_s)
