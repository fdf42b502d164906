"""The programs of `release/tools.txt`, in an environment in the cache."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
WANTED = ROOT / "release" / "tools.txt"


def folder() -> Path:
    """Where they are, or would be: keyed by what they are made of."""
    key = hashlib.sha256((sys.version + WANTED.read_text()).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("FEDTRAIN_CACHE") or "~/.cache/fedtrain").expanduser()
    return cache / f"release-{key}"


def program(name: str) -> Path:
    """One of them, installed if need be. Raises CalledProcessError."""
    place = folder()
    place.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{place}.lock", "w") as lock:  # two at the same time would remove each other's
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "complete").exists():
            shutil.rmtree(place, ignore_errors=True)
            venv.create(place, with_pip=True)
            install = ["install", "--quiet", "--disable-pip-version-check", "-r", WANTED]
            subprocess.run([place / "bin" / "python", "-m", "pip", *install], check=True)
            (place / "complete").touch()
    return place / "bin" / name
