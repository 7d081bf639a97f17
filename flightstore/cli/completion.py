"""Shell completion: of commands, options, formats, and of the names of objects in the store.

click makes the scripts and answers them. What is ours: names come from the store (a missing, busy or broken
one completes to nothing), and in bash a name survives blanks, quotes, and the characters at which bash breaks
words (``=`` and ``:``, which names of partitions and ids are full of). Calls lifecycle.watching, which reads
without leases.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ZshComplete,
    add_completion_class,
    get_completion_class,
)

from flightstore.cli import exits
from flightstore.cli.context import Settings, common_options, session_number, settings
from flightstore.cli.output import print_json
from flightstore.errors import FlightStoreError

if TYPE_CHECKING:
    _ParamType = click.ParamType[str]  # a plain class in older versions of click
else:
    _ParamType = click.ParamType

__all__ = ["OBJECT", "Typed", "completion", "insertion", "parse_typed", "register"]

SHELLS = ("bash", "zsh", "fish")
PROGRAM = "flightstore"
_VARIABLE = "_FLIGHTSTORE_COMPLETE"


class ObjectRef(_ParamType):
    """The name or id of an object; completed from the store."""

    name = "ref"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        """Names that begin so (ids, once ``id:`` is written), those left out that the command has already."""
        so_far = ctx.params.get(param.name or "")
        given = so_far if isinstance(so_far, tuple) else ()
        return [
            CompletionItem(name)
            for name in _matching(ctx.find_root().ensure_object(Settings), incomplete)
            if name not in given
        ]


OBJECT = ObjectRef()
"""The type of arguments that name objects."""


def _matching(chosen: Settings, incomplete: str) -> list[str]:
    import flightstore
    from flightstore.lifecycle.registry import connection_for, release_connection
    from flightstore.lifecycle.watching import matching_ids, matching_names

    try:
        with flightstore.connect(chosen.store, create=False, busy_timeout=0) as store:
            connection = connection_for(store.path, 0)
            try:
                match = matching_ids if incomplete.startswith("id:") else matching_names
                session = session_number(store, chosen.session) if chosen.session is not None else 0
                return sorted(match(connection, incomplete, session))
            finally:
                release_connection(connection)
    except (FlightStoreError, OSError):
        return []


# --- what was typed, in bash's syntax ---


@dataclass(frozen=True, slots=True)
class Typed:
    """A command line up to the cursor, as bash understands it."""

    words: tuple[str, ...]
    """The complete words, quotes resolved."""
    word: str
    """The word at the cursor, quotes resolved."""
    kept: int
    """So many characters of `word` stay as they are: bash replaces what comes after them only."""
    quote: str
    """The quote that is open at the cursor, or empty."""


def parse_typed(text: str, breaks: str) -> Typed:
    """Parse a command line up to the cursor.

    Args:
        text: What was typed.
        breaks: The characters at which bash breaks words when it completes (COMP_WORDBREAKS).
    """
    words: list[str] = []
    word: str | None = None
    kept, opened, quote, escaped = 0, 0, "", False
    for character in text:
        here = word or ""
        if escaped:
            word, escaped = here + character, False
        elif character == "\\" and quote != "'":
            word, escaped = here, True
        elif character == quote:
            quote = ""
        elif quote:
            word = here + character
        elif character in "'\"":
            word, quote, opened = here, character, len(here)
        elif character.isspace():
            words += [] if word is None else [word]
            word, kept = None, 0
        else:
            word = here + character
            kept = len(word) if character in breaks else kept
    return Typed(tuple(words), word or "", opened if quote else kept, quote)


def insertion(value: str, typed: Typed) -> str | None:
    """What bash is to put in place of the part it replaces, so that the word becomes `value`.

    None where that cannot be written inside the quotes that are open.
    """
    rest = value[typed.kept :]
    if not rest.isprintable():
        return None if typed.quote else _ansi_quoted(rest)
    if typed.quote == "'":
        return rest.replace("'", "'\\''")
    if typed.quote:
        return "".join(f"\\{c}" if c in '\\"$`' else c for c in rest)
    return "".join(c if c.isalnum() or c in "_@%+,./:=-" or c > "~" else f"\\{c}" for c in rest)


def _ansi_quoted(text: str) -> str:
    """``$'...'``: the one way of bash to write a control character that can be seen."""
    written = (
        c if c.isprintable() and c not in "\\'" else "".join(f"\\x{byte:02x}" for byte in c.encode())
        for c in text
    )
    return f"$'{''.join(written)}'"


# --- the shells ---


def _whole_words(found: Sequence[CompletionItem[str]], incomplete: str) -> list[CompletionItem[str]]:
    """What the whole word becomes: click gives the value alone where ``--option=value`` is one word."""
    option, equals, _value = incomplete.partition("=")
    if not equals or not option.startswith("-"):
        return list(found)
    return [
        CompletionItem(f"{option}={one.value}", one.type) if one.type == "plain" else one for one in found
    ]


class Bash(BashComplete):
    """bash: the line is parsed by ourselves, and each reply is quoted for its place."""

    source_template = """\
%(complete_func)s() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        case $line in
            plain,*) COMPREPLY+=("${line#plain,}") ;;
            file,*) compopt -o default ;;
            dir,*) compopt -o dirnames ;;
        esac
    done < <(COMP_TYPED="${COMP_LINE:0:COMP_POINT}" COMP_BREAKS="$COMP_WORDBREAKS" \\
        %(complete_var)s=bash_complete "$1" 2>/dev/null)
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the cursor, and the one at it."""
        self._typed = parse_typed(os.environ["COMP_TYPED"], os.environ.get("COMP_BREAKS", ""))
        return list(self._typed.words[1:]), self._typed.word

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        """Those that can be written at the cursor, as they are to be written there."""
        found = []
        for item in _whole_words(super().get_completions(args, incomplete), incomplete):
            value = insertion(item.value, self._typed) if item.type == "plain" else ""
            if value is not None:
                found.append(CompletionItem(value, item.type))
        return found


class Zsh(ZshComplete):
    """zsh, as click has it; its answers are lines, which a name with a line end in it would break."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        """Those without control characters."""
        found = _whole_words(super().get_completions(args, incomplete), incomplete)
        return [item for item in found if item.value.isprintable()]


class Fish(FishComplete):
    """fish, as click has it, but for names with commas in them."""

    source_template = FishComplete.source_template.replace(
        'string split "," $completion', 'string split --max 1 "," $completion'
    )

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        """Those without control characters."""
        found = _whole_words(super().get_completions(args, incomplete), incomplete)
        return [item for item in found if item.value.isprintable()]


def register() -> None:
    """Let our classes answer the shells."""
    for shell in (Bash, Zsh, Fish):
        add_completion_class(shell)


@click.command(
    epilog="""\b
Examples:
    eval "$(flightstore completion bash)"
    flightstore completion zsh > ~/.zfunc/_flightstore
    flightstore completion fish > ~/.config/fish/completions/flightstore.fish"""
)
@click.argument("shell", required=False, type=click.Choice(SHELLS))
@common_options
def completion(shell: str | None) -> int:
    """Print the script that completes commands, options and the names of objects in a shell.

    SHELL is bash, zsh or fish; your own ($SHELL) without one. Put the first example's line into ~/.bashrc
    (for zsh, the same into ~/.zshrc after compinit), or write the script where your shell looks for
    completions.
    """
    chosen = shell or PurePath(os.environ.get("SHELL", "")).name
    if chosen not in SHELLS:
        raise click.UsageError(
            f"name a shell: {', '.join(SHELLS)}" + (f" (yours is {chosen})" if chosen else "")
        )
    made: Any = get_completion_class(chosen)
    script = made(click.get_current_context().find_root().command, {}, PROGRAM, _VARIABLE).source()
    if settings().json:
        print_json({"shell": chosen, "script": script})
    else:
        click.echo(script, nl=not script.endswith("\n"))
    return exits.OK
