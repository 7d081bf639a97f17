"""The peers' environments: made by pip where they are wanted for the first time, found again afterwards.

They lie in .cache/peers, unless told otherwise: git ignores it, and `make clean` removes it. A stamp that is
written last says of what an environment was made; one that is half-made, or made of something else, is made
anew.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from harness import say

CACHE = Path(__file__).parents[1] / ".cache"
ROOT = CACHE / "peers"
STAMP = "made-of"
REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "plasma": ("pyarrow==11.0.0", "numpy<2", "pandas<2.2"),
    "vineyard": ("vineyard==0.24.2", "pyarrow", "numpy", "pandas"),
    "ray": ("ray==2.60.0", "pyarrow", "numpy", "pandas"),
    "iceoryx2": ("iceoryx2==0.10.0", "pyarrow", "numpy", "pandas"),
}
NEWEST = {"plasma": (3, 11)}
"""The last Python that a peer has wheels for."""


class LeftOut(Exception):
    """A peer cannot be measured here; says why."""


def environment(name: str, root: Path) -> Path:
    """The Python of a peer's environment below `root`, made if need be.

    Raises:
        LeftOut: it cannot be made.
    """
    place = root / name
    wanted = "\n".join((choose_python(NEWEST.get(name)), *REQUIREMENTS[name], str(place)))
    python = place / "bin" / "python"
    stamp = place / STAMP
    if stamp.exists() and stamp.read_text() == wanted and python.exists():
        return python
    say(f"{name}: installing {', '.join(REQUIREMENTS[name])}")
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    _run([wanted.partition("\n")[0], "-m", "venv", str(place)])
    _run([str(python), "-m", "pip", "install", "--quiet", "--prefer-binary", *REQUIREMENTS[name]])
    stamp.write_text(wanted)
    return python


def choose_python(newest: tuple[int, int] | None) -> str:
    """This Python, or where it is too new one that is not.

    Raises:
        LeftOut: there is none.
    """
    if newest is None or sys.version_info[:2] <= newest:
        return sys.executable
    name = f"python{newest[0]}.{newest[1]}"
    found = shutil.which(name)
    if found is None:
        raise LeftOut(f"it has wheels for Python up to {newest[0]}.{newest[1]} only, and there is no {name}")
    return found


def _run(command: Sequence[str]) -> None:
    environment = {"PIP_CACHE_DIR": str(CACHE / "pip"), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=environment | os.environ,
        check=False,
    )
    if done.returncode:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise LeftOut(f"cannot be installed: {said[-1] if said else done.returncode}")
