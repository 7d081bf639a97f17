"""The rule about leaving tests out (tests/conftest.py), tried on small test folders of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"

NEEDS = 'import pytest\n@pytest.mark.needs("{}")\ndef test_it():\n    pass\n'
SKIPS = 'import pytest\ndef test_it():\n    pytest.skip("no mood")\n'
SKIPS_MODULE = 'import pytest\npytest.importorskip("no_such_module")\ndef test_it():\n    pass\n'
INI = "[pytest]\nmarkers =\n    needs(*components): x\n"
UNAVAILABLE = (
    "\nCOMPONENTS['absent'] = Component(lambda: False, 'buy one')"
    "\nCOMPONENTS['rare'] = Component(lambda: False, 'be lucky')"
    "\nOPTIONAL_COMPONENTS |= {'rare'}\n"
)


def run_pytest(folder: Path, test: str, *, ci: bool, processes: int = 0) -> tuple[int, str]:
    """Exit status and output of pytest on a folder with our conftest, two missing components and a test."""
    (folder / "conftest.py").write_text(CONFTEST.read_text() + UNAVAILABLE)
    (folder / "pytest.ini").write_text(INI)
    (folder / "test_it.py").write_text(test)
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTEST_ADDOPTS")}
    if ci:
        environment["CI"] = "true"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"-n{processes}"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("processes", [0, 2])
def test_a_missing_component_is_named_and_the_run_passes(tmp_path: Path, processes: int) -> None:
    status, output = run_pytest(tmp_path, NEEDS.format("absent"), ci=False, processes=processes)
    assert status == 0
    assert "left out for want of a component" in output
    assert "test_it.py::test_it: needs absent (buy one)" in output
    assert "1 skipped" in output.splitlines()[-1]


def test_a_missing_component_fails_ci(tmp_path: Path) -> None:
    status, output = run_pytest(tmp_path, NEEDS.format("absent"), ci=True)
    assert status == 1
    assert "CI must not leave this test out, but it needs absent" in output


def test_a_component_ci_cannot_have_is_still_named(tmp_path: Path) -> None:
    status, output = run_pytest(tmp_path, NEEDS.format("rare"), ci=True)
    assert status == 0
    assert "test_it.py::test_it: needs rare (be lucky)" in output


@pytest.mark.parametrize("processes", [0, 2])
@pytest.mark.parametrize("test", [SKIPS, SKIPS_MODULE], ids=["test", "module"])
def test_other_skips_fail(tmp_path: Path, test: str, processes: int) -> None:
    status, output = run_pytest(tmp_path, test, ci=False, processes=processes)
    assert status != 0
    assert "skipped otherwise than by pytest.mark.needs" in output


def test_unknown_components_are_refused(tmp_path: Path) -> None:
    status, output = run_pytest(tmp_path, NEEDS.format("unheard_of"), ci=False)
    assert status == 4
    assert "unknown components: unheard_of" in output


def test_several_left_out_for_one_reason_are_one_line(tmp_path: Path) -> None:
    two = NEEDS.format("absent") + NEEDS.format("absent").partition("\n")[2].replace("test_it", "test_other")
    status, output = run_pytest(tmp_path, two, ci=False)
    assert status == 0
    assert "test_it.py, 2 tests: needs absent (buy one)" in output


@pytest.mark.parametrize("processes", [0, 2])
def test_a_log_has_no_dots_and_names_what_failed(tmp_path: Path, processes: int) -> None:
    many = (
        "import pytest\n@pytest.mark.parametrize('n', range(10_000))\ndef test_it(n):\n    assert n != 4321\n"
    )
    status, output = run_pytest(tmp_path, many, ci=False, processes=processes)
    assert status == 1
    assert "5,000 tests done after" in output
    assert "FAILED test_it.py::test_it[4321]" in output
    assert "1 failed, 9999 passed" in output.splitlines()[-1]
    assert len(output) < 5_000, "a dot for each test is more than this"
