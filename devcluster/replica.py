"""The operator as a process of this machine, `python -m fedoperator`, for any API server."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).parents[1]
ANSWERS = 5.0
"""Seconds for one answer of its HTTP server."""


class Replica:
    """One, started when made, of the checkout at `root`.

    settings: as `fedoperator.settings` reads them, without the prefix. log: is appended to.
    """

    def __init__(
        self,
        kubeconfig: pathlib.Path,
        log: pathlib.Path,
        root: pathlib.Path = ROOT,
        **settings: str,
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{root}/operator:{root}/trainer",
            "PYTHONDONTWRITEBYTECODE": "1",
            "KUBECONFIG": str(kubeconfig),
            "FEDTRAIN_CONTROLLER_IMAGE": "ctl:1",
            "FEDTRAIN_HOST": "127.0.0.1",
            "FEDTRAIN_PORT": str(self.port),
            **{f"FEDTRAIN_{name}": value for name, value in settings.items()},
        }
        self.log = log
        with log.open("a") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fedoperator"], env=environment, stdout=output, stderr=output
            )

    def get(self, path: str) -> tuple[int, str]:
        """Status and body; status 0 while nobody answers."""
        url = f"http://127.0.0.1:{self.port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=ANSWERS) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def metric(self, name: str, label: str = "") -> float:
        """The sum of a metric's series, those with `label="value"`; 0 while it serves none."""
        wanted = rf"{{.*{re.escape(label)}.*}}" if label else "(?:{.*})?"
        found = re.findall(
            rf"^{re.escape(name)}{wanted} (\S+)$", self.get("/metrics")[1], re.MULTILINE
        )
        return sum(map(float, found))

    def stop(self) -> tuple[int, float]:
        """As a rollout does it, so that the lease is released: exit code, and seconds taken.

        Raises subprocess.TimeoutExpired after 20 s.
        """
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=20)
        return code, time.monotonic() - started

    def kill(self) -> None:
        """At once, if it is still there."""
        self.process.kill()
        self.process.wait(timeout=20)
