"""The command `flightstore`: the group of commands, and what happens to errors.

No error leaves as a traceback: each becomes a message, a hint and an exit code (exits.py). Commands live
in one module per group and are listed at the end of this file; each module imports what is heavy only
when it runs.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Sequence
from importlib import metadata
from types import FrameType
from typing import Any, NoReturn

import click

from flightstore.cli import exits
from flightstore.cli.context import Settings, common_options
from flightstore.cli.output import print_error
from flightstore.errors import FlightStoreError

__all__ = ["cli", "main"]


class Cli(click.Group):
    """A click group that turns every error into a message and an exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line; ends by SystemExit with one of the codes in exits.py."""
        arguments = list(sys.argv[1:] if args is None else args)
        extra.setdefault("obj", Settings())
        try:
            code = super().main(arguments, prog_name, complete_var, standalone_mode=False, **extra)
        except (KeyboardInterrupt, click.Abort):
            click.echo("interrupted", err=True)
            code = exits.INTERRUPTED
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            code = exits.USAGE
        except click.ClickException as error:
            print_error(error, as_json=extra["obj"].json or "--json" in arguments)
            code = error.exit_code
        sys.exit(code if isinstance(code, int) else exits.OK)

    def invoke(self, ctx: click.Context) -> int:
        """Run the subcommand and return the exit code."""
        try:
            code = super().invoke(ctx)
            # Flushed here, so that a reader who went away is noticed where it can be handled.
            sys.stdout.flush()
            return code if isinstance(code, int) else exits.OK
        except BrokenPipeError:
            _silence_stdout()
            return exits.BROKEN_PIPE
        except (FlightStoreError, OSError, MemoryError) as error:
            print_error(error, as_json=ctx.find_root().ensure_object(Settings).json)
            return exits.exit_code(error)


def _silence_stdout() -> None:
    """Point stdout at /dev/null: what is still buffered would fail once more when the interpreter ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def _buffer_stdout() -> None:
    """Put a buffer on a stdout that has none (python -u, PYTHONUNBUFFERED).

    Without one, a write that the kernel takes only in part loses the rest without a word.
    """
    if isinstance(sys.stdout.buffer, io.RawIOBase):
        buffered = io.BufferedWriter(io.FileIO(sys.stdout.fileno(), "w", closefd=False))
        sys.stdout = io.TextIOWrapper(buffered, encoding=sys.stdout.encoding, errors=sys.stdout.errors)


def _terminated(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(exits.TERMINATED)


def _version() -> str:
    """The installed version; a source tree that is merely on the path has none."""
    try:
        return metadata.version("flightstore")
    except metadata.PackageNotFoundError:
        return "(not installed)"


_EPILOG = """\b
Exit codes:
    0  done                      4  the store is full
    1  error                     5  busy, in use, or timed out
    2  wrong usage               6  fsck or doctor found a problem
    3  no such object or store   130  interrupted by Ctrl-C
\b
Examples:
    flightstore put orders.parquet
    flightstore ls
    flightstore get orders -o copy.csv
    flightstore doctor
"""


@click.group(
    cls=Cli,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(_version(), "--version", prog_name="flightstore")
@common_options
def cli() -> None:
    """Share data frames between processes at the speed of memory.

    The store is a directory on a memory file system. Every command works on it directly: there is no
    server to start.
    """


def main() -> NoReturn:
    """Entry point of the console script."""
    # The default action would leave temporary files and half-made objects for `recover` to find.
    signal.signal(signal.SIGTERM, _terminated)
    _buffer_stdout()
    cli.main(prog_name="flightstore")
    raise AssertionError("unreachable: main ends by SystemExit")


def _add_commands() -> None:
    from flightstore.cli import (
        adopt,
        batches,
        completion,
        demo,
        get,
        keeping,
        objects,
        put,
        schema,
        serve,
        sessions,
        sql,
        tokens,
        top,
        upkeep,
        watch,
    )

    for command in (
        put.put,
        adopt.adopt,
        get.get,
        get.head,
        schema.schema,
        sql.sql,
        objects.list_objects,
        objects.stat,
        objects.remove,
        keeping.pin,
        keeping.unpin,
        keeping.free,
        keeping.evict,
        keeping.spill,
        sessions.sessions,
        sessions.session,
        batches.list_batches,
        batches.batch,
        top.top,
        watch.watch,
        upkeep.stats,
        upkeep.doctor,
        upkeep.fsck,
        upkeep.recover,
        upkeep.destroy,
        serve.serve,
        tokens.tokens,
        completion.completion,
        demo.demo,
    ):
        cli.add_command(command)
    completion.register()


_add_commands()

if __name__ == "__main__":
    main()
