"""`flightstore pin`, `unpin`, `free`, `evict` and `spill`: what stays in memory, and what may go."""

from __future__ import annotations

import click

from flightstore.cli import exits
from flightstore.cli.completion import OBJECT
from flightstore.cli.context import common_options, open_store, parse_ref, settings
from flightstore.cli.output import human_bytes, print_error, print_json, printable
from flightstore.config import parse_bytes
from flightstore.errors import InvalidArgument, ObjectNotFound

__all__ = ["evict", "free", "pin", "spill", "unpin"]


@click.command(
    epilog="""\b
Examples:
    flightstore pin orders
    flightstore pin orders prices --json"""
)
@click.argument("refs", metavar="REF...", nargs=-1, required=True, type=OBJECT)
@common_options
def pin(refs: tuple[str, ...]) -> int:
    """Keep objects in memory: neither evicted nor spilled until they are unpinned.

    Pins are counted, and outlive the process that set them. Every REF is tried; the exit code is 3 when one
    did not exist.
    """
    return _each("pin", "pinned", refs)


@click.command(
    epilog="""\b
Examples:
    flightstore unpin orders"""
)
@click.argument("refs", metavar="REF...", nargs=-1, required=True, type=OBJECT)
@common_options
def unpin(refs: tuple[str, ...]) -> int:
    """Take one pin off each object.

    Every REF is tried; the exit code is 3 when one did not exist.
    """
    return _each("unpin", "unpinned", refs)


@click.command(
    epilog="""\b
Examples:
    flightstore free scratch-1 scratch-2"""
)
@click.argument("refs", metavar="REF...", nargs=-1, required=True, type=OBJECT)
@common_options
def free(refs: tuple[str, ...]) -> int:
    """Say that objects are not needed any more: they may be evicted, before all others.

    Until memory is short they stay. Every REF is tried; the exit code is 3 when one did not exist.
    """
    return _each("free", "freed", refs)


def _each(method: str, done: str, refs: tuple[str, ...]) -> int:
    """Do one thing to several objects, and tell of each."""
    parsed = {text: parse_ref(text) for text in refs}
    with open_store() as store:
        missing = [text for text, ref in parsed.items() if not store.contains(ref)]
        found = [text for text in parsed if text not in missing]
        getattr(store, method)([parsed[text] for text in found])
    if settings().json:
        print_json({done: found})
    for text in [] if settings().json else found:
        click.echo(f"{done} {printable(text)}")
    for text in missing:
        error = ObjectNotFound(f"there is no object {text}", hint="see flightstore ls")
        print_error(error, as_json=settings().json)
    return exits.NOT_FOUND if missing else exits.OK


@click.command(
    epilog="""\b
Examples:
    flightstore evict
    flightstore evict 2GiB --json"""
)
@click.argument("size", required=False)
@click.option("--recursive", is_flag=True, help="Also drop members that no other object uses.")
@common_options
def evict(size: str | None, recursive: bool) -> int:
    """Drop objects that may be dropped and that nobody holds, until SIZE is free; all without SIZE.

    That is what was put as evictable or marked by `flightstore free`, unless it is pinned.
    """
    wanted = parse_bytes(size) if size is not None else None
    with open_store() as store:
        freed = store.evict(wanted, recursive=recursive)
    if settings().json:
        print_json({"freed_bytes": freed})
    else:
        click.echo(f"freed {human_bytes(freed)}")
    return exits.OK


@click.command(
    epilog="""\b
Examples:
    flightstore spill --to /var/tmp/spilled
    flightstore spill
    flightstore spill orders --json
    flightstore spill --off"""
)
@click.argument("refs", metavar="[REF]...", nargs=-1, type=OBJECT)
@click.option("--to", "url", metavar="URL", help="From now on spill to this directory or URL.")
@click.option("--off", is_flag=True, help="From now on spill nothing. What is spilled stays where it is.")
@common_options
def spill(refs: tuple[str, ...], url: str | None, off: bool) -> int:
    """Move objects that nobody holds from memory to the spill storage; all without REF.

    They stay objects of the store, and come back when somebody gets them. With --to or --off only the storage
    is set, for all clients: from then on, creates that find no room spill by themselves.
    """
    if sum([bool(refs), url is not None, off]) > 1:
        raise InvalidArgument("give objects, or --to, or --off")
    with open_store() as store:
        if url is not None or off:
            store.set_spill(url)
            return _told({"spill": url}, f"objects are spilled to {url}" if url else "nothing is spilled")
        freed = store.spill([parse_ref(text) for text in refs] if refs else None)
    return _told({"freed_bytes": freed}, f"freed {human_bytes(freed)}")


def _told(document: dict[str, object], text: str) -> int:
    if settings().json:
        print_json(document)
    else:
        click.echo(printable(text))
    return exits.OK
