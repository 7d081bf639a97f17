"""`flightstore sessions` and `session end`: who keeps objects of their own in the store."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from flightstore.cli import exits
from flightstore.cli.context import common_options, open_store, session_number, settings
from flightstore.cli.output import human_age, human_bytes, human_count, print_json, print_table
from flightstore.types import SessionInfo

__all__ = ["session", "sessions"]


@click.command(
    epilog="""\b
Examples:
    flightstore sessions
    flightstore sessions --json | jq '.sessions[].used_bytes'"""
)
@common_options
def sessions() -> int:
    """List the sessions of the store.

    A session has ids and names of its own, which the other commands see with --session. One whose owner is
    gone stays, unless it is ephemeral, until somebody attaches to it or ends it.
    """
    with open_store() as store:
        infos: list[SessionInfo] = store.sessions()
    if settings().json:
        print_json({"sessions": [asdict(info) for info in infos]})
        return exits.OK
    columns = ("id", "name", "state", "owner", "ephemeral", "used", "quota", "objects", "begun")
    right = frozenset({"id", "used", "quota", "objects", "begun"})
    print_table(columns, [_row(info) for info in infos], right=right)
    return exits.OK


def _row(info: SessionInfo) -> list[str]:
    return [
        str(info.id),
        info.name or "",
        info.state,
        f"pid {info.owner_pid}" if info.owner_alive else f"gone (pid {info.owner_pid})",
        "yes" if info.ephemeral else "",
        human_bytes(info.used_bytes),
        "" if info.quota_bytes is None else human_bytes(info.quota_bytes),
        human_count(info.objects),
        human_age(info.created_ns),
    ]


@click.group(
    epilog="""\b
Examples:
    flightstore session end 7
    flightstore session end job-42"""
)
@common_options
def session() -> None:
    """Work on one session. `flightstore sessions` lists them."""


@session.command(
    epilog="""\b
Examples:
    flightstore session end 7
    flightstore session end job-42"""
)
@click.argument("wanted", metavar="ID")
@common_options
def end(wanted: str) -> int:
    """End a session, whoever owns it.

    ID is its number or its name. Its objects are gone at once, for everybody; who holds one keeps it. The
    memory is used again by the next puts, or after `flightstore recover`.
    """
    with open_store() as store:
        number = session_number(store, wanted)
        known: dict[int, Any] = {info.id: info for info in store.sessions()}
        with store.session(number) as ending:
            ending.end()
    info = known[number]
    if settings().json:
        print_json({"ended": number, "name": info.name, "objects": info.objects, "bytes": info.used_bytes})
    else:
        click.echo(f"ended session {number} ({info.objects:,} objects, {human_bytes(info.used_bytes)})")
    return exits.OK
