"""`flightstore tokens`: who may call the gateway."""

from __future__ import annotations

import os
from datetime import datetime
from typing import Any

import click

from flightstore.cli import exits
from flightstore.cli.context import common_options, settings
from flightstore.cli.output import print_json, print_table
from flightstore.gateway.access import RIGHTS

__all__ = ["tokens"]

_file_option = click.option(
    "--tokens",
    "file",
    metavar="FILE",
    envvar="FLIGHTSTORE_TOKENS",
    help="The tokens file [env FLIGHTSTORE_TOKENS; default: ~/.config/flightstore/tokens.toml].",
)


@click.group(
    epilog="""\b
Examples:
    flightstore tokens create laptop --rights read --expires 30d
    flightstore tokens list
    flightstore tokens revoke laptop"""
)
@common_options
def tokens() -> None:
    """Make, list and revoke the tokens with which clients call `flightstore serve`.

    The file has their SHA-256 and not the tokens. A gateway that runs takes every change at once.
    """


@tokens.command(
    epilog="""\b
Examples:
    flightstore tokens create laptop --rights write
    flightstore tokens create job --rights read --session A --session B --expires 12h --json
    flightstore tokens create worker --rights write --certificate worker.example.org"""
)
@click.argument("name")
@click.option(
    "--rights",
    type=click.Choice(RIGHTS),
    default="read",
    show_default=True,
    help="What it may do; each right includes those before it.",
)
@click.option(
    "--session",
    "sessions",
    metavar="NAME",
    multiple=True,
    help="It may use this session only, and is in it unless it says otherwise; repeatable.",
)
@click.option("--expires", metavar="TIME", help="It ends after so long: 30d, 12h, 90m; never without it.")
@click.option(
    "--certificate",
    metavar="CN",
    help="No token: who has a client certificate of this name (its first alternative name, or common name).",
)
@_file_option
@common_options
def create(
    name: str,
    rights: str,
    sessions: tuple[str, ...],
    expires: str | None,
    certificate: str | None,
    file: str | None,
) -> int:
    """Make a token called NAME, and print it: it is not stored and cannot be had again."""
    from flightstore.gateway import tokens as entries

    path = file or entries.default_path()
    made, secret = entries.create(
        path,
        name,
        rights=rights,
        sessions=sessions or None,
        expires=entries.lifetime(expires) if expires else None,
        certificate=certificate,
    )
    if settings().json:
        print_json({"token": secret, "file": os.fspath(path), **_document(name, made)})
    else:
        click.echo(secret or f"{name}: who has the certificate {certificate}")
    return exits.OK


@tokens.command(
    "list",
    epilog="""\b
Examples:
    flightstore tokens list
    flightstore tokens list --json | jq '.tokens[].name'""",
)
@_file_option
@common_options
def list_tokens(file: str | None) -> int:
    """List the tokens: what they may do, not what they are."""
    from flightstore.gateway import tokens as entries

    path = file or entries.default_path()
    found = entries.load(path) if file or os.path.exists(path) else {}
    documents = [_document(name, token) for name, token in sorted(found.items())]
    if settings().json:
        print_json({"file": os.fspath(path), "tokens": documents})
        return exits.OK
    columns = ("name", "rights", "sessions", "created", "expires", "certificate")
    print_table(columns, [_row(one) for one in documents], right=frozenset[int]())
    return exits.OK


@tokens.command(
    epilog="""\b
Examples:
    flightstore tokens revoke laptop"""
)
@click.argument("name")
@_file_option
@common_options
def revoke(name: str, file: str | None) -> int:
    """Take the token called NAME away. Its next request is refused."""
    from flightstore.gateway import tokens as entries

    entries.revoke(file or entries.default_path(), name)
    if settings().json:
        print_json({"revoked": name})
    else:
        click.echo(f"revoked {name}")
    return exits.OK


def _document(name: str, token: Any) -> dict[str, Any]:
    def moment(value: datetime | None) -> str | None:
        return None if value is None else value.isoformat().replace("+00:00", "Z")

    return {
        "name": name,
        "rights": token.rights,
        "sessions": None if token.sessions is None else list(token.sessions),
        "created": moment(token.created),
        "expires": moment(token.expires),
        "expired": token.is_expired(),
        "certificate": token.certificate,
    }


def _row(document: dict[str, Any]) -> list[str]:
    sessions = "all" if document["sessions"] is None else ", ".join(document["sessions"])
    expires = "never" if document["expires"] is None else document["expires"]
    return [
        document["name"],
        document["rights"],
        sessions,
        document["created"],
        f"{expires} (over)" if document["expired"] else expires,
        document["certificate"] or "",
    ]
