"""What all commands share: the options --store and --json, opening a store or session, parsing references.

Both options are taken before and after the subcommand. Calls flightstore's public API alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from flightstore.errors import NotAStore, ObjectNotFound, SessionNotFound
from flightstore.types import ObjectID, Ref, SessionInfo

__all__ = [
    "Settings",
    "common_options",
    "open_store",
    "parse_ref",
    "session_number",
    "session_option",
    "settings",
]

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(slots=True)
class Settings:
    """The common options of one run."""

    store: str | None = None
    """Directory of the store, or URL of its gateway; None for the default one."""
    json: bool = False
    """Print JSON instead of tables."""
    session: str | None = None
    """Name or number of the session whose objects are meant; None for the store's own."""


def settings() -> Settings:
    """The settings of the command that is running."""
    found: Settings = click.get_current_context().find_root().ensure_object(Settings)
    return found


def _set_store(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.find_root().ensure_object(Settings).store = value


def _set_json(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        context.find_root().ensure_object(Settings).json = True


def common_options(function: Function) -> Function:
    """Add --store and --json to a command."""
    store = click.option(
        "--store",
        metavar="DIR",
        type=click.Path(file_okay=False),
        expose_value=False,
        callback=_set_store,
        help="Directory of the store, or its gateway's URL [env FLIGHTSTORE_DIR; "
        "default: /dev/shm/flightstore-UID].",
    )
    as_json = click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        callback=_set_json,
        help="Print one JSON document on stdout, and errors as JSON on stderr.",
    )
    return store(as_json(function))


def _set_session(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.find_root().ensure_object(Settings).session = value


def session_option(function: Function) -> Function:
    """Add --session to a command on objects."""
    return click.option(
        "--session",
        metavar="NAME",
        is_eager=True,  # before references are completed
        expose_value=False,
        callback=_set_session,
        help="The objects of this session, by name or number.",
    )(function)


def session_number(store: Any, text: str) -> int:
    """The number of the latest session of that name, or of that number, whoever owns it.

    Raises:
        SessionNotFound: there is none, or not any more.
    """
    active: list[SessionInfo] = [info for info in store.sessions() if info.state == "active"]
    named = [info.id for info in active if info.name == text]
    numbered = [info.id for info in active if str(info.id) == text]
    if not named + numbered:
        raise SessionNotFound(f"there is no session {text}", hint="flightstore sessions shows what there is")
    return max(named or numbered)


@contextmanager
def open_store(*, create: bool = False) -> Iterator[Any]:
    """The store that the command works on, or the session of it, closed at the end.

    Args:
        create: Make the store when there is none, and begin the session. Commands that only look never do.
    """
    import flightstore

    try:
        store = flightstore.connect(settings().store, create=create)
    except NotAStore as error:
        if not create:
            error.hint = "flightstore put makes one; name another with --store or FLIGHTSTORE_DIR"
        raise
    try:
        with store:
            wanted = settings().session
            if wanted is None:
                yield store
            else:
                with _entered(store, wanted, create=create) as session:
                    yield session
    except ObjectNotFound as error:
        # The store's own hint names Python calls.
        error.hint = "flightstore ls shows what there is"
        raise


def _entered(store: Any, wanted: str, *, create: bool) -> Any:
    """A session, without becoming the owner of one that is there: a command is soon gone."""
    try:
        return store.session(session_number(store, wanted))
    except SessionNotFound:
        if not create:
            raise
        return store.session(wanted)


def parse_ref(text: str) -> Ref:
    """A reference as written on the command line: ``id:<hex>`` or a name.

    Raises:
        InvalidArgument: it begins with ``id:`` and is not an id.
    """
    return ObjectID.from_text(text) if text.startswith("id:") else text
