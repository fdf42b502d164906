"""A task by FLARE's simulator, which is the quickest way that FLARE offers on one machine."""

import shutil
import subprocess
import time
from pathlib import Path

from benchmarks.federations import environments, watching
from benchmarks.federations.tasks import Marks, Measured, Task, measured

HERE = Path(__file__).parent


def run(task: Task, folder: Path) -> Measured:
    """total: from the command to the final model, after which it takes its time to end."""
    for name in ("flare_job.py", "flare_client.py"):
        shutil.copy(HERE / name, folder)
    environment = environments.clean(folder, task)
    command = [str(environments.peers()), "flare_job.py", str(task.invited), str(task.rounds)]
    with watching.Watch() as watch:
        began = time.time()
        process = watching.start(command, folder, environment, "flare")
        watching.until(lambda: process.poll() is not None, task.limit, f"FLARE with {task.name}")
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    models = (folder / "flare").glob("*/server/simulate_job/**/*")
    saved = max(p.stat().st_mtime for p in models if p.suffix in (".pt", ".npy"))
    marks = Marks.of_stamps(folder / "stamps")
    return measured(
        "FLARE",
        task,
        marks,
        total=saved - began,
        peak=watch.peak,
        processor=watch.processor,
    )
