"""What the pages say can be run, and the runner notices when it cannot.

Each page runs in a process, a folder and a store (FLIGHTSTORE_DIR) of its own; pagerun.py says which blocks
are run, and how.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from pagerun import commands, is_executed, same_output
from pages import ROOT, documents, fences, named

LIMIT_S = 240

IN_A_NETWORK_OF_ITS_OWN = ("docs/how-to/ray.md",)
"""Pages of Ray, whose servers listen on every interface, and which warns of settings that are its own."""
LOOPBACK_ONLY = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "page")

PAGES_WITH_CODE = [
    page for page in documents() if any(is_executed(info) for _, info, _ in fences(page.read_text()))
]


def run(page: Path, store_dir: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a page's code in a folder, where `flightstore` and `python` are what they are for a user."""
    programs = folder / "bin"
    programs.mkdir()
    for name, words in {"flightstore": " -m flightstore.cli", "python": " -W error"}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{words} "$@"\n')
        (programs / name).chmod(0o755)
    (folder / "work").mkdir()
    environment = {
        **os.environ,
        "COLUMNS": "100",
        "FLIGHTSTORE_DIR": str(store_dir),
        "FLIGHTSTORE_CAPACITY": "64MiB",
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
    }
    apart = LOOPBACK_ONLY if page in [ROOT / name for name in IN_A_NETWORK_OF_ITS_OWN] else ()
    warnings = ["-W", "error", *(["-W", "ignore::DeprecationWarning"] if apart else [])]
    command = [sys.executable, *warnings, str(Path(__file__).with_name("pagerun.py")), str(page)]
    with tempfile.TemporaryDirectory(prefix="fsray", dir="/tmp", ignore_cleanup_errors=True) as short:
        return subprocess.run(
            [*apart, *command],
            env=environment | {"RAY_TMPDIR": short},  # the paths of Ray's sockets lie below
            cwd=folder / "work",
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )


def with_needs(page: Path) -> Any:
    """The page as a parameter, marked with what it needs."""
    marks = [pytest.mark.needs("root", "network")] if named(page) in IN_A_NETWORK_OF_ITS_OWN else []
    return pytest.param(page, marks=marks, id=named(page))


@pytest.mark.slow
@pytest.mark.parametrize("page", [with_needs(page) for page in PAGES_WITH_CODE])
def test_code_of_a_page_runs(page: Path, store_dir: Path, tmp_path: Path) -> None:
    done = run(page, store_dir, tmp_path)
    assert done.returncode == 0, done.stderr


SAMPLE = """\
```python
import os, flightstore as fs
fs.connect().put(b"12345", name="five")
print(os.path.exists("bin"))
```

```text
False
```

```python meanwhile
import flightstore as fs
print(fs.connect().get("later", timeout=30).nbytes)
```
```python
fs.connect().put(b"123", name="later")
```
```text
3
```

```python file=double.py
import flightstore as fs
def double(n): return 2 * n
```
```python
import multiprocessing
def triple(n): return 3 * n
with multiprocessing.get_context("fork").Pool(1) as pool: print(pool.map(triple, [1, 2]))
```
```text
[3, 6]
```
```console
$ python -c "import double; print(double.double(4))"
8
$ flightstore ls --json
{...five...}
```
```python other
import flightstore as fs
print(bytes(fs.connect().get("five").value()))
```
```text
b'12345'
```
```sh
this is not run
```
"""


def test_every_kind_of_block_is_run(store_dir: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(SAMPLE)
    done = run(page, store_dir, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("```python\nx = 1\nraise KeyError('gone')\n```", 'page.md", line 3'),
        ("```python\nos\n```", "'os' is not defined"),
        ("```python other\nraise KeyError('gone')\n```", "the block at line 2"),
        ("```python meanwhile\nraise KeyError('gone')\n```", "KeyError: 'gone'"),
        ("```python\nimport warnings; warnings.warn('old')\n```", "UserWarning: old"),
        ("```python\nprint(1)\n```\n```text\n2\n```", "the page says\n2\n"),
        ("```console\n$ echo one\ntwo\n```", "it printed\none\n"),
        ("```console\n$ exit 3\n```", "exit code 3"),
    ],
)
def test_what_goes_wrong_is_noticed(block: str, said: str, store_dir: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(block + "\n")
    done = run(page, store_dir, tmp_path)
    assert done.returncode == 1
    assert said in done.stderr


def test_commands_and_their_output() -> None:
    assert commands("$ a\n1\n2\n$ b \\\nc\n$ d\n") == [("a", "1\n2\n"), ("b \\\nc", ""), ("d", "")]


def test_dots_stand_for_anything() -> None:
    assert same_output("a  b ...\n", "a b c\n")
    assert not same_output("a b\n", "a b c\n")


@pytest.mark.parametrize("page", PAGES_WITH_CODE, ids=named)
def test_shell_examples_say_whether_they_run(page: Path) -> None:
    unknown = {info for _, info, _ in fences(page.read_text()) if not is_executed(info)}
    assert unknown <= {"mermaid", "sh", "toml"}, "a block that looks like code, and is never tried"


def test_pages_with_code_are_found() -> None:
    assert {"README.md", "docs/tutorial.md"} <= {named(page) for page in PAGES_WITH_CODE}
