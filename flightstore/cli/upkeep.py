"""`flightstore stats`, `doctor`, `fsck`, `recover` and `destroy`: the store as a whole."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from flightstore.cli import exits
from flightstore.cli.context import common_options, open_store, settings
from flightstore.cli.output import human_bytes, human_count, print_json, print_pairs, printable
from flightstore.types import StoreStats

__all__ = ["destroy", "doctor", "fsck", "recover", "stats"]


@click.command(
    epilog="""\b
Examples:
    flightstore stats
    flightstore stats --json | jq .free_bytes"""
)
@common_options
def stats() -> int:
    """Show the usage of the store."""
    with open_store() as store:
        usage: StoreStats = store.stats()
    if settings().json:
        print_json(asdict(usage))
        return exits.OK
    pairs = {}
    for label, value in asdict(usage).items():
        name = label.removesuffix("_bytes").replace("_", " ")
        if label.endswith("_bytes"):
            pairs[name] = f"{human_bytes(value):>12}  ({value:,})"
        else:
            pairs[name] = value if isinstance(value, str) else f"{human_count(value):>12}"
    print_pairs(pairs)
    return exits.OK


@click.command(
    epilog="""\b
Examples:
    flightstore doctor
    flightstore doctor --store /dev/shm/team --json"""
)
@common_options
def doctor() -> int:
    """Look for what is wrong with the store or the machine, and say how to put it right.

    Checks the file system, the memory control group, the kernel, limits, huge pages, the pid namespace,
    the format version, dead clients, lagging readers, a stopped writer, the catalog, and forgotten
    stores. Changes nothing. The exit code is 6 when there is a problem; notes and warnings are no
    problems.
    """
    from flightstore.lifecycle.doctor import OK, PROBLEM, worst
    from flightstore.lifecycle.doctor_store import examine

    path, findings = examine(settings().store)
    severity = worst(findings)
    if settings().json:
        print_json({"store": path, "severity": severity, "findings": [asdict(f) for f in findings]})
    else:
        click.echo(f"store    {printable(path)}")
        for finding in findings:
            click.echo(f"{finding.severity:<8} {finding.check}: {printable(finding.message)}")
            if finding.fix and finding.severity != OK:
                click.echo(f"         fix: {printable(finding.fix)}")
    return exits.DAMAGE if severity == PROBLEM else exits.OK


@click.command(
    epilog="""\b
Examples:
    flightstore fsck
    flightstore recover && flightstore fsck --json"""
)
@common_options
def fsck() -> int:
    """Check every invariant of the store's format.

    Each backed byte lies in exactly one extent or free range, counts equal what they count, nothing is
    orphaned. Changes nothing; what dead clients left is reported, and `flightstore recover` puts it
    right. The exit code is 6 when something is wrong.
    """
    with open_store() as store:
        findings = store.fsck()
    if settings().json:
        print_json({"clean": not findings, "findings": [asdict(finding) for finding in findings]})
        return exits.DAMAGE if findings else exits.OK
    for finding in findings:
        severity = "left over" if finding.recoverable else "damage"
        click.echo(f"{severity}: {finding.check}: {printable(finding.message)}")
    if not findings:
        click.echo("clean")
    elif all(finding.recoverable for finding in findings):
        click.echo("run flightstore recover to put this right")
    return exits.DAMAGE if findings else exits.OK


@click.command(
    epilog="""\b
Examples:
    flightstore recover
    flightstore recover --json"""
)
@common_options
def recover() -> int:
    """Reclaim what dead clients left and what deleted objects no longer need. Safe at any time."""
    with open_store() as store:
        report = store.recover()
    if settings().json:
        print_json(asdict(report))
        return exits.OK
    done = {label: value for label, value in asdict(report).items() if value}
    if not done:
        click.echo("nothing to do")
    print_pairs(
        {
            label.removesuffix("_bytes").replace("_", " "): (
                human_bytes(value) if label.endswith("_bytes") else human_count(value)
            )
            for label, value in done.items()
        }
    )
    return exits.OK


@click.command(
    epilog="""\b
Examples:
    flightstore destroy
    flightstore destroy --store /dev/shm/team --yes"""
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@common_options
def destroy(yes: bool) -> int:
    """Remove the store and everything in it, for everybody.

    Asks first, unless --yes is given; without a terminal to ask on, --yes is required. Views that running
    processes hold stay readable.
    """
    with open_store() as store:
        usage = store.stats()
        content = f"{usage.objects:,} objects, {human_bytes(usage.used_bytes)}"
        if not yes and not _confirmed(f"Remove {usage.path} ({content})?"):
            click.echo("nothing was removed", err=True)
            return exits.ERROR
        store.destroy()
    if settings().json:
        print_json({"destroyed": usage.path, "objects": usage.objects, "bytes": usage.used_bytes})
    else:
        click.echo(f"removed {printable(usage.path)}")
    return exits.OK


def _confirmed(question: str) -> bool:
    """Ask."""
    if not sys.stdin.isatty():
        raise click.UsageError("destroy needs --yes when there is no terminal to ask on")
    return click.confirm(question, err=True)
