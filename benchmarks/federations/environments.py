"""Where the systems live, and what their processes see: nothing of this shell, no network use."""

import hashlib
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from benchmarks.federations.tasks import Task
from fedoperator.local.machine import inherited

REQUIREMENTS = Path(__file__).parent / "requirements.txt"

WORK = ("work.py", "modules.py")
"""What is copied beside everybody's script."""


def peers() -> Path:
    """The Python of a virtual environment with Flower and FLARE, made when first asked for.

    With their own dependencies, which are not ours; torch alone comes from the environment that
    runs us, whose folder is last on its path, as it takes gigabytes.
    """
    key = hashlib.sha256(sys.version.encode() + REQUIREMENTS.read_bytes()).hexdigest()[:16]
    cache = Path(os.environ.get("FEDTRAIN_CACHE") or "~/.cache/fedtrain").expanduser()
    folder = cache / f"rounds-peers-{key}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        print(f"making {folder} (a minute)", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", REQUIREMENTS], check=True)
        (folder / "complete").touch()
    # Renewed each time: the environment that runs us may have moved.
    packages = next((folder / "lib").glob("python3*/site-packages"))
    (packages / "zz-torch.pth").write_text(f"{_our_packages()}\n")
    return python


def version(package: str) -> str:
    """That requirements.txt pins."""
    found = re.search(rf"^{package}==(\S+)", REQUIREMENTS.read_text(), re.M)
    assert found is not None
    return found[1]


def clean(folder: Path, task: Task, *, ours: bool = False) -> dict[str, str]:
    """For every process of a task; makes what `work` needs in the folder."""
    (folder / "stamps").mkdir()
    for name in WORK:
        shutil.copy(Path(__file__).parent / name, folder)
    shutil.copy(digits(), folder)
    environment = inherited()
    # As for a user: what is installed is compiled once, and not by every process of every round.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    if not ours:
        environment.pop("PYTHONPATH", None)
    return {
        **environment,
        **task.environment,
        "BENCH_FOLDER": str(folder),
        "HOME": str(folder),
        "TMPDIR": str(folder),
    }


def digits() -> Path:
    """scikit-learn's table of images."""
    package = importlib.util.find_spec("sklearn")
    assert package is not None
    assert package.submodule_search_locations is not None
    return Path(package.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _our_packages() -> Path:
    torch = importlib.util.find_spec("torch")
    assert torch is not None
    assert torch.origin is not None
    return Path(torch.origin).parents[1]
