"""`flightstore batches` and `batch`: the scopes whose objects go together."""

from __future__ import annotations

from dataclasses import asdict

import click

from flightstore.cli import exits
from flightstore.cli.context import common_options, open_store, settings
from flightstore.cli.output import human_age, human_bytes, human_count, print_json, print_table
from flightstore.types import BatchInfo

__all__ = ["batch", "list_batches"]


@click.command(
    "batches",
    epilog="""\b
Examples:
    flightstore batches
    flightstore batches --json | jq '.batches[].name'""",
)
@common_options
def list_batches() -> int:
    """List the batches: scopes whose objects go when they end."""
    with open_store() as store:
        infos: list[BatchInfo] = store.batches()
    if settings().json:
        print_json({"batches": [asdict(info) for info in infos]})
        return exits.OK
    columns = ("id", "name", "state", "objects", "size", "begun", "left", "in", "owners")
    right = frozenset({"id", "objects", "size", "begun", "left", "in"})
    print_table(columns, [_row(info) for info in infos], right=right)
    return exits.OK


def _row(info: BatchInfo) -> list[str]:
    return [
        str(info.id),
        info.name or "",
        info.state,
        human_count(info.objects),
        human_bytes(info.nbytes),
        human_age(info.created_ns),
        "" if info.expires_s is None else f"{info.expires_s:,.0f} s",
        "" if info.parent is None else str(info.parent),
        ", ".join(map(str, info.owner_pids)),
    ]


@click.group(
    epilog="""\b
Examples:
    flightstore batch end 17
    flightstore batch delete 17"""
)
@common_options
def batch() -> None:
    """End or delete a batch, whichever process began it."""


@batch.command(
    epilog="""\b
Examples:
    flightstore batch end 17"""
)
@click.argument("number", metavar="ID", type=int)
@common_options
def end(number: int) -> int:
    """End the batch of that ID (see flightstore batches): its objects go.

    If it was begun with cleanup=False they stay until it is deleted.
    """
    with open_store() as store:
        store.end_batch(number)
    return _done("ended", number)


@batch.command(
    epilog="""\b
Examples:
    flightstore batch delete 17"""
)
@click.argument("number", metavar="ID", type=int)
@common_options
def delete(number: int) -> int:
    """Take away all objects that were made in the batch of that ID, those too that were kept."""
    with open_store() as store:
        store.destroy_batch(number)
    return _done("deleted", number)


def _done(what: str, number: int) -> int:
    if settings().json:
        print_json({what: number})
    else:
        click.echo(f"{what} batch {number}")
    return exits.OK
