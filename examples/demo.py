"""The whole thing, for real: `make demo`.

Brings up a Kubernetes on this machine, builds and loads the images, installs the chart, applies
the digits example, shows each round as it ends, and then asks the cluster and a real Prometheus
what they know. Ends non-zero if anything is missing.
"""

import pathlib
import sys
import time

import yaml

from devcluster import cluster, prometheus, report, stack
from tests.chart.expressions import expressions

NAMESPACE = "fedtrain-demo"
EXAMPLE = pathlib.Path(__file__).parent / "01-digits" / "federation.yaml"
LIMIT_SECONDS = 1200
TARGET = 0.97


def main() -> int:
    began = time.monotonic()
    cluster.up()
    images = stack.load_images()
    stack.uninstall(namespace=NAMESPACE)
    stack.install(images.controller, namespace=NAMESPACE)
    service = stack.get("service", "fedtrain", "-n", NAMESPACE)["spec"]
    target = f"{service['clusterIP']}:{service['ports'][0]['port']}"
    with prometheus.prometheus(target) as metrics:
        training = yaml.safe_load(EXAMPLE.read_text())
        training["metadata"]["namespace"] = NAMESPACE
        training["spec"]["trainer"]["image"] = images.digits
        print(stack.apply(training).strip(), flush=True)
        status = follow(training["metadata"]["name"])
        missing = show(training["metadata"]["name"], status, metrics)
    print(f"\n{time.monotonic() - began:.0f} s in all; `make down` removes the cluster")
    for line in missing:
        print(f"MISSING: {line}", file=sys.stderr)
    return 1 if missing else 0


def follow(name: str) -> dict:
    """One line per round as it ends; returns the final status."""
    told, phase = 0, ""
    began = last = time.monotonic()
    while time.monotonic() - began < LIMIT_SECONDS:
        status = stack.get("federatedtraining", name, "-n", NAMESPACE).get("status", {})
        if status.get("phase") != phase:
            phase = status.get("phase", "")
            if phase in ("Pending", "Initialising", "Blocked", "Failed"):
                print(f"{phase} {status.get('message', '')}".strip(), flush=True)
        while status.get("evaluatedRound", 0) > told:
            told += 1
            record = stack.get("federatedround", f"{name}-{told:05d}", "-n", NAMESPACE)["status"]
            names = ", ".join(p["name"] for p in record["participants"])
            now = time.monotonic()
            print(
                f"round {told:2}  accuracy {record['metrics']['accuracy']:.4f}  "
                f"{now - last:5.1f} s  {record['accepted']} of {names}",
                flush=True,
            )
            last = now
        if phase in ("Succeeded", "Failed"):
            return status
        time.sleep(0.5)
    raise report.DevclusterError(f"{name} does not end; status: {status}")


def show(name: str, status: dict, metrics: prometheus.Prometheus) -> list[str]:
    """Print what the cluster and Prometheus know; return what is missing."""
    missing = []
    accuracy = status.get("metrics", {}).get("accuracy", 0.0)
    print(f"\nfinal accuracy {accuracy:.4f} of the global model {status['globalModel']['path']}")
    if status["phase"] != "Succeeded" or accuracy < TARGET:
        missing.append(f"a success with an accuracy of {TARGET}: {status}")
    for kind in ("federatedtrainings", "federatedrounds"):
        print(f"\n$ kubectl get {kind}\n{stack.kubectl('get', kind, '-n', NAMESPACE)}", end="")
    time.sleep(5)  # Prometheus looks every two seconds; what was written last must be seen.
    print("\nas Prometheus scraped them:")
    for expression in (
        "fedtrain_training_round",
        'fedtrain_global_metric{metric="accuracy"}',
        "fedtrain_participant_samples",
        "fedtrain_aggregation_seconds",
    ):
        series = metrics.query(expression)
        if not series:
            missing.append(f"the metric {expression}")
        for labels, value in series[:5]:
            inner = ", ".join(f'{k}="{v}"' for k, v in sorted(labels.items()) if k in SHOWN)
            print(f"  {labels.get('__name__', expression)}{{{inner}}} {value:.6g}")
    answers = {
        e.text: metrics.over(e.text, seconds=900, step=5)
        for e in expressions(namespace=NAMESPACE, training=name)
    }
    unanswered = [expression for expression, series in answers.items() if not series]
    missing += [f"an answer of Prometheus to the dashboard's {e}" for e in unanswered]
    print(f"{len(answers) - len(unanswered)} of {len(answers)} dashboard expressions answered")
    return missing


SHOWN = ("training", "participant", "metric", "round")

if __name__ == "__main__":
    try:
        sys.exit(main())
    except report.DevclusterError as error:
        sys.exit(f"demo: {error}")
