import itertools

from hypothesis import given
from hypothesis import strategies as st

from fedoperator.report import curves, timing
from tests.report.lab import a_round, a_training, accepted, moment

moments = st.none() | st.integers(-5, 60).map(moment)
durations = st.dictionaries(
    st.sampled_from([p for p in timing.PHASES if p != "Starting"]), st.floats(0.001, 1e6)
)


@given(moments, moments, moments, durations, st.integers(1, 3))
def test_phases_follow_each_other_and_last_as_long_as_was_counted(
    first: str | None,
    published: str | None,
    second: str | None,
    counted: dict[str, float],
    attempt: int,
) -> None:
    record = a_round(
        1,
        accepted("north", startedAt=first, attempt=attempt),
        accepted("south", startedAt=second),
        publishedAt=published,
        durations=counted,
    )
    found = timing.spans(record)
    assert all(span.start < span.end for span in found)
    assert all(a.end <= b.start for a, b in itertools.pairwise(found))
    total = sum(span.seconds for span in found)
    assert abs(total - sum(counted.values())) < 0.01


def test_training_begins_with_the_round_if_nobody_knows_when_pods_were_ready() -> None:
    (training, aggregating) = timing.spans(a_round(1, accepted("north", startedAt=None)))
    assert (training.phase, training.start, training.end) == ("Training", 0.0, 25.0)
    assert aggregating.seconds == 5.0


def test_what_was_ready_at_a_second_attempt_says_nothing_of_the_start() -> None:
    found = timing.spans(a_round(1, accepted("north", attempt=2)))
    assert [span.phase for span in found] == ["Training", "Aggregating"]


def test_evaluation_begins_with_the_published_model() -> None:
    durations = {"Training": 20.0, "Aggregating": 5.0, "Evaluating": 7.5}
    last = timing.spans(a_round(1, accepted("north"), durations=durations))[-1]
    assert (last.phase, last.start, last.end) == ("Evaluating", 30.0, 37.5)


def test_the_phase_that_a_round_is_in_is_known_up_to_what_last_began_or_ended() -> None:
    unfinished = {"phase": "Training", "publishedAt": None, "phaseSince": moment(0)}
    record = a_round(1, accepted("north"), durations={}, **unfinished)
    assert [(s.phase, s.end) for s in timing.spans(record)] == [
        ("Starting", 5.0),
        ("Training", 17.5),
    ]


def test_of_the_making_of_the_first_model_the_phase_is_initialising() -> None:
    durations = {"Preparing": 2.0, "Initialising": 8.0}
    record = a_round(0, init={"name": "north", "startedAt": moment(3)}, durations=durations)
    assert [(s.phase, s.end) for s in timing.spans(record)] == [
        ("Preparing", 2.0),
        ("Starting", 3.0),
        ("Initialising", 10.0),
    ]


def test_the_metric_that_stop_looks_at_comes_first() -> None:
    record = a_round(1, accepted("north", metrics={"auc": 1.0, "loss": 1.0}), metrics={"f1": 0.5})
    spec = a_training(spec={"stop": {"metric": "f1", "target": 1.0, "patience": 1}}).spec
    assert curves.metrics(spec, [record]) == ["f1", "loss", "auc"]
