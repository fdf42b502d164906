"""The metrics of a training: name without the prefix → what it means, its labels, where it is from.

docs/reference/metrics.md is generated from here. Labels are bounded: by the participants of a
training, by its at most twenty metrics, by closed sets of words, and reasons by `series.REASONS`.
"""

from typing import NamedTuple

OWN = ("namespace", "training")
"""The labels that all of them have."""


class Family(NamedTuple):
    """source: which object holds it, whoever reads it; labels: beyond OWN."""

    source: str
    says: str
    labels: tuple[str, ...] = ()


_TRAINING = "status of the training"
_CURRENT = "record of the newest round"
_NEWEST = "newest record that has it"
_PUBLISHED = "record of the last published round"
_AGGREGATOR = "the aggregator's message, in the record"

FAMILIES: dict[str, Family] = {
    "training_phase": Family(
        _TRAINING, "1 for the phase a training is in, 0 for the others.", ("phase",)
    ),
    "training_reason": Family(
        _TRAINING, "1 for the reason why a training is where it is.", ("reason",)
    ),
    "training_round": Family(
        _TRAINING, "The round in progress; 0 is the making of the initial model."
    ),
    "training_rounds": Family("spec of the training", "Rounds asked for."),
    "training_started_timestamp_seconds": Family(
        _TRAINING, "When the training was first looked at."
    ),
    "global_model_round": Family(_TRAINING, "The round of the newest global model."),
    "global_metric": Family(_TRAINING, "A metric of the last evaluated global model.", ("metric",)),
    "global_metric_round": Family(
        _TRAINING, "The round of the global model that was last evaluated."
    ),
    "round_started_timestamp_seconds": Family(
        _CURRENT, "When the round in progress began; not there once it is published."
    ),
    "round_invited_participants": Family(
        _CURRENT, "Participants invited to the round in progress, whatever became of them."
    ),
    "round_participants": Family(
        _CURRENT, "Participants of the round in progress, by state.", ("state",)
    ),
    "round_lost_participants": Family(
        _CURRENT,
        "Participants that the round in progress lost: Failed, Late, Rejected or Dropped.",
        ("reason",),
    ),
    "round_retries": Family(
        _CURRENT, "Attempts of the participants of the round in progress beyond the first of each."
    ),
    "round_quarantined": Family(
        _CURRENT, "Participants left out of the round for having lost too many."
    ),
    "round_quorum_misses": Family(_CURRENT, "How often the round in progress missed its quorum."),
    "round_duration_seconds": Family(
        _PUBLISHED,
        "Time that a round spent in each phase; Suspended is none of the others, and Evaluating"
        " overlaps the next round.",
        ("phase",),
    ),
    "round_overhead_seconds": Family(
        _PUBLISHED,
        "What of a round was not training: its phases but Suspended and Evaluating, less the"
        " longest training of an accepted participant.",
    ),
    "round_accelerator_seconds": Family(
        _PUBLISHED,
        "GPU-seconds (or of other accelerators) of participants' pods: held, while all pods of an"
        " attempt were ready; used, as those measured themselves that reported.",
        ("use",),
    ),
    "participant_samples": Family(_NEWEST, "What a participant last trained on.", ("participant",)),
    "participant_seconds": Family(
        _NEWEST, "How long a participant last trained.", ("participant",)
    ),
    "participant_weight": Family(
        _NEWEST, "A participant's last share of the mean.", ("participant",)
    ),
    "participant_metric": Family(
        _NEWEST,
        "A metric that a participant last reported while it trained or evaluated.",
        ("participant", "role", "metric"),
    ),
    "participant_update_norm": Family(
        _AGGREGATOR,
        "Euclidean norm of a participant's last accepted update; up to some 150 participants.",
        ("participant",),
    ),
    "participant_update_cosine": Family(
        _AGGREGATOR,
        "Cosine between a participant's last accepted update and what the round combined, of the"
        " first 1,024 values in every 16 MiB; up to some 150 participants.",
        ("participant",),
    ),
    "participant_attempt_failures": Family(
        _CURRENT,
        "Failed attempts of a participant that count against its retries, in this round.",
        ("participant",),
    ),
    "participant_rounds_lost": Family(
        _CURRENT,
        "Rounds in a row that a participant lost by its own fault, before this one.",
        ("participant",),
    ),
    "participant_quarantined_until_round": Family(
        _CURRENT, "The last round that a participant is left out of.", ("participant",)
    ),
    "aggregation_bytes": Family(
        _AGGREGATOR,
        "Read from update files by the last aggregation; GB/s is this through aggregation_seconds.",
    ),
    "aggregation_seconds": Family(_AGGREGATOR, "Time taken by the last aggregation."),
    "aggregation_peak_memory_bytes": Family(_AGGREGATOR, "Peak memory of the last aggregation."),
    "aggregation_updates": Family(
        _NEWEST, "Updates that the last aggregation accepted and rejected.", ("verdict",)
    ),
    "aggregation_update_bytes": Family(
        _AGGREGATOR, "Mean size of an update file that the last aggregation accepted."
    ),
    "aggregation_update_norm": Family(
        _AGGREGATOR,
        "Least, median and most of the accepted updates' norms, of any number of them.",
        ("of",),
    ),
    "aggregation_update_cosine": Family(
        _AGGREGATOR,
        "Least, median and most of the accepted updates' cosines to what they were combined to.",
        ("of",),
    ),
    "exchange_free_bytes": Family(
        _AGGREGATOR, "Left on the exchange's volume after the last aggregation."
    ),
    "exchange_size_bytes": Family(_AGGREGATOR, "Size of the exchange's volume."),
}
