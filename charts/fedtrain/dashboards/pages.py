"""What Grafana's two pages show: a training, and the operator. `generate.py` makes JSON of it.

Two replicas may know a training for a moment, so every expression takes the `max` over them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

OF_TRAINING = '{namespace="$namespace",training="$training"}'
EACH = "participant"
OF_METRIC = '{namespace="$namespace",training="$training",metric=~"$metric"}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One picture. queries: expression → legend; right: the legends drawn on an axis of their own.

    kind: timeseries, stat, gauge or statetimeline. below: whether values may be below zero, or far
    above it all. named: a stat shows its legend and not its value.
    """

    title: str
    says: str
    queries: Mapping[str, str]
    kind: str = "timeseries"
    unit: str = "short"
    width: int = 8
    height: int = 8
    stacked: bool = False
    below: bool = False
    named: bool = False
    right: tuple[str, ...] = field(default=())


def best(metric: str, by: str = "", of: str = OF_TRAINING) -> str:
    """The series of a training without the labels of the process that exported it."""
    return f"max by ({by}) (fedtrain_{metric}{of})" if by else f"max(fedtrain_{metric}{of})"


def rate(metric: str, by: str = "") -> str:
    of = f"(rate(fedtrain_operator_{metric}[$__rate_interval]))"
    return f"sum by ({by}) {of}" if by else f"sum{of}"


def quantiles(metric: str) -> dict[str, str]:
    bucket = rate(f"{metric}_seconds_bucket", "le")
    return {
        f"histogram_quantile({share}, {bucket})": name
        for share, name in ((0.5, "median"), (0.99, "99 %"))
    }


def or_none(expression: str, label: str) -> str:
    """With a series that says `none` where there is nothing to show."""
    return f'{expression} or on() label_replace(vector(0), "{label}", "none", "", "")'


def of_each(
    title: str, says: str, metric: str, unit: str = "short", *, below: bool = False
) -> Panel:
    """A line for each participant."""
    queries = {best(metric, EACH): "{{participant}}"}
    return Panel(title=title, says=says, queries=queries, unit=unit, width=6, below=below)


def number(title: str, says: str, query: str, unit: str = "short") -> Panel:
    return Panel(
        title=title,
        says=says,
        queries={query: title.lower()},
        kind="stat",
        unit=unit,
        width=4,
        height=4,
    )


def word(title: str, says: str, query: str, label: str) -> Panel:
    """The value of a label, as a word."""
    queries = {query: f"{{{{{label}}}}}"}
    return Panel(
        title=title, says=says, queries=queries, kind="stat", width=4, height=4, named=True
    )


PHASE = f"{best('training_phase', 'phase')} == 1"

TRAINING: Mapping[str, tuple[Panel, ...]] = {
    "How far": (
        word("Phase", "Blocked is not the end: the status says what to do.", PHASE, "phase"),
        word(
            "Reason",
            "Why it is where it is; the status has the whole sentence.",
            or_none(best("training_reason", "reason"), "reason"),
            "reason",
        ),
        Panel(
            title="Rounds published",
            says="Of those asked for; a stop rule may end it earlier.",
            queries={f"{best('global_model_round')} / {best('training_rounds')}": "published"},
            kind="gauge",
            unit="percentunit",
            width=4,
            height=4,
        ),
        number("Round", "In progress; 0 makes the initial model.", best("training_round")),
        number("Quorum misses", "Of the round in progress.", best("round_quorum_misses")),
        number(
            "Started",
            "When the training was first looked at.",
            f"{best('training_started_timestamp_seconds')} * 1000",
            "dateTimeFromNow",
        ),
        Panel(
            title="Rounds",
            says="In progress, published and evaluated.",
            queries={
                best("training_round"): "in progress",
                best("global_model_round"): "published",
                best("global_metric_round"): "evaluated",
            },
        ),
        Panel(
            title="Phases",
            says="Which one, over time.",
            queries={PHASE: "{{phase}}"},
            kind="statetimeline",
        ),
        Panel(
            title="Age of the round",
            says="Since the round in progress began; nothing between two rounds.",
            queries={f"time() - {best('round_started_timestamp_seconds')}": "age"},
            unit="s",
        ),
    ),
    "How good": (
        Panel(
            title="Global model",
            says="Metrics of the last evaluated global model; on the right, which round's it is.",
            queries={
                best("global_metric", "metric", OF_METRIC): "{{metric}}",
                best("global_metric_round"): "round",
            },
            width=12,
            below=True,
            right=("round",),
        ),
        Panel(
            title="Participants' metrics",
            says="What each of them last reported, while it trained or evaluated.",
            queries={
                best("participant_metric", "participant, role, metric", OF_METRIC): (
                    "{{participant}} {{role}} {{metric}}"
                )
            },
            width=12,
            below=True,
        ),
    ),
    "Who": (
        Panel(
            title="Participants of the round",
            says="By state, in the round in progress.",
            queries={
                best("round_participants", "state"): "{{state}}",
                best("round_quarantined"): "Quarantined",
            },
            stacked=True,
        ),
        Panel(
            title="Lost",
            says="Participants that the round in progress lost, by reason, of those invited; and"
            " attempts beyond the first.",
            queries={
                or_none(best("round_lost_participants", "reason"), "reason"): "{{reason}}",
                best("round_invited_participants"): "invited",
                best("round_retries"): "retries",
            },
        ),
        Panel(
            title="Lost and left out",
            says="Rounds lost in a row, and the last round that a participant is left out of.",
            queries={
                or_none(best("participant_rounds_lost", EACH), EACH): "{{participant}} lost",
                or_none(best("participant_quarantined_until_round", EACH), EACH): (
                    "{{participant}} out until"
                ),
            },
        ),
        of_each("Share of the mean", "Their sum is 1.", "participant_weight", "percentunit"),
        of_each("Samples", "What each participant last trained on.", "participant_samples"),
        of_each("Training time", "The slowest sets the pace.", "participant_seconds", "s"),
        of_each(
            "Failed attempts", "That count against the retries.", "participant_attempt_failures"
        ),
    ),
    "Updates": (
        of_each(
            "Norm", "Of each one's last accepted update.", "participant_update_norm", below=True
        ),
        of_each(
            "Cosine",
            "Between each one's last accepted update and what the round combined: one far below the"
            " others pulls elsewhere.",
            "participant_update_cosine",
            below=True,
        ),
        Panel(
            title="Norms and cosines",
            says="Least, median and most, of any number of updates; cosines on the right.",
            queries={
                best("aggregation_update_norm", "of"): "norm, {{of}}",
                best("aggregation_update_cosine", "of"): "cosine, {{of}}",
            },
            width=6,
            below=True,
            right=("cosine, least", "cosine, median", "cosine, most"),
        ),
        Panel(
            title="Accepted and rejected",
            says="Updates of the last aggregation.",
            queries={best("aggregation_updates", "verdict"): "{{verdict}}"},
            width=6,
            stacked=True,
        ),
    ),
    "What it costs": (
        Panel(
            title="Phases of the last round",
            says="Where its time went; Evaluating overlaps the next round.",
            queries={
                best("round_duration_seconds", "phase"): "{{phase}}",
                best("round_overhead_seconds"): "not training",
            },
            unit="s",
        ),
        Panel(
            title="GPU-seconds",
            says="Of the last round: held by pods, and used by training. Without GPUs: none.",
            queries={or_none(best("round_accelerator_seconds", "use"), "use"): "{{use}}"},
            unit="s",
        ),
        Panel(
            title="Exchange",
            says="Room on the volume after the last aggregation.",
            queries={
                best("exchange_free_bytes"): "free",
                best("exchange_size_bytes"): "size",
            },
            unit="bytes",
        ),
        Panel(
            title="Aggregation's time and memory",
            says="Inspection and fold; a tile per participant, whatever the size of the model.",
            queries={
                best("aggregation_seconds"): "seconds",
                best("aggregation_peak_memory_bytes"): "peak memory, bytes",
            },
            right=("peak memory, bytes",),
        ),
        Panel(
            title="Bytes read",
            says="From update files by the last aggregation, and of each on average.",
            queries={
                best("aggregation_bytes"): "all",
                best("aggregation_update_bytes"): "each",
            },
            unit="bytes",
        ),
        Panel(
            title="Aggregation's speed",
            says="Bytes of updates through the time from start to published model.",
            queries={f"{best('aggregation_bytes')} / {best('aggregation_seconds')}": "speed"},
            unit="Bps",
        ),
    ),
}

OPERATOR: Mapping[str, tuple[Panel, ...]] = {
    "Queue": (
        Panel(
            title="Trainings",
            says="Known and due, and for how long the oldest has waited.",
            queries={
                "sum(fedtrain_operator_queue_keys)": "known",
                "sum(fedtrain_operator_queue_depth)": "due",
                "max(fedtrain_operator_queue_oldest_seconds)": "oldest, in seconds",
            },
            right=("oldest, in seconds",),
        ),
        Panel(
            title="Wait",
            says="From when a training is due to the beginning of its look.",
            queries=quantiles("queue_duration"),
            unit="s",
        ),
        Panel(
            title="Phases",
            says="Trainings by phase.",
            queries={
                "sum by (phase) (max by (namespace, training, phase) (fedtrain_training_phase))": (
                    "{{phase}}"
                )
            },
            stacked=True,
        ),
    ),
    "Looks": (
        Panel(
            title="Time of a look",
            says="One look reads, decides and writes.",
            queries=quantiles("look_duration"),
            unit="s",
        ),
        Panel(
            title="Failed looks",
            says="By reason, and tried again; Conflict is harmless: somebody else wrote first.",
            queries={
                or_none(rate("look_failures_total", "reason"), "reason"): "{{reason}}",
                rate("queue_retries_total"): "tried again",
            },
            unit="ops",
        ),
        Panel(
            title="Writes",
            says="Made for trainings.",
            queries={rate("writes_total", "what"): "{{what}}"},
            unit="ops",
        ),
    ),
    "API server": (
        Panel(
            title="Requests",
            says="Code 0: no answer came.",
            queries={
                rate("api_requests_total", "verb, resource, code"): "{{verb}} {{resource}} {{code}}"
            },
            unit="reqps",
            width=12,
        ),
        Panel(
            title="Answers",
            says="Time until 99 of 100 were read.",
            queries={
                "histogram_quantile(0.99, "
                f"{rate('api_request_duration_seconds_bucket', 'le, verb')})": "{{verb}}"
            },
            unit="s",
            width=12,
        ),
    ),
    "Process": (
        Panel(
            title="Leader",
            says="How many processes hold the lease: 1, or for a moment 0.",
            queries={"sum(fedtrain_operator_leader)": "leaders"},
            width=6,
        ),
        Panel(
            title="Event loop",
            says="By how much it was late; beyond 5 s the process is restarted.",
            queries={"max(fedtrain_operator_event_loop_lag_seconds)": "late"},
            unit="s",
            width=6,
        ),
        Panel(
            title="Watches",
            says="Since the one opened longest ago was opened; beyond 450 s it is restarted.",
            queries={"max(fedtrain_operator_watch_age_seconds)": "age"},
            unit="s",
            width=6,
        ),
        Panel(
            title="Memory",
            says="Of the operator's processes.",
            queries={
                "process_resident_memory_bytes and on (job, instance) fedtrain_operator_leader": (
                    "{{instance}}"
                )
            },
            unit="bytes",
            width=6,
        ),
    ),
}
