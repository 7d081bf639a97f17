"""What the commands of all benchmarks have in common: their options, and where their results go."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console

__all__ = ["console_for", "options", "write_json"]

C = TypeVar("C", bound=Callable[..., Any])


def options(command: C) -> C:
    """Decorator that adds ``--json``, ``--quick`` and ``--dir``, as ``json_to``, ``quick`` and ``parent``."""
    for option in (
        click.option(
            "--dir",
            "parent",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            default=Path("/dev/shm"),
            show_default=True,
            help="A directory on a memory file system.",
        ),
        click.option(
            "--quick", is_flag=True, help="Little work: shows that everything runs, says nothing about speed."
        ),
        click.option("--json", "json_to", metavar="FILE", help="Write JSON there; - for standard output."),
    ):
        command = option(command)
    return command


def console_for(json_to: str | None) -> Console:
    """Where people read: standard error, if JSON goes to standard output."""
    return Console(stderr=json_to == "-", width=None if sys.stdout.isatty() else 200)


def write_json(json_to: str | None, content: Mapping[str, Any]) -> None:
    """Write the results, dated, where they are wanted; nowhere for None."""
    if json_to is None:
        return
    text = json.dumps({**content, "date": date.today().isoformat()}, indent=1)
    click.echo(text) if json_to == "-" else Path(json_to).write_text(text + "\n")
