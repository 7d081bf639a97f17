"""`flightstore serve`: the gateway, which serves a store to other machines and languages."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from flightstore.cli import exits
from flightstore.cli.context import common_options, settings
from flightstore.cli.output import print_json, printable
from flightstore.gateway.settings import printed, resolve, settings_table

if TYPE_CHECKING:
    from flightstore.gateway.process import Gateway

__all__ = ["serve"]

Function = TypeVar("Function", bound=Callable[..., Any])


def _setting_options(function: Function) -> Function:
    """An option for each setting, but the store, which is an argument."""
    for setting in reversed(settings_table()):
        if setting.name == "store":
            continue
        if setting.metavar:
            default = "" if setting.default is None else f" [default: {setting.default}]"
            option = click.option(
                setting.flag, setting.name, metavar=setting.metavar, help=setting.help + default
            )
        else:
            option = click.option(setting.flag, setting.name, is_flag=True, default=None, help=setting.help)
        function = option(function)
    return function


@click.command(
    epilog="""\b
Examples:
    flightstore serve
    flightstore serve --unix /run/user/1000/flightstore.sock
    flightstore serve /dev/shm/team --flight 127.0.0.1:0 --http 127.0.0.1:0 --json
    flightstore serve --config gateway.toml --print-config
    flightstore serve --flight 0.0.0.0:8815 --tls-cert cert.pem --tls-key key.pem --tokens tokens.toml"""
)
@click.argument("directory", required=False, metavar="[STORE]")
@_setting_options
@click.option("--config", metavar="FILE", help="Settings from this TOML file [env FLIGHTSTORE_CONFIG].")
@click.option("--print-config", is_flag=True, help="Print the settings and where each is from, and end.")
@common_options
def serve(directory: str | None, config: str | None, print_config: bool, **flags: Any) -> int:
    """Serve a store to other machines and languages, by Arrow Flight and HTTP.

    STORE is its directory; it is made if it does not exist. Where nothing is said, Flight listens at
    grpc+tcp://127.0.0.1:8815 and HTTP at 127.0.0.1:8816; where something is, only what is named listens.

    Each setting can be given as an option, as an environment variable (FLIGHTSTORE_SERVE_TLS_CERT for
    --tls-cert), and in a TOML file (tls_cert = "..."); an option counts most. Without a tokens file, callers
    of this machine may do everything; beyond loopback nothing listens without TLS and a credential.

    With --json, one line of JSON with the addresses is printed once all listen. Ends by SIGTERM and Ctrl-C,
    within five seconds; a second one ends it at once. SIGHUP reads tokens and certificates again.
    """
    chosen, sources = resolve({"store": directory or settings().store, **flags}, config=config)
    if not print_config:
        # Read when Arrow is loaded, which comes now: what its allocator has free it gives back at once. (Of a
        # Flight upload nothing lies there: gRPC takes its messages from malloc.)
        os.environ.setdefault("MIMALLOC_PURGE_DELAY", "0")
        from flightstore.gateway.process import run

        run(chosen, lambda gateway: _announce(gateway, quiet=chosen.quiet))
    _check(chosen)
    if settings().json:
        names = [setting.name for setting in settings_table()]
        print_json({name: {"value": getattr(chosen, name), "source": sources[name]} for name in names})
    else:
        click.echo(printed(chosen, sources))
    return exits.OK


def _check(chosen: Any) -> None:
    """Refuse what would not be started."""
    from flightstore.gateway.listeners import listeners
    from flightstore.gateway.process import tokens_file

    listeners(chosen, has_tokens=tokens_file(chosen) is not None)


def _announce(gateway: Gateway, *, quiet: bool) -> None:
    if settings().json:
        document = {"ready": True, "pid": os.getpid(), "store": gateway.store.path, **gateway.addresses}
        click.echo(json.dumps(document))
    elif not quiet:
        click.echo(f"serving {printable(gateway.store.path)}")
        for kind, address in gateway.addresses.items():
            click.echo(f"  {kind.replace('_', ' '):<9} {printable(address)}")
