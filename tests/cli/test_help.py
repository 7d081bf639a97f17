"""No command without help, an example, and its place in the reference."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from flightstore.cli import exits, formats
from flightstore.cli.context import Settings
from flightstore.cli.main import cli

REFERENCE = Path(__file__).parents[2] / "docs" / "cli.md"
COMMON = {"--store", "--json", "--help"}


def section(name: str) -> str:
    """The part of the reference on one command."""
    text = REFERENCE.read_text()
    heading = f"\n## flightstore {name}\n"
    assert heading in text, f"docs/cli.md has no section on {name}"
    return text.split(heading)[1].split("\n## ")[0]


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_has_help_examples_and_the_common_options(name: str) -> None:
    shown = CliRunner().invoke(cli, [name, "--help"])
    assert shown.exit_code == 0
    assert f"flightstore {name}" in shown.output.split("Examples:")[1]
    assert "--store DIR" in shown.output
    assert "--json" in shown.output
    assert cli.commands[name].help


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_and_option_is_in_the_reference(name: str) -> None:
    text = section(name)
    for parameter in cli.commands[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.name} has no help"
            for spelling in set(parameter.opts) - COMMON:
                assert spelling in text, f"docs/cli.md does not mention {name} {spelling}"


def test_the_reference_has_no_command_that_is_not_there() -> None:
    headings = [line for line in REFERENCE.read_text().splitlines() if line.startswith("## flightstore ")]
    assert sorted(line.split()[2] for line in headings) == sorted(cli.commands)


def test_every_exit_code_and_format_is_in_the_reference() -> None:
    text = REFERENCE.read_text()
    for name in exits.__all__:
        value = getattr(exits, name)
        if isinstance(value, int):
            assert f"| {value} |" in text, name
    for file_format in formats.FORMATS:
        assert f"| `{file_format}`" in text, file_format
    for extension in (*formats.EXTENSIONS, *(f".{packing}" for packing in formats.PACKINGS)):
        assert f"`{extension}`" in text, extension


def test_every_format_and_packing_is_in_the_help_of_put() -> None:
    shown = " ".join(CliRunner().invoke(cli, ["put", "--help"]).output.split())
    for one in formats.FORMATS.values():
        assert re.search(rf"\b{one.name}\b", shown), one.name
    for packing in formats.PACKINGS:
        assert re.search(rf"\b{packing}\b", shown), packing


def commands_in(text: str) -> Iterator[list[str]]:
    """The arguments of every flightstore command on lines of their own, pipes and redirections cut off."""
    for line in re.findall(r"^    (.*\bflightstore .*)$", text, re.MULTILINE):
        for part in re.split(r"\|\|?|&&|>|\$\(|\)", line.partition(" #")[0]):
            words = shlex.split(part.strip().strip('"'))
            if words[:1] == ["flightstore"]:
                yield words[1:]


def without_synopses(text: str) -> str:
    """The page without the first indented line of each section, which is no command but its form."""
    return re.sub(r"(\n## flightstore \w+\n\n)    .*\n", r"\1", text)


EXAMPLES = [
    *commands_in(without_synopses(REFERENCE.read_text())),
    *(example for command in cli.commands.values() for example in commands_in(command.epilog or "")),
]


def test_examples_are_found() -> None:
    assert len(EXAMPLES) > 60
    assert {arguments[0] for arguments in EXAMPLES} == set(cli.commands)
    assert ["put", "-", "--name", "log", "--format", "jsonl"] in EXAMPLES


@pytest.mark.parametrize("arguments", EXAMPLES, ids=" ".join)
def test_every_example_is_a_command(arguments: list[str]) -> None:
    with cli.make_context("flightstore", list(arguments), obj=Settings()) as outer:
        name, command, rest = cli.resolve_command(outer, [*outer._protected_args, *outer.args])
        assert command is not None
        # Parses all that is there, and would refuse what is not.
        with command.make_context(name, rest, parent=outer):
            pass


def test_nothing_heavy_is_imported_for_the_help() -> None:
    script = (
        "import sys, flightstore.cli.main; print({'pyarrow', 'numpy', 'rich', 'lmdb'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_version() -> None:
    shown = CliRunner().invoke(cli, ["--version"])
    assert (shown.exit_code, shown.output.split()[0]) == (0, "flightstore,")


def test_no_command_shows_help() -> None:
    shown = CliRunner().invoke(cli, [])
    assert shown.exit_code == 2
    assert "Commands:" in shown.stderr
