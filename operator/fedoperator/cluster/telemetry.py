"""What Prometheus reads: of the trainings as last seen, and of the operator itself.

A training's series are rendered from its last look at every scrape. So they vanish with it, and
come back with the first look after a restart; nothing is counted here that a record does not hold.
"""

from collections.abc import Callable

import prometheus_client
from prometheus_client.registry import CollectorRegistry

from fedoperator.cluster.series import Seen, TrainingSeries
from fedoperator.cluster.workqueue import Key

GAUGES = {
    "queue_keys": "Trainings known to the queue.",
    "queue_depth": "Trainings due to be looked at.",
    "queue_oldest_seconds": "For how long the oldest training has been due or under way.",
    "leader": "1 while this process holds the lease.",
    "event_loop_lag_seconds": "By how much the event loop was late of late.",
    "watch_age_seconds": "Since the watch opened longest ago was opened.",
}
"""Of the operator, those that are asked for at every scrape; name without the prefix → meaning."""


class Telemetry:
    """Everything that is measured, in a registry of its own."""

    def __init__(self) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry(auto_describe=False)
        self._seen: dict[Key, Seen] = {}
        registry.register(TrainingSeries(self._seen))
        prometheus_client.ProcessCollector(registry=registry)
        self._waits = prometheus_client.Histogram(
            "fedtrain_operator_queue_duration_seconds",
            "Time for which a training was due before a look at it began.",
            buckets=(0.001, 0.01, 0.1, 0.3, 1, 3, 10, 30, 100),
            registry=registry,
        )
        self._retries = prometheus_client.Counter(
            "fedtrain_operator_queue_retries_total",
            "Looks begun because the one before had failed.",
            registry=registry,
        )
        self._looks = prometheus_client.Histogram(
            "fedtrain_operator_look_duration_seconds",
            "Time taken by one look at a training.",
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
            registry=registry,
        )
        self._failures = prometheus_client.Counter(
            "fedtrain_operator_look_failures_total",
            "Looks that ended with an error, by its reason; Conflict is harmless.",
            ["reason"],
            registry=registry,
        )
        self._requests = prometheus_client.Counter(
            "fedtrain_operator_api_requests_total",
            "Requests to the API server, by HTTP method, resource and code (0: no answer).",
            ["verb", "resource", "code"],
            registry=registry,
        )
        self._latency = prometheus_client.Histogram(
            "fedtrain_operator_api_request_duration_seconds",
            "Time until the API server's answer was read.",
            ["verb"],
            buckets=(0.005, 0.02, 0.1, 0.5, 2, 10),
            registry=registry,
        )
        self._writes = prometheus_client.Counter(
            "fedtrain_operator_writes_total",
            "Writes made for trainings: record, status, create, delete, event.",
            ["what"],
            registry=registry,
        )
        for what in ("record", "status", "create", "delete", "event"):
            self._writes.labels(what)

    def seen(self, key: Key, seen: Seen) -> None:
        self._seen[key] = seen

    def forgotten(self, key: Key) -> None:
        self._seen.pop(key, None)

    def waited(self, seconds: float, again: bool) -> None:
        self._waits.observe(seconds)
        if again:
            self._retries.inc()

    def looked(self, seconds: float, failed: str | None) -> None:
        self._looks.observe(seconds)
        if failed is not None:
            self._failures.labels(failed).inc()

    def requested(self, verb: str, resource: str, code: str, seconds: float) -> None:
        self._requests.labels(verb, resource, code).inc()
        self._latency.labels(verb).observe(seconds)

    def wrote(self, what: str) -> None:
        self._writes.labels(what).inc()

    def gauge(self, name: str, value: Callable[[], float]) -> None:
        """One of GAUGES, and who knows it."""
        full = f"fedtrain_operator_{name}"
        gauge = prometheus_client.Gauge(full, GAUGES[name], registry=self.registry)
        gauge.set_function(value)

    def render(self) -> bytes:
        """The text format of Prometheus."""
        return prometheus_client.generate_latest(self.registry)
