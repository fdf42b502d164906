"""Who is left out of a round for having lost too many, and who comes back."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import START, World, a_spec, a_training, a_world

from fedoperator.api.base import timestamp
from fedoperator.api.round import Assignment, Record, RoundSpec, RoundStatus
from fedoperator.api.training import Quarantine, Selection, Training, TrainingSpec
from fedoperator.cluster.series import Seen
from fedoperator.cluster.telemetry import Telemetry
from fedoperator.local import report
from fedoperator.rounds import quarantine, summary
from fedoperator.rounds.observed import Failure
from fedoperator.rounds.selection import select
from fedtrain.contract import Role

OUT_OF_TWO = {"after": 2, "rounds": 2}


def loses(world: World, *names: str, failure: Failure = Failure.DATA) -> World:
    """One round: these participants fail, everybody else reports, the model is published."""
    number = world.training.status.round
    for name in names:
        world.fails(world.identity(name), failure, "NotFinite")
    world.settle()
    for _ in range(9):
        if world.training.status.round > number:
            return world
        world.all_succeed()
        world.passes(seconds=10)
    raise AssertionError(f"round {number} does not end: {world.training.status}")


def in_quarantine(**policy: int) -> World:
    """North has lost rounds 1 and 2, and round 3 begins without it."""
    world = a_world(rounds=9, quarantine=OUT_OF_TWO | policy, retries=0).in_round(1)
    return loses(loses(world, "north"), "north")


def invited(world: World) -> list[str]:
    return world.record().spec.invited


def reasons(world: World) -> list[str]:
    return [event.reason for event in world.events]


def test_it_is_after_three_rounds_for_five_unless_said_otherwise():
    assert a_training().spec.quarantine == Quarantine(after=3, rounds=5)


def test_who_loses_too_many_rounds_in_a_row_is_left_out_and_everybody_is_told():
    world = in_quarantine()
    assert invited(world) == ["east", "south"]
    assert world.record().spec.quarantined == {"north": 4}
    assert world.record().spec.losing == {}
    status = world.training.status
    assert (status.participants.invited, status.participants.quarantined) == (2, 1)
    assert status.quarantine == "north up to round 4"
    (told,) = [event for event in world.events if event.reason == "Quarantined"]
    assert told.warning
    assert told.message == (
        "north keeps losing its rounds (NotFinite); left out up to round 4, unless too few are "
        "left (spec.quarantine)"
    )


def test_the_line_of_the_round_and_the_series_say_who_is_out():
    world = in_quarantine()
    line = report.round_line(world.record(), 9)
    assert "quarantined north" in line
    assert "without north" not in line
    telemetry = Telemetry()
    seen = Seen(status=world.training.status, rounds=9, records=(world.record(),))
    telemetry.seen(("default", "digits"), seen)
    text = telemetry.render().decode()
    of_training = 'namespace="default"'
    assert f'fedtrain_round_quarantined{{{of_training},training="digits"}} 1.0' in text
    north = f'{of_training},participant="north",training="digits"'
    assert f"fedtrain_participant_quarantined_until_round{{{north}}} 4.0" in text
    seen = Seen(status=world.training.status, rounds=9, records=(world.record(2),))
    telemetry.seen(("default", "digits"), seen)
    assert f"fedtrain_participant_rounds_lost{{{north}}} 1.0" in telemetry.render().decode()


def test_it_comes_back_when_its_time_is_over_and_is_cleared_by_an_accepted_update():
    world = loses(loses(in_quarantine()))
    assert world.training.status.round == 5
    assert invited(world) == ["east", "north", "south"]
    assert world.training.status.quarantine == ""
    assert world.events[-1].message == "round 5 begins with east, north, south"
    assert "north may be invited again from round 5 on" in [e.message for e in world.events]
    assert world.record().spec.quarantined == {"north": 4}
    loses(world)
    assert (world.record().spec.losing, world.record().spec.quarantined) == ({}, {})


def test_one_that_comes_back_and_loses_once_more_is_left_out_anew():
    world = loses(loses(loses(in_quarantine())), "north")
    assert world.training.status.round == 6
    assert world.record().spec.quarantined == {"north": 7}
    assert invited(world) == ["east", "south"]
    assert reasons(world).count("Quarantined") == 2


def test_an_accepted_update_ends_the_row():
    world = a_world(rounds=9, quarantine=OUT_OF_TWO, retries=0).in_round(1)
    for _ in range(3):
        loses(loses(world, "north"))
    assert "Quarantined" not in reasons(world)
    assert world.record().spec.losing == {}


def test_what_is_nobodys_fault_neither_counts_nor_ends_the_row():
    """North loses, waits in a queue past the deadline, and loses: two in a row."""
    quorum = {"minimum": 2, "deadline": "10m"}
    world = a_world(rounds=9, quorum=quorum, quarantine=OUT_OF_TWO, retries=0).in_round(1)
    loses(world, "north")
    assert world.record().spec.losing == {"north": 1}
    world.cannot_start(world.identity("north"), "Unschedulable")
    for name in ("south", "east"):
        world.succeeds(world.identity(name))
    world.settle()
    world.passes(minutes=11)
    world.settle()
    north = world.participant("north")
    assert (north.state, north.reason, north.failure) == ("Late", "Late", "Free")
    assert north.message == (
        "not running within quorum.deadline (10m) after the quorum had reported: "
        "Unschedulable: it cannot start"
    )
    loses(world)
    assert world.training.status.round == 3
    assert world.record().spec.losing == {"north": 1}
    loses(world, "north")
    assert world.record().spec.quarantined == {"north": 5}


def test_one_whose_pods_run_past_the_deadline_loses_the_round():
    quorum = {"minimum": 2, "deadline": "10m"}
    world = a_world(rounds=9, quorum=quorum, quarantine={"after": 1}, retries=0).in_round(1)
    for identity in world.live(Role.TRAIN):
        world.becomes_ready(identity)
    world.settle()
    for name in ("south", "east"):
        world.succeeds(world.identity(name))
    world.passes(minutes=10)
    world.settle()
    north = world.participant("north")
    assert (north.state, north.failure, north.failures) == ("Late", "Counted", 0)
    loses(world)
    assert world.record().spec.quarantined == {"north": 6}


def test_free_failures_never_lead_to_quarantine():
    world = a_world(rounds=4, quarantine={"after": 1}, retries=0).in_round(1)
    for _ in range(3):
        for _ in range(4):
            world.fails(world.identity("north"), Failure.FREE, "Disrupted")
            world.settle()
            world.passes(minutes=6)
            world.settle()
        loses(world)
    assert "Quarantined" not in reasons(world)


def test_a_rejected_update_loses_the_round():
    world = a_world(rounds=9, quarantine={"after": 1}).in_round(1).all_succeed(Role.TRAIN)
    (aggregation,) = world.live(Role.AGGREGATE)
    world.succeeds(aggregation, verdicts=".a.", reasons={"a": "NotFinite"})
    world.settle()
    assert world.participant("north", 1).state == "Rejected"
    assert world.record(2).spec.quarantined == {"north": 6}


def test_if_too_few_are_left_the_longest_quarantined_is_released():
    """West was left out first; with two left for a quorum of three it takes part again."""
    policy = {"after": 1, "rounds": 9}
    world = a_world(5, rounds=20, quarantine=policy, retries=0, quorum={"minimum": 3})
    loses(loses(world.in_round(1), "west"), "north")
    assert invited(world) == ["centre", "east", "south"]
    for identity in world.live(Role.TRAIN):
        world.succeeds(identity)
    world.settle()
    everybody = world.training.spec.to_dict()["participants"]
    world.edited(participants=[p for p in everybody if p["name"] != "centre"])
    loses(world)
    assert world.training.status.round == 4
    assert invited(world) == ["east", "south", "west"]
    assert world.record().spec.quarantined == {"north": 11, "west": 10}
    assert world.training.status.quarantine == "north up to round 11"
    text = "too few are left without west; it takes part in round 4 all the same"
    assert text in [event.message for event in world.events]


def test_all_in_quarantine_are_released_as_far_as_they_are_needed():
    """Those who were well have left the federation."""
    policy = {"after": 1, "rounds": 9}
    world = a_world(4, rounds=20, quarantine=policy, retries=0, quorum={"minimum": 2}).in_round(1)
    loses(world, "north", "west")
    assert invited(world) == ["east", "south"]
    world.edited(participants=[{"name": "north"}, {"name": "west"}])
    world.settle()
    status = world.training.status
    assert (status.phase, status.reason, status.participants.quarantined) == (
        "Blocked",
        "QuorumMissed",
        2,
    )
    loses(world)
    ended = {p.name: p.state for p in world.record(2).status.participants}
    assert [ended[name] for name in ("east", "south")] == ["Dropped"] * 2
    assert [ended[name] for name in ("north", "west")] == ["Accepted"] * 2
    assert reasons(world).count("Released") == 2


def test_a_round_that_misses_its_quorum_releases_who_is_in_quarantine_last():
    world = in_quarantine()
    world.fails(world.identity("south"), Failure.DATA, "NotFinite")
    world.settle()
    status = world.training.status
    assert (status.phase, status.reason) == ("Blocked", "QuorumMissed")
    world.passes(minutes=1)
    world.settle()
    assert [p.name for p in world.record().status.participants] == ["east", "south", "north"]
    assert world.training.status.participants.quarantined == 0
    assert reasons(world).count("Released") == 1


def test_zero_ends_every_quarantine_with_the_next_round():
    world = in_quarantine()
    world.edited(quarantine={"after": 0})
    assert invited(loses(world)) == ["east", "north", "south"]
    assert world.record().spec.quarantined == {}


def test_a_shorter_quarantine_holds_for_those_who_are_in_one():
    world = in_quarantine(rounds=6)
    assert world.record().spec.quarantined == {"north": 8}
    world.edited(quarantine={"after": 2, "rounds": 1})
    assert invited(loses(world)) == ["east", "south"]
    assert world.record(4).spec.quarantined == {"north": 4}
    assert invited(loses(world)) == ["east", "north", "south"]


def test_one_removed_and_added_again_comes_back_without_a_past():
    world = in_quarantine()
    everybody = world.training.spec.to_dict()["participants"]
    world.edited(participants=everybody[1:])
    loses(world)
    world.edited(participants=everybody)
    assert invited(loses(world)) == ["east", "north", "south"]


def test_a_record_deleted_by_hand_lets_nobody_out_of_quarantine():
    world = in_quarantine()
    del world.records["digits-00003"]
    world.settle()
    assert world.record(3).spec.quarantined == {"north": 4}
    assert invited(world) == ["east", "south"]


def test_an_operator_that_sees_two_records_knows_who_is_out():
    world = a_world(rounds=9, quarantine=OUT_OF_TWO, retries=0, history=2).in_round(1)
    loses(loses(world, "north"), "north")
    loses(world)
    assert len(world.records) == 2
    assert world.record().spec.quarantined == {"north": 4}
    assert invited(world) == ["east", "south"]


# Laws ----------------------------------------------------------------------------------------

NAMES = [f"site-{k}" for k in range(6)]
OUTCOMES = {
    "accepted": {"state": "Accepted"},
    "failed": {"state": "Failed", "failure": "Counted"},
    "rejected": {"state": "Rejected"},
    "late": {"state": "Late", "failure": "Counted"},
    "queued": {"state": "Late", "failure": "Free"},
    "dropped": {"state": "Dropped"},
}
LOST = ("failed", "rejected", "late")


def a_federation(names: list[str], **changes: object) -> TrainingSpec:
    document = a_spec(3, **changes) | {"participants": [{"name": name} for name in names]}
    return TrainingSpec.model_validate(document)


@given(
    outcomes=st.lists(st.sampled_from([*OUTCOMES, "not invited"]), max_size=14),
    after=st.integers(1, 4),
    rounds=st.integers(1, 4),
)
def test_one_participants_story_told_twice(outcomes, after, rounds):
    """The records' bookkeeping against a reading of the whole story, from the first round on."""
    policy = {"after": after, "rounds": rounds}
    spec = a_federation(["a", "b"], quarantine=policy, quorum={"minimum": 1})
    before = None
    for number in range(1, len(outcomes) + 2):
        past = quarantine.past(spec, before)
        row, until = 0, 0
        for earlier, outcome in enumerate(outcomes[: number - 1], start=1):
            if outcome == "accepted":
                row, until = 0, 0
            elif outcome in LOST:
                row += 1
                until = earlier + rounds if row >= after else 0
        assert past.quarantined.get("a", 0) == until
        assert past.losing.get("a", 0) == (0 if until else row)
        if number <= len(outcomes):
            told = OUTCOMES.get(outcomes[number - 1])
            mine = [] if told is None else [Assignment(name="a", **told)]
            before = Record(
                name="r",
                spec=RoundSpec(
                    training="t",
                    round=number,
                    invited=["a"],
                    losing=dict(past.losing),
                    quarantined=dict(past.quarantined),
                ),
                status=RoundStatus(participants=mine),
            )


@given(
    until=st.dictionaries(st.sampled_from(NAMES), st.integers(1, 9)),
    number=st.integers(1, 9),
    fraction=st.floats(0.05, 1),
    minimum=st.integers(1, 6),
    quorum=st.integers(1, 6),
)
def test_nobody_in_quarantine_is_invited_unless_too_few_are_left(
    until, number, fraction, minimum, quorum
):
    chosen = Selection(fraction=fraction, minimum=minimum)
    found = select(NAMES, chosen, number, at_least=quorum, quarantined=until)
    out = {name for name in NAMES if until.get(name, 0) >= number}
    free, least = set(NAMES) - out, max(minimum, quorum)
    released = set(found) & out
    assert len(released) == max(0, least - len(free))
    if released:
        assert free <= set(found)
        assert max(until[n] for n in released) <= min(
            (until[n] for n in out - released), default=99
        )
    undisturbed = select(NAMES, chosen, number, at_least=quorum)
    assert len(found) == min(len(undisturbed), max(len(free), least))
    assert set(undisturbed) - out <= set(found)


def size(model: object) -> int:
    return len(json.dumps(model.to_dict(), separators=(",", ":")))  # type: ignore[attr-defined]


@pytest.mark.parametrize("state", ["Failed", "Rejected"])
def test_a_thousand_in_quarantine_take_little_room(state):
    """The parent's status has a line of them; the record a name and a number of each."""
    names = [f"a-participant-with-a-very-long-name-{k:04}" for k in range(1000)]
    spec = a_federation(names, quarantine={"after": 1}, rounds=9999, quorum={"minimum": 1})
    training = Training(name="d", namespace="n", uid="12345678", generation=1, spec=spec)
    lost = [Assignment(name=n, state=state, reason="NotFinite", message="x" * 200) for n in names]
    empty = Record(name="r", spec=RoundSpec(training="d", round=9998, invited=names))
    before = empty.model_copy(update={"status": RoundStatus(participants=lost)})
    past = quarantine.past(spec, before)
    assert len(past.quarantined) == 1000
    begun = RoundSpec(training="d", round=9999, invited=["x"], quarantined=dict(past.quarantined))
    assert size(begun) <= 49 * 1024
    record = Record(name="r", spec=begun, status=RoundStatus(phase="Training"))
    status = summary.status(training, {9999: record}, timestamp(START))
    assert status.participants.quarantined == 1000
    assert len(status.quarantine) <= 253
    assert size(status) <= 8 * 1024
