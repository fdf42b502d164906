import itertools

from hypothesis import given
from hypothesis import strategies as st

from fedoperator.report import curves, timing
from tests.report.lab import a_round, a_training, accepted, moment

moments = st.none() | st.integers(-5, 60).map(moment)


@given(moments, moments, moments, moments, st.integers(1, 3))
def test_phases_follow_each_other_whatever_the_clocks_of_a_cluster_say(
    first: str | None, aggregation: str | None, published: str | None, second: str | None, n: int
) -> None:
    record = a_round(
        1,
        accepted("north", startedAt=first, attempt=n),
        accepted("south", startedAt=second),
        aggregation={"state": "Reported", "startedAt": aggregation},
        publishedAt=published,
    )
    found = timing.spans(record)
    assert all(span.start < span.end for span in found)
    assert all(a.end == b.start for a, b in itertools.pairwise(found))
    if published is not None and found:
        assert found[-1].end == timing.since(record, record.status.published_at)


def test_training_begins_with_the_round_if_nobody_knows_when_pods_were_ready() -> None:
    (training, aggregating) = timing.spans(a_round(1, accepted("north", startedAt=None)))
    assert (training.phase, training.start, training.end) == ("Training", 0.0, 25.0)
    assert aggregating.seconds == 5.0


def test_evaluation_lasts_from_the_first_that_was_ready_to_the_last() -> None:
    evaluation = [
        {"name": "north", "state": "Reported", "startedAt": moment(31)},
        {"name": "south", "state": "Reported", "startedAt": moment(36), "seconds": 2.0},
    ]
    last = timing.spans(a_round(1, accepted("north"), evaluation=evaluation))[-1]
    assert (last.phase, last.start, last.end) == ("Evaluating", 31.0, 38.0)


def test_of_the_making_of_the_first_model_the_phase_is_initialising() -> None:
    record = a_round(0, init={"name": "north", "startedAt": moment(3)}, aggregation=None)
    assert [(s.phase, s.end) for s in timing.spans(record)] == [
        ("Starting", 3.0),
        ("Initialising", 30.0),
    ]


def test_the_metric_that_stop_looks_at_comes_first() -> None:
    record = a_round(1, accepted("north", metrics={"auc": 1.0, "loss": 1.0}), metrics={"f1": 0.5})
    spec = a_training(spec={"stop": {"metric": "f1", "target": 1.0, "patience": 1}}).spec
    assert curves.metrics(spec, [record]) == ["f1", "loss", "auc"]
