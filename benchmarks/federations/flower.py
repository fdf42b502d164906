"""A task by Flower's deployment engine: a SuperLink, a SuperNode each, `flwr run`; on loopback."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from benchmarks.federations import environments, watching
from benchmarks.federations.tasks import Marks, Measured, Task, measured
from fedoperator.local.machine import free_port

HERE = Path(__file__).parent / "flower_app"
PROJECT = """
[project]
name = "bench"
version = "1.0.0"
description = "A task of benchmarks/rounds.py"
license = "Apache-2.0"
dependencies = ["flwr=={version}"]

[tool.flwr.app]
publisher = "fedtrain"

[tool.flwr.app.components]
serverapp = "server_app:app"
clientapp = "client_app:app"

[tool.flwr.app.config]
invited = {invited}
rounds = {rounds}
"""
CONFIG = """
[superlink]
default = "bench"

[superlink.bench]
address = "127.0.0.1:{port}"
insecure = true
"""


def run(task: Task, folder: Path) -> Measured:
    """total: from `flwr run` to the saved model, the nodes having been up before."""
    python = environments.peers()
    app, home = folder / "app", folder / "home"
    shutil.copytree(HERE, app)
    version = environments.version("flwr")
    project = PROJECT.format(version=version, invited=task.invited, rounds=task.rounds)
    (app / "pyproject.toml").write_text(project)
    home.mkdir()
    port = free_port()
    (home / "config.toml").write_text(CONFIG.format(port=port))
    environment = {
        **environments.clean(folder, task),
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "PATH": os.pathsep.join([str(python.parent), os.environ["PATH"]]),
    }
    tool = str(python.parent)
    with watching.Watch() as watch:
        link = ["--insecure", "--disable-runtime-dependency-installation", "--port", str(port)]
        watching.start([f"{tool}/flower-superlink", *link], folder, environment, "superlink")
        log = folder / "superlink.log"
        watching.until(lambda: environments.listens(port), 60, "the start of Flower's SuperLink")
        for part in range(task.participants):
            node = ["--insecure", "--superlink", f"127.0.0.1:{port}", "--port", str(free_port())]
            config = ["--node-config", f"partition-id={part}"]
            name = f"supernode-{part}"
            watching.start([f"{tool}/flower-supernode", *node, *config], folder, environment, name)
        watching.until(
            lambda: log.read_text().count("Activated node") == task.participants,
            60,
            "the start of Flower's SuperNodes",
        )
        began = time.time()
        subprocess.run(
            [f"{tool}/flwr", "run", str(app), "bench"],
            cwd=folder,
            env=environment,
            check=True,
            timeout=task.limit,
            stdout=subprocess.DEVNULL,
        )
        result = folder / "result.json"
        watching.until(result.exists, task.limit, f"Flower with {task.name} (see {log})")
        found = json.loads(result.read_text())
    marks = Marks.of_stamps(folder / "stamps")
    return measured(
        "Flower",
        task,
        marks,
        total=found["finished"] - began,
        peak=watch.peak,
        processor=watch.processor,
        accuracy=found["accuracy"],
    )
