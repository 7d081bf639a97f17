"""`flightstore adopt`: Arrow IPC files as objects, where they are."""

from __future__ import annotations

import click

from flightstore.cli import exits
from flightstore.cli.context import common_options, open_store, session_option, settings
from flightstore.cli.formats import stem
from flightstore.cli.output import human_bytes, human_count, info_document, print_json, print_table

__all__ = ["adopt"]


@click.command(
    epilog="""\b
Examples:
    flightstore adopt orders.arrow
    flightstore adopt /data/orders.arrow --name orders"""
)
@click.argument("path", metavar="PATH", type=click.Path())
@click.option("--name", help="Name of the object [default: the file's name without its extension].")
@session_option
@common_options
def adopt(path: str, name: str | None) -> int:
    """Make an Arrow IPC file an object without reading or copying it.

    The file (.arrow, .feather, .arrows; not compressed) stays where it is, and takes no room in the store:
    whoever gets the object maps the file. It must stay as it is; once it was changed or removed, the object
    is lost.
    """
    from flightstore.connectors.sources import adopt as adopt_file

    with open_store(create=True) as store:
        adopted = adopt_file(path, store=store, name=stem(path) if name is None else name)
        info = store.stat(adopted.id)
    if settings().json:
        print_json({**info_document(info), "file": path})
    else:
        row = [info.name or "", str(info.id), info.kind, human_count(info.num_rows), human_bytes(info.nbytes)]
        print_table(("name", "id", "kind", "rows", "size"), [row], right=frozenset({"rows", "size"}))
    return exits.OK
