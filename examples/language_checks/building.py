"""How the programs of examples/ are built and run."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "languages"
MADE = shutil.ignore_patterns("node_modules", "target", "flightstore-example")
"""What a user's own build leaves beside the sources."""


@dataclass(frozen=True)
class Language:
    """How a program is built and run. Commands are run in a copy of its folder."""

    name: str
    tools: tuple[tuple[str, ...], ...]
    """Commands that succeed where its tools are installed."""
    remedy: str
    """What to install."""
    build: tuple[tuple[str, ...], ...]
    run: tuple[str, ...]
    maps: bool = False
    """Whether it can also read a table in place."""

    @property
    def folder(self) -> Path:
        """Where it is built."""
        return CACHE / self.name

    def missing(self) -> bool:
        """Whether this machine lacks its tools."""
        path = environment()["PATH"]
        return not all(shutil.which(tool[0], path=path) and _succeeds(tool) for tool in self.tools)

    def built(self) -> float:
        """Build it, unless that is done; any number of processes may ask.

        Returns:
            How many seconds it took.
        """
        CACHE.mkdir(parents=True, exist_ok=True)
        source = ROOT / "examples" / self.name
        stamp = self.folder / ".built"
        began = time.monotonic()
        with open(CACHE / f"{self.name}.lock", "w") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX)
            wanted = _fingerprint(source)
            if not stamp.exists() or stamp.read_text() != wanted:
                shutil.copytree(source, self.folder, ignore=MADE, dirs_exist_ok=True)
                for command in self.build:
                    _checked(command, self.folder)
                stamp.write_text(wanted)
        return time.monotonic() - began

    def command(self, *arguments: str) -> list[str]:
        """How its program is run."""
        return [*self.run, *arguments]


def environment() -> dict[str, str]:
    """Everything that the tools download or keep goes into the clone. They are found where their installers
    put them, too, when nobody has told the shell.
    """
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    places = [os.environ.get("PATH", os.defpath), "/usr/local/go/bin", str(home / ".cargo" / "bin")]
    toolchains = {"RUSTUP_HOME": str(home / ".rustup")} if (home / ".rustup").is_dir() else {}
    return (
        toolchains
        | os.environ
        | {
            "PATH": os.pathsep.join(places),
            "CARGO_HOME": str(CACHE / "downloads" / "cargo"),
            "GOCACHE": str(CACHE / "downloads" / "go-build"),
            "GOFLAGS": "-buildvcs=false -modcacherw",
            "GOPATH": str(CACHE / "downloads" / "go"),
            "npm_config_cache": str(CACHE / "downloads" / "npm"),
        }
    )


MAVEN_REPOSITORY = f"-Dmaven.repo.local={CACHE / 'downloads' / 'maven'}"

LANGUAGES = {
    language.name: language
    for language in (
        Language(
            "go",
            (("go", "version"),),
            "install Go 1.26 or newer",
            (("go", "build", "-ldflags", "-s -w", "-o", "flightstore-example", "."),),
            (str(CACHE / "go" / "flightstore-example"),),
        ),
        Language(
            "rust",
            (("cargo", "--version"), ("cc", "--version")),
            "install Rust 1.85 or newer, and a C compiler",
            (("cargo", "build", "--quiet", "--locked"),),
            (str(CACHE / "rust" / "target" / "debug" / "flightstore-example"),),
            maps=True,
        ),
        Language(
            "java",
            (("mvn", "--version"), ("javac", "--version")),
            "install a JDK, 17 or newer, and Maven",
            (("mvn", "-q", "-B", "-ntp", MAVEN_REPOSITORY, "compile", "dependency:copy-dependencies"),),
            (
                "java",
                "--add-opens=java.base/java.nio=ALL-UNNAMED",
                "-cp",
                f"{CACHE}/java/target/classes:{CACHE}/java/target/dependency/*",
                "example.Main",
            ),
        ),
        Language(
            "cpp",
            (("g++", "--version"), ("make", "--version")),
            "install g++ 12 or newer, and make",
            (("make", "-s", f"PYTHON={sys.executable}"),),
            (str(CACHE / "cpp" / "flightstore-example"),),
        ),
        Language(
            "javascript",
            (("node", "--version"), ("npm", "--version")),
            "install Node.js 20 or newer, with npm",
            (("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"),),
            ("node", str(CACHE / "javascript" / "main.js")),
        ),
    )
}


def _succeeds(command: tuple[str, ...]) -> bool:
    return (
        subprocess.run(command, env=environment(), capture_output=True, check=False, timeout=60).returncode
        == 0
    )


def _checked(command: tuple[str, ...], folder: Path) -> None:
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False, timeout=900
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def _fingerprint(source: Path) -> str:
    digest = hashlib.sha256(f"{ROOT} {sys.executable}".encode())
    for folder, folders, files in os.walk(source):
        made = MADE(folder, [*folders, *files])
        folders[:] = sorted(set(folders) - made)
        for path in (Path(folder, name) for name in sorted(set(files) - made)):
            digest.update(str(path.relative_to(source)).encode() + path.read_bytes())
    return digest.hexdigest()
