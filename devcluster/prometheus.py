"""A real Prometheus, from Debian's package, that scrapes what a demo or a test names."""

import collections.abc
import contextlib
import json
import pathlib
import socket
import subprocess
import tempfile
import typing
import urllib.parse
import urllib.request

from devcluster import api, packages, report

_CONFIGURATION = """\
global: {{scrape_interval: 2s, scrape_timeout: 2s}}
scrape_configs:
- job_name: fedtrain
  honor_labels: true
  static_configs: [{{targets: [{targets}]}}]
"""

Sample = tuple[dict[str, str], float]


class Prometheus:
    """A running server; `query` asks it as Grafana would."""

    def __init__(self, port: int) -> None:
        self._port = port

    def query(self, expression: str) -> list[Sample]:
        """The instant vector of an expression: (labels, value) of each series."""
        parameters = urllib.parse.urlencode({"query": expression})
        url = f"http://127.0.0.1:{self._port}/api/v1/query?{parameters}"
        with urllib.request.urlopen(url, timeout=10) as response:
            answer: dict[str, typing.Any] = json.load(response)
        if answer["data"]["resultType"] != "vector":
            return [({}, float(answer["data"]["result"][1]))]
        return [(r["metric"], float(r["value"][1])) for r in answer["data"]["result"]]


@contextlib.contextmanager
def prometheus(*targets: str) -> collections.abc.Iterator[Prometheus]:
    """Scrape host:port targets every two seconds until the block ends; nothing is left behind."""
    packages.ensure()
    with tempfile.TemporaryDirectory() as folder:
        home = pathlib.Path(folder)
        configuration = home / "prometheus.yaml"
        configuration.write_text(_CONFIGURATION.format(targets=", ".join(targets)))
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
