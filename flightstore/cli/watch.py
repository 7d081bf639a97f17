"""`flightstore watch`: what happens in a store, line by line, as it happens."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from flightstore.cli import exits
from flightstore.cli.completion import OBJECT
from flightstore.cli.context import common_options, open_store, parse_ref, settings
from flightstore.cli.output import human_bytes, local_time, print_error, printable
from flightstore.errors import EventsMissed

if TYPE_CHECKING:
    from flightstore.abc.events import Subscription
    from flightstore.types import Event

__all__ = ["watch"]

KINDS = ("added", "deleted", "spilled", "full")


@click.command(
    epilog="""\b
Examples:
    flightstore watch
    flightstore watch 'orders/*' --kind added
    flightstore watch --since 0 --timeout 0
    flightstore watch --json --count 1 | jq -r .name"""
)
@click.argument("pattern", required=False, type=OBJECT)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(KINDS),
    help="Only these events; may be repeated [default: all].",
)
@click.option(
    "--since",
    type=click.IntRange(min=0),
    metavar="N",
    help="Begin behind event N; 0 for all that are kept [default: what happens from now on].",
)
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N events.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="S",
    help="End after S seconds without an event [default: never].",
)
@common_options
def watch(
    pattern: str | None, kinds: tuple[str, ...], since: int | None, count: int | None, timeout: float | None
) -> int:
    """Print what happens in the store: objects added, deleted, spilled, and creates that found it full.

    PATTERN is a shell pattern for names, or an id; an event of an object without a name, and `full`, match
    no pattern. Each line has the event's number, which --since takes. Where the store has dropped events
    before they were read, a line on stderr says how many, and it goes on with those that are left.
    """
    ref = None if pattern is None else parse_ref(pattern)
    with open_store() as store:
        with store.subscribe(ref, since=since, kinds=kinds or None, timeout=timeout) as subscription:
            for event in itertools.islice(_events(subscription), count):
                click.echo(json.dumps(_document(event)) if settings().json else _line(event))
                sys.stdout.flush()
    return exits.OK


def _events(subscription: Subscription) -> Iterator[Event]:
    """The events; tells on stderr of those that were missed."""
    while True:
        try:
            yield from subscription
            return
        except EventsMissed as error:
            error.hint = ""
            print_error(error, as_json=settings().json)


def _document(event: Event) -> dict[str, Any]:
    return {
        "number": event.number,
        "kind": event.kind,
        "id": None if event.id is None else str(event.id),
        "name": event.name,
        "bytes": event.nbytes,
        "time_ns": event.time_ns,
    }


def _line(event: Event) -> str:
    what = event.name if event.name is not None else "" if event.id is None else str(event.id)
    size = human_bytes(event.nbytes)
    text = f"{event.number:>8}  {local_time(event.time_ns)}  {event.kind:<7}  {size:>10}  {printable(what)}"
    return text.rstrip()
