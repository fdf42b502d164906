"""Whatever a module is wrapped in or sharded by, it is one model: the same bytes, there and back."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fedtrain.contract import ROOT_ENV, SCRATCH_ENV, TASK_ENV
from tests.trainer import random_models

pytestmark = pytest.mark.processes
ROOT = Path(__file__).resolve().parents[2]


def torchrun(processes: int, program: Path, *arguments: Any) -> str:
    """Run a program with ranks of its own; what it said."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(processes), str(program), *map(str, arguments)]
    paths = f"{ROOT / 'trainer'}:{ROOT}"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 64 bytes, and an environment that is put back."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    for name in (ROOT_ENV, SCRATCH_ENV, TASK_ENV):
        monkeypatch.setenv(name, "")
    random_models.small_tiles(64, monkeypatch.setattr)


@pytest.mark.parametrize(("processes", "seeds"), [(2, range(14)), (4, range(14, 36))])
def test_ranks_publish_and_load_what_a_plain_process_does(
    tmp_path: Path, small: None, processes: int, seeds: range
) -> None:
    folder = tmp_path / "ranks"
    torchrun(processes, Path(random_models.__file__), folder, *seeds)
    told = json.loads((folder / "told.json").read_text())
    for seed in seeds:
        assert told[str(seed)] == random_models.life(tmp_path / f"plain-{seed}", seed), seed
