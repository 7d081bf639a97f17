"""Each of INV-1 to INV-11 can fail: its tests pass on the engine as it is, and fail when it is broken."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from breakages import BREAKAGES

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.req(
        "INV-1", "INV-2", "INV-3", "INV-4", "INV-5", "INV-6", "INV-7", "INV-8", "INV-9", "INV-10", "INV-11"
    ),
]


def module_of(invariant: int) -> Path:
    (found,) = HERE.glob(f"test_inv_{invariant:02}_*.py")
    return found


def run(breakage: str | None, *modules: Path) -> subprocess.CompletedProcess[str]:
    """Run the tests of these modules, in an interpreter of its own, until one fails."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-rfE", "--tb=line", "-p", "breakages"]
    command += ["-p", "no:cacheprovider"]
    command += ["--breakage", breakage] if breakage else []
    folders = [str(HERE), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    # Other plugins are of no use here, and some take longer to load than the tests to run.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    return subprocess.run(
        [*command, *map(str, modules)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_it_is_noticed(breakage: str) -> None:
    invariant, _ = BREAKAGES[breakage]
    done = run(breakage, module_of(invariant))
    caught = re.findall(r"^FAILED \S+?::(.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    assert caught, f"no test failed, something else did:\n{done.stdout}"
    reason = re.findall(r"^\S+:\d+: (.*)", done.stdout, re.MULTILINE)
    print(f"{breakage}: caught by {', '.join(caught)}: {'; '.join(reason)}")


def test_nothing_fails_while_nothing_is_broken() -> None:
    done = run(None, *(module_of(invariant) for invariant in range(1, 12)))
    assert done.returncode == pytest.ExitCode.OK, done.stdout + done.stderr


def test_every_invariant_is_broken_in_some_way() -> None:
    assert {invariant for invariant, _ in BREAKAGES.values()} == set(range(1, 12))
