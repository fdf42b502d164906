"""What a script tells: samples, metrics; checked, and agreed upon by its ranks."""

import math
import operator
import re
from collections.abc import Mapping
from typing import Any

from fedtrain.contract import METRIC_NAME, METRICS_LIMIT
from fedtrain.errors import ContractError, DataError, FedtrainError
from fedtrain.log import say
from fedtrain.store import Submission

MOST_SAMPLES = 2**53
"""The aggregator's weights are doubles, which hold every whole number up to here."""


def submitted_twice() -> ContractError:
    return ContractError("SubmittedTwice", "rnd.submit(...) was called twice in one round")


def agree(told: list[Any], rank: int) -> Submission:
    """Rank 0's submission, if every rank handed one in and all name the same samples.

    Raises the error of this rank if it has one, else that of the first rank that has.
    """
    for one in (told[rank], *told):
        if isinstance(one, FedtrainError):
            raise one
    first: Submission = told[0]
    for other, submission in enumerate(told):
        if submission.samples != first.samples:
            raise ContractError(
                "SamplesDisagree",
                f"ranks disagree on samples: rank 0 says {first.samples}, rank {other} says "
                f"{submission.samples}; each must pass the participant's total over all ranks",
            )
    return first


def checked_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics as floats; those that are not finite are left out with a word in the log.

    Raises ContractError for a name or a value that cannot be a metric, and for too many.
    """
    if len(metrics) > METRICS_LIMIT:
        sentence = f"metrics: {len(metrics)} are too many; {METRICS_LIMIT} is the most"
        raise ContractError("BadMetric", sentence)
    checked = {}
    for name, value in metrics.items():
        if not isinstance(name, str) or not re.fullmatch(METRIC_NAME.rstrip("$"), name):
            sentence = f"metrics[{name!r}]: a name is letters, digits and _, at most 40 of them"
            raise ContractError("BadMetric", sentence)
        try:
            # torch warns if what has a gradient is made a number
            number = float(value.detach() if hasattr(value, "detach") else value)
        except (TypeError, ValueError, OverflowError, RuntimeError) as error:
            sentence = f"metrics[{name!r}]: {type(value).__name__} is not a number"
            raise ContractError("BadMetric", sentence) from error
        if math.isfinite(number):
            checked[name] = number
        else:
            say(f"metrics[{name!r}] is {number} and was left out")
    return checked


def measured(metrics: Any) -> tuple[dict[str, float], int]:
    """What `evaluate` gave: metrics, and the samples that they stand for (1 if not said)."""
    if not isinstance(metrics, Mapping):
        sentence = f"evaluate(model) gave a {type(metrics).__name__}, not metrics by name"
        raise ContractError("BadMetric", sentence)
    rest = dict(metrics)
    samples = samples_of(rest.pop("samples", 1))
    return checked_metrics(rest), samples


def samples_of(samples: Any) -> int:
    try:
        count = operator.index(samples)
    except TypeError as error:
        sentence = f"samples={samples!r} is not a whole number"
        raise ContractError("BadSamples", sentence) from error
    if isinstance(samples, bool) or count < 0:
        raise ContractError("BadSamples", f"samples={samples!r} is not a number of samples")
    if count > MOST_SAMPLES:
        raise ContractError("BadSamples", f"samples={count} is more than 2**53")
    if count == 0:
        raise DataError("NoSamples", "samples=0: this participant has no data to train on")
    return count
