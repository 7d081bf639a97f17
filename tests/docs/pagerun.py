"""Runs the code of one page, as its reader would: ``python pagerun.py PAGE``, in an empty folder.

A page is one session of one reader, from top to bottom. What a fenced block is for is in the words after its
backticks:

    python              the reader's own interpreter: one for the whole page
    python other        another process, which ends before the page goes on
    python meanwhile    another process, which runs beside the next block and ends with it
    python file=NAME    written to NAME, for later blocks to run or import
    console             a shell: lines after ``$ `` are commands, the others what they print
    text                what the block before it printed; ``...`` stands for anything

Every other block is for the eyes only. Ends with an error that names the line of the page.
"""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from pages import fences

LIMIT_S = 60
PYTHON = [sys.executable, "-W", "error"]
EXECUTED = re.compile(r"python( other| meanwhile| file=[\w.-]+)?|console|text")


class PageError(Exception):
    """A block did not do what the page says."""


class Printed:
    """What this process and its children write to standard output meanwhile."""

    text = ""

    def __enter__(self) -> Printed:
        sys.stdout.flush()
        self._file = tempfile.TemporaryFile()
        self._saved = os.dup(1)
        os.dup2(self._file.fileno(), 1)
        return self

    def __exit__(self, *exc: object) -> None:
        sys.stdout.flush()
        os.dup2(self._saved, 1)
        os.close(self._saved)
        self._file.seek(0)
        self.text = self._file.read().decode()
        self._file.close()


def is_executed(info: str) -> bool:
    """Whether blocks with this info string are run or compared."""
    return EXECUTED.fullmatch(info) is not None


def same_output(wanted: str, got: str) -> bool:
    """Whether a text is what was printed; ``...`` and the width of gaps are free."""
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    return doctest.OutputChecker().check_output(wanted.strip() + "\n", got.strip() + "\n", flags)


class Session:
    """One reader's run through a page."""

    def __init__(self, page: str, names: dict[str, Any]) -> None:
        self.page = page
        self.names = names
        self.printed = ""
        self.beside: list[subprocess.Popen[str]] = []

    def run(self, number: int, info: str, code: str) -> None:
        """One block, beginning at that line of the page."""
        if info == "text":
            self.compare(code, self.printed)
            return
        self.printed = ""
        if info == "python":
            self.printed = self.interpret(number, code)
        elif info == "python other":
            self.printed = self.finished(self.process([*PYTHON, "-c", code]))
        elif info == "python meanwhile":
            self.beside.append(self.process([*PYTHON, "-c", code]))
            return
        elif info == "console":
            self.shell(code)
        else:
            Path(info.partition("=")[2]).write_text(code)
        self.join()

    def interpret(self, number: int, code: str) -> str:
        """A block in the reader's interpreter."""
        with Printed() as printed:
            exec(compile("\n" * (number - 1) + code, self.page, "exec"), self.names)
        return printed.text

    def process(self, command: list[str]) -> subprocess.Popen[str]:
        """Another process, whose output is kept."""
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finished(self, process: subprocess.Popen[str]) -> str:
        """What a process printed, once it ended well."""
        printed, said = process.communicate(timeout=LIMIT_S)
        if process.returncode:
            raise PageError(f"exit code {process.returncode}:\n{printed}{said}")
        return printed

    def join(self) -> None:
        """Wait for those that ran beside; what they print comes last."""
        while self.beside:
            self.printed += self.finished(self.beside.pop(0))

    def shell(self, text: str) -> None:
        """Commands, and what each prints."""
        for command, wanted in commands(text):
            printed = self.finished(self.process(["bash", "-c", command]))
            self.printed += printed
            if wanted.strip():
                self.compare(wanted, printed)

    def compare(self, wanted: str, got: str) -> None:
        if not same_output(wanted, got):
            raise PageError(f"the page says\n{wanted}\nit printed\n{got}")

    def stop(self) -> None:
        """End what still runs beside."""
        for process in self.beside:
            process.kill()
            process.communicate()


def commands(text: str) -> list[tuple[str, str]]:
    """(command, what it prints) of a console block. A command goes on where its line ends in a backslash."""
    found: list[tuple[str, str]] = []
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        match = re.match(r"((?:.*\\\n)*.*)\n?", part)
        assert match is not None
        found.append((match[1], part[match.end() :]))
    return found


def run_page(page: Path, names: dict[str, Any], fail: Callable[[str], None]) -> None:
    """Every block of a page, until one fails."""
    session = Session(str(page), names)
    for number, info, code in fences(page.read_text()):
        if not is_executed(info):
            continue
        try:
            session.run(number, info, code)
        except Exception:
            session.stop()
            fail(f"{page}, the block at line {number}:\n{traceback.format_exc()}")
            return
    session.join()


def main() -> int:
    """Run the page that was named."""
    failures: list[str] = []
    page = Path(sys.argv[1])
    sys.path[0] = ""  # as for a reader: the folder one is in
    reader = sys.modules["__main__"] = ModuleType(
        "__main__"
    )  # multiprocessing finds the page's functions there
    run_page(page, vars(reader), failures.append)
    print(*failures, sep="\n", file=sys.stderr, end="")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
