"""A run watched by a real Prometheus: every metric, every question of the dashboards, every alert.

The operator is a process on a real API server; Job controller and kubelet are played. One training
goes through everything that an alert tells of, waits until it is told, and goes on.
"""

import asyncio
import math
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from devcluster.prometheus import Course, Prometheus, prometheus
from devcluster.replica import Replica
from fedoperator.cluster import api
from fedoperator.rounds import observed
from manifests import metrics
from tests.chart import expressions
from tests.cluster import playing
from tests.cluster.stage import NAME, Object, Stage, a_training
from tests.conftest import ROOT

pytestmark = pytest.mark.apiserver

RULES = ROOT / "charts" / "fedtrain" / "alerts" / "rules.yaml"
ALERTS = re.findall(r"- alert: (\w+)", RULES.read_text())
EVERY = 2.0
"""Seconds between two scrapes, and between two looks at the rules."""
LIMIT = 60.0
"""Seconds for each step of the run."""


@dataclass(kw_only=True)
class Watched:
    """What Prometheus knew in the end. answers: of the dashboards, by panel and expression."""

    names: set[str]
    firing: list[Course]
    answers: dict[tuple[str, str], list[Course]]
    scraped: str
    left: list[object]


@dataclass(kw_only=True)
class Run:
    """The one training. lost: participants whose training fails in this round."""

    stage: Stage
    prometheus: Prometheus
    holds: bool = False
    lost: dict[int, str] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)

    async def until(self, holds: Callable[[], object], what: str) -> None:
        """Play all Jobs until it holds."""
        deadline = time.monotonic() + LIMIT
        while not holds():
            assert time.monotonic() < deadline, f"not within {LIMIT:.0f} s: {what}"
            for name, job in (await self.stage.jobs()).items():
                await self._play(name, job)
            await asyncio.sleep(0.1)

    def fires(self, *alerts: str) -> Callable[[], bool]:
        def now() -> bool:
            firing = self.prometheus.query('ALERTS{alertstate="firing"}')
            return {labels["alertname"] for labels, _ in firing} == set(alerts)

        return now

    async def _play(self, name: str, job: Object) -> None:
        if (job.get("status") or {}).get("conditions") or "deletionTimestamp" in job["metadata"]:
            return
        if not (job.get("status") or {}).get("ready"):
            await self.stage.ready(name)
            return
        role, task = job["metadata"]["labels"][observed.ROLE_LABEL], playing.task(job)
        if role == "train" and self.holds:
            return
        number = task.get("round", 0)
        fails = role == "train" and self.lost.get(number) == task["participant"]
        if fails and number not in self.failed:
            self.failed.add(number)
            await self.stage.fail(name, 75, "ScriptFailed", "as it was to")
            return
        result = self.stage.plausible(job)
        if role == "aggregate":
            result |= aggregated(number, [c[0] for c in task["candidates"]])
        await self.stage.succeed(name, result)


def aggregated(number: int, candidates: list[str]) -> Object:
    """After round 1 hardly any room is left on the exchange, and north's update was unsound."""
    rejected = [name for name in candidates if (number, name) == (1, "north")]
    accepted = [name for name in candidates if name not in rejected]
    return {
        "verdicts": "".join("a" if name in rejected else "." for name in candidates),
        "reasons": {"a": "NotFinite"},
        "exchangeFree": 5 << 20 if number == 1 else 60 << 20,
        "exchangeSize": 100 << 20,
        "spread": {"norms": [1.0, 2.0, 3.0], "cosines": [0.7, 0.8, 0.9]},
        "norms": [1.0 + number] * len(accepted),
        "cosines": [0.9] * len(accepted),
    }


@pytest.fixture(scope="module")
def watched(kubectl, tmp_path_factory) -> Watched:
    return asyncio.run(lived(kubectl.kubeconfig, tmp_path_factory.mktemp("watched")))


async def lived(kubeconfig: Path, folder: Path) -> Watched:
    rules = folder / "rules.yaml"
    rules.write_text(re.sub(r"for: \w+", "for: 1s", RULES.read_text()))
    session = api.Api(await api.configuration(kubeconfig))
    stage = Stage(session)
    await stage.open()
    log = folder / "operator.log"
    operator = Replica(kubeconfig, log, NAMESPACE=stage.namespace, LEASE_NAMESPACE=stage.namespace)
    try:
        with prometheus(f"127.0.0.1:{operator.port}", rules=[rules], every="2s") as server:
            run = Run(stage=stage, prometheus=server, lost={2: "north", 3: "west"})
            leads = "fedtrain_operator_leader == 1 unless on () ALERTS"
            await run.until(lambda: server.query(leads), "the operator leads, and all is quiet")
            began = time.monotonic()
            scraped = await everything_happens(run, operator)
            seconds = time.monotonic() - began
            asked = expressions.expressions(stage.namespace, NAME, interval="8s")
            return Watched(
                names=server.names(),
                firing=server.over('ALERTS{alertstate="firing"}', seconds),
                answers={(e.panel, e.text): server.over(e.text, seconds) for e in asked},
                scraped=scraped,
                left=server.query("ALERTS"),
            )
    finally:
        operator.process.send_signal(signal.SIGCONT)
        operator.kill()
        await session.close()


async def everything_happens(run: Run, operator: Replica) -> str:
    """What was scraped when the most was to be seen."""
    stage, fires = run.stage, run.fires
    name = f"{NAME}-00000"
    spec = {"training": NAME, "round": 0, "invited": ["north"]}
    stranger = {
        "apiVersion": "fedtrain.dev/v1alpha1",
        "kind": "FederatedRound",
        "metadata": {"name": name},
        "spec": spec,
    }
    await stage.api.request("POST", stage.path("federatedrounds"), stranger)
    gpus = {"image": "digits:1", "command": ["x"], "resources": {"limits": {"nvidia.com/gpu": 2}}}
    await stage.apply(
        a_training(
            ["north", "south", "west"],
            rounds=4,
            retries=0,
            trainer=gpus,
            quorum={"minimum": 2},
            quarantine={"after": 2, "rounds": 1},
            evaluation={"by": "Participants"},
        )
    )
    await run.until(fires("FedtrainRoundStuck"), "a record of somebody else blocks the training")
    await stage.delete("federatedrounds", name)
    await run.until(lambda: operator.metric("fedtrain_training_round") == 1, "round 1")
    await run.until(lambda: operator.metric("fedtrain_training_round") == 2, "round 2")
    run.holds = True
    rejected = ("FedtrainAggregationRejected", "FedtrainExchangeNearlyFull")
    await run.until(fires(*rejected), "an update was rejected, and the exchange is nearly full")
    run.holds = False
    await run.until(lambda: operator.metric("fedtrain_training_round") == 3, "round 3")
    run.holds = True
    await run.until(fires("FedtrainParticipantQuarantined"), "north has lost two rounds")
    run.holds = False
    await run.until(lambda: 3 in run.failed, "west fails, too")
    run.holds = True
    await run.until(fires("FedtrainQuorumMissed"), "one update is no quorum")
    scraped = operator.get("/metrics")[1]
    run.holds = False
    succeeded = 'phase="Succeeded"'
    await run.until(lambda: operator.metric("fedtrain_training_phase", succeeded) == 1, "the end")
    await run.until(fires(), "nothing is left to tell")
    operator.process.send_signal(signal.SIGSTOP)
    await run.until(fires("FedtrainOperatorNotReconciling"), "the operator hangs")
    operator.process.send_signal(signal.SIGCONT)
    await run.until(lambda: not run.prometheus.query("ALERTS"), "it goes on")
    return scraped


def stretches(courses: list[Course], alert: str) -> list[tuple[float, float]]:
    """From when to when an alert was firing, for whomever."""
    of_it = [course for labels, course in courses if labels["alertname"] == alert]
    times = sorted({moment for course in of_it for moment in course})
    found: list[tuple[float, float]] = []
    for moment in times:
        if found and moment - found[-1][1] < 1.5 * EVERY:
            found[-1] = found[-1][0], moment
        else:
            found.append((moment, moment))
    return found


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_fires_once_and_ends_once(watched, alert):
    fired = stretches(watched.firing, alert)
    assert len(fired) == 1, fired
    assert watched.left == []


def test_every_metric_of_the_table_is_seen_in_a_real_scrape(watched):
    parts = {"histogram": "_bucket"}
    wanted = {f"{name}{parts.get(kind, '')}" for name, kind, *_ in metrics.rows()}
    assert wanted - watched.names == set()


def test_no_metric_of_ours_is_missing_in_the_table(watched):
    ours = {re.sub("_(bucket|sum|count)$", "", n) for n in watched.names if "fedtrain" in n}
    assert ours - {name for name, *_ in metrics.rows()} == set()


def test_every_question_of_the_dashboards_has_an_answer(watched):
    silent = [
        asked
        for asked, answer in watched.answers.items()
        if not any(not math.isnan(value) for _, course in answer for value in course.values())
    ]
    assert silent == []
    assert len(watched.answers) > 50


def test_promtool_has_nothing_to_say_about_the_scrape(watched):
    promtool = shutil.which("promtool")
    assert promtool is not None, "it comes with the prometheus that has run"
    check = subprocess.run(
        [promtool, "check", "metrics"], input=watched.scraped, capture_output=True, text=True
    )
    assert (check.returncode, check.stdout, check.stderr) == (0, "", "")
    assert f'training="{NAME}"' in watched.scraped
