"""`flightstore ls`, `stat` and `rm`: what is in the store, and taking it out."""

from __future__ import annotations

from typing import Any

import click

from flightstore.cli import exits
from flightstore.cli.completion import OBJECT
from flightstore.cli.context import (
    common_options,
    open_store,
    parse_ref,
    session_option,
    settings,
)
from flightstore.cli.output import (
    human_age,
    human_bytes,
    human_count,
    info_document,
    local_time,
    print_error,
    print_json,
    print_pairs,
    print_table,
)
from flightstore.errors import FlightStoreError, ObjectNotFound
from flightstore.types import ObjectInfo

__all__ = ["list_objects", "remove", "stat"]

_SHORT_ID_CHARACTERS = 12


class ObjectInUse(FlightStoreError):
    """An object was kept because somebody holds it."""


@click.command(
    "ls",
    epilog="""\b
Examples:
    flightstore ls
    flightstore ls 'orders*'
    flightstore ls --json | jq '.objects[].name'""",
)
@click.argument("pattern", required=False, type=OBJECT)
@session_option
@common_options
def list_objects(pattern: str | None) -> int:
    """List the objects whose name matches PATTERN (shell style); all without one."""
    with open_store() as store:
        infos = sorted(store.list(pattern), key=lambda info: (info.name is None, info.name or "", info.id))
    if settings().json:
        print_json({"objects": [info_document(info) for info in infos]})
        return exits.OK
    columns = ("name", "id", "kind", "size", "rows", "created", "refs", "pinned", "state")
    print_table(columns, [_row(info) for info in infos], right=frozenset({"size", "rows", "created", "refs"}))
    return exits.OK


def _row(info: ObjectInfo) -> list[str]:
    return [
        info.name or "",
        f"id:{info.id.hex()[:_SHORT_ID_CHARACTERS]}",
        info.kind,
        human_bytes(info.nbytes),
        human_count(info.num_rows),
        human_age(info.created_ns),
        str(info.refs),
        "yes" if info.pinned else "",
        info.state,
    ]


@click.command(
    epilog="""\b
Examples:
    flightstore stat orders
    flightstore stat orders --json"""
)
@click.argument("ref", type=OBJECT)
@session_option
@common_options
def stat(ref: str) -> int:
    """Show all that is known about one object, who holds it included."""
    with open_store() as store:
        parsed = parse_ref(ref)
        info = store.stat(parsed)
        holders, schema = store.holders(info.id), _schema(store, info)
    if settings().json:
        document = info_document(info)
        document["holders"] = [{"pid": h.pid, "process": h.process, "refs": h.refs} for h in holders]
        if schema is not None:
            fields = [{"name": f.name, "type": str(f.type), "nullable": f.nullable} for f in schema]
            document["schema"] = fields
        print_json(document)
        return exits.OK
    print_pairs(_pairs(info, holders))
    if schema is not None:
        click.echo()
        rows = [[f.name, str(f.type), "yes" if f.nullable else ""] for f in schema]
        print_table(("column", "type", "nullable"), rows, right=frozenset())
    return exits.OK


def _schema(store: Any, info: ObjectInfo) -> Any:
    """The schema of a table, None for anything else."""
    if info.kind != "table":
        return None
    with store.get(info.id) as obj:
        return obj.schema


def _pairs(info: ObjectInfo, holders: list[Any]) -> dict[str, str]:
    pairs = {
        "name": info.name or "",
        "id": str(info.id),
        "kind": info.kind,
        "size": f"{human_bytes(info.nbytes)} ({info.nbytes:,} bytes)",
        "rows": human_count(info.num_rows),
        "created": f"{local_time(info.created_ns)} ({human_age(info.created_ns)})",
        "creator": f"process {info.creator_pid}",
        "refs": str(info.refs),
        "held by": ", ".join(f"{h.process} (pid {h.pid}, {h.refs})" for h in holders),
        "pinned": "yes" if info.pinned else "no",
        "evictable": "yes" if info.evictable else "",
        "state": info.state,
        "metadata": "" if info.metadata is None else repr(info.metadata),
    }
    return {label: value for label, value in pairs.items() if value}


@click.command(
    "rm",
    epilog="""\b
Examples:
    flightstore rm orders
    flightstore rm orders prices id:1f0a5c7e9b2d4f6081a3c5e7f9b1d3f5
    flightstore rm orders --if-unused""",
)
@click.argument("refs", metavar="REF...", nargs=-1, required=True, type=OBJECT)
@click.option(
    "--if-unused", is_flag=True, help="Keep what somebody holds (exit code 5 if anything was kept)."
)
@session_option
@common_options
def remove(refs: tuple[str, ...], if_unused: bool) -> int:
    """Delete objects.

    They are gone for new readers at once; whoever holds one keeps it, and its memory is used again after
    the last of them is done. Every REF is tried; the exit code is 3 when one did not exist.
    """
    parsed = {text: parse_ref(text) for text in refs}
    deleted: list[str] = []
    failed: list[FlightStoreError] = []
    with open_store() as store:
        for text, ref in parsed.items():
            if store.delete(ref, if_unused=if_unused):
                deleted.append(text)
            elif if_unused and store.contains(ref):
                failed.append(ObjectInUse(f"{text} was kept: it is in use", hint="see who: flightstore stat"))
            else:
                failed.append(ObjectNotFound(f"there is no object {text}", hint="see flightstore ls"))
    if settings().json:
        print_json({"deleted": deleted})
    for text in [] if settings().json else deleted:
        click.echo(f"deleted {text}")
    for error in failed:
        print_error(error, as_json=settings().json)
    return _remove_code(failed)


def _remove_code(failed: list[FlightStoreError]) -> int:
    if any(isinstance(error, ObjectNotFound) for error in failed):
        return exits.NOT_FOUND
    return exits.BUSY if failed else exits.OK
