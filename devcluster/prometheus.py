"""A real Prometheus, from Debian's package, that scrapes what a demo or a test names."""

import collections.abc
import contextlib
import json
import pathlib
import socket
import subprocess
import tempfile
import time
import typing
import urllib.parse
import urllib.request

from devcluster import api, packages, report

_CONFIGURATION = """\
global: {{scrape_interval: {every}, scrape_timeout: {every}, evaluation_interval: {every}}}
rule_files: {rules}
scrape_configs:
- job_name: fedtrain
  honor_labels: true
  static_configs: [{{targets: [{targets}]}}]
"""

Sample = tuple[dict[str, str], float]
Course = tuple[dict[str, str], dict[float, float]]


class Prometheus:
    """A running server; `query` asks it as Grafana would."""

    def __init__(self, port: int) -> None:
        self._port = port

    def query(self, expression: str) -> list[Sample]:
        """The instant vector of an expression: (labels, value) of each series."""
        parameters = urllib.parse.urlencode({"query": expression})
        data = self._ask(f"query?{parameters}")
        if data["resultType"] != "vector":
            return [({}, float(data["result"][1]))]
        return [(r["metric"], float(r["value"][1])) for r in data["result"]]

    def over(self, expression: str, seconds: float, step: float = 1) -> list[Course]:
        """The course of each series of an expression until now: (labels, {time: value})."""
        now = time.time()
        asked = {"query": expression, "start": now - seconds, "end": now, "step": step}
        data = self._ask(f"query_range?{urllib.parse.urlencode(asked)}")
        return [(r["metric"], {float(t): float(v) for t, v in r["values"]}) for r in data["result"]]

    def names(self) -> set[str]:
        """Of all metrics that were ever scraped or recorded."""
        return set(self._ask("label/__name__/values"))

    def _ask(self, path: str) -> typing.Any:
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}"
        with urllib.request.urlopen(url, timeout=10) as response:
            return json.load(response)["data"]


@contextlib.contextmanager
def prometheus(
    *targets: str, rules: collections.abc.Sequence[pathlib.Path] = (), every: str = "2s"
) -> collections.abc.Iterator[Prometheus]:
    """Scrape host:port targets until the block ends; nothing is left behind.

    rules: files of rules. every: how often to scrape, and to evaluate the rules.
    """
    packages.ensure()
    with tempfile.TemporaryDirectory() as folder:
        home = pathlib.Path(folder)
        configuration = home / "prometheus.yaml"
        files = json.dumps([str(path.absolute()) for path in rules])
        text = _CONFIGURATION.format(targets=", ".join(targets), rules=files, every=every)
        configuration.write_text(text)
        port = _free_port()
        log = home / "log"
        with log.open("w") as output:
            server = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={configuration}",
                    f"--storage.tsdb.path={home / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdout=output,
                stderr=output,
            )
        try:
            report.wait_for(
                "prometheus",
                lambda: api.healthy("127.0.0.1", port, "/-/ready"),
                seconds=30,
                log=log,
                alive=lambda: server.poll() is None,
            )
            yield Prometheus(port)
        finally:
            server.terminate()
            try:
                server.wait(timeout=10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait(timeout=10)


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
