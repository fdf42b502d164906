"""The pods that a plan foresees are those that a world in which all goes well gets to see."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import a_spec, a_world

from fedoperator.api.training import TrainingSpec
from fedoperator.rounds import forecast, rehearsal, sizes
from fedtrain.contract import Role

EVALUATIONS = [
    None,
    {},
    {"every": 2},
    {"by": "north"},
    {"evaluator": {"name": "judge"}, "every": 3},
]


def spec_of(participants: int, **changes: Any) -> TrainingSpec:
    return TrainingSpec.model_validate(a_spec(participants, **changes))


@settings(max_examples=20, deadline=None)
@given(
    participants=st.integers(1, 6),
    rounds=st.integers(1, 5),
    fraction=st.sampled_from([0.2, 0.5, 1.0]),
    seed=st.integers(0, 9),
    evaluation=st.sampled_from(EVALUATIONS),
    shards=st.integers(1, 3),
    tuned=st.booleans(),
)
def test_what_is_rehearsed_is_what_happens_where_nobody_fails(
    participants: int,
    rounds: int,
    fraction: float,
    seed: int,
    evaluation: dict[str, Any] | None,
    shards: int,
    tuned: bool,
) -> None:
    changes: dict[str, Any] = {
        "rounds": rounds,
        "selection": {"fraction": fraction, "seed": seed},
        "aggregation": {"shards": shards},
        "quorum": {"minimum": 1},
    }
    changes |= {} if evaluation is None else {"evaluation": evaluation}
    changes |= {"personalization": {"fineTune": {}}} if tuned else {}
    world = a_world(participants, **changes).to_the_end()
    assert world.training.status.phase == "Succeeded"
    happened: dict[int, Counter[Role]] = {}
    for identity, workload in world.made.items():
        happened.setdefault(identity.round, Counter())[identity.role] += workload.nodes
    play = rehearsal.rehearsed(world.training.spec, "digits")
    assert play.pods == happened
    assert play.whole
    assert {n: list(names) for n, names in play.invited.items()} == {
        r.spec.round: r.spec.invited for r in world.records.values() if r.spec.round > 0
    }


def test_pods_that_stay_are_made_once_however_many_rounds() -> None:
    spec = spec_of(3, rounds=50, pods="Resident", evaluation={})
    play = rehearsal.rehearsed(spec, "digits")
    assert play.total == 3 + 2  # and the initial model's, and the hub
    assert sum(workload.nodes for workload in play.most) == 3 + 1


def test_rounds_beyond_those_played_are_as_the_later_ones_of_them() -> None:
    spec = spec_of(4, rounds=40, evaluation={"by": "north", "every": 2})
    whole = forecast.forecast(spec, "digits", None)
    assert whole.exact
    play = rehearsal.rehearsed(spec, "digits", limit=4 * 20)
    assert not play.whole
    counted = Counter[Role]()
    for counts in play.pods.values():
        counted.update(counts)
    assert forecast._extended(play, spec, counted) == whole.pods


def test_a_thousand_participants_for_a_thousand_rounds_are_played_in_part() -> None:
    spec = spec_of(3, rounds=10_000)
    short = rehearsal.rehearsed(spec, "digits", limit=30)
    assert short.played == 10
    assert not short.whole


def test_what_is_held_counts_every_pod_at_the_same_time() -> None:
    gpu = {"resources": {"limits": {"nvidia.com/gpu": 4}, "requests": {"cpu": "500m"}}, "nodes": 2}
    trainer = {"image": "x", "command": ["python"], **gpu}
    needs = forecast.forecast(spec_of(3, trainer=trainer), "digits", None)
    assert needs.at_most == 6
    assert needs.held == {"nvidia.com/gpu": 24, "cpu": 3}


@pytest.mark.parametrize(
    ("text", "amount"),
    [("100m", "0.1"), ("1.5Gi", str(1.5 * 2**30)), ("2k", "2000"), ("2e3", "2000"), (8, "8")],
)
def test_quantities_are_those_of_kubernetes(text: str | int, amount: str) -> None:
    assert float(forecast.quantity(text)) == float(amount)


@pytest.mark.parametrize("strategy", ["FedAvg", "FedAdam"])
def test_what_an_aggregation_folds_are_updates_and_no_state_of_the_server(strategy: str) -> None:
    spec = spec_of(3, rounds=3, strategy={"name": strategy})
    model = sizes.of_count(1000)
    needs = forecast.forecast(spec, "digits", model)
    updates = sum(sizes.update_bytes(model, spec, p) + sizes.RECEIPT for p in spec.participants)
    assert needs.folded == updates


def test_jobs_are_counted_with_those_that_are_over_and_kept_for_two_rounds() -> None:
    world, most = a_world(3, rounds=5), 0
    while not world.training.status.terminal:
        world.all_succeed()
        most = max(most, len(world.jobs))
    # A round's first Jobs are made before those that are kept no longer are deleted.
    assert forecast.forecast(world.training.spec, "digits", None).jobs == most + 3


def test_a_model_nobody_knows_leaves_bytes_unknown_and_pods_exact() -> None:
    needs = forecast.forecast(spec_of(3), "digits", None)
    assert needs.moved is None
    assert needs.peak is None
    assert needs.total == 2 + 3 * (3 + 1)
    known = forecast.forecast(spec_of(3), "digits", sizes.of_count(1000))
    assert known.pods == needs.pods
    assert known.model_bytes is not None
