"""Whatever dies between any two writes, whatever is seen late: the laws of a training hold.

A state machine plays a hostile cluster: commits are cut after any prefix of their writes, children
are seen as they were some time ago, time jumps, pods succeed, fail, get lost, users edit.
"""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from staying import a_staying_world
from world import World, a_world

from fedoperator.rounds import quarantine
from fedoperator.rounds.observed import Failure
from fedtrain.contract import Role

NAMES = ("north", "south", "east", "west")


class HostileCluster(RuleBasedStateMachine):
    """What may happen to a training, in any order."""

    world: World
    make = staticmethod(a_world)

    @initialize(
        participants=st.integers(2, 4),
        rounds=st.integers(1, 5),
        retries=st.integers(0, 2),
        evaluation=st.sampled_from([None, {"by": "Participants"}, {"by": "north", "every": 2}]),
        deadline=st.sampled_from([None, "10m"]),
        fraction=st.sampled_from([0.5, 1.0]),
        history=st.sampled_from([2, 1000]),
        stop=st.sampled_from(
            [None, {"metric": "accuracy", "patience": 1}, {"metric": "accuracy", "target": 0.3}]
        ),
        fine_tune=st.booleans(),
        best=st.integers(0, 2),
        after=st.integers(0, 2),
        out=st.integers(1, 2),
    )
    def begin(
        self,
        participants,
        rounds,
        retries,
        evaluation,
        deadline,
        fraction,
        history,
        stop,
        fine_tune,
        best,
        after,
        out,
    ):
        quorum = {"minimum": 2} | ({"deadline": deadline} if deadline else {})
        changes = {"evaluation": evaluation} if evaluation else {}
        changes |= {"stop": stop} if stop and evaluation else {}
        changes |= {"personalization": {"fineTune": {}}} if fine_tune else {}
        changes |= {"keep": {"best": best, "metric": "accuracy"}} if evaluation else {}
        changes |= {"selection": {"fraction": fraction}, "history": history}
        changes |= {"quarantine": {"after": after, "rounds": out}}
        self.everybody = [{"name": name} for name in (*NAMES, "centre", "coast")]
        self.world = self.make(
            participants, rounds=rounds, retries=retries, quorum=quorum, **changes
        )
        self.snapshots = [()]
        self.models = {}
        self.highest_round = 0
        self.specs = {}
        self.losers = {}

    @rule(crash_after=st.one_of(st.none(), st.integers(0, 6)))
    def looks(self, crash_after):
        before = self.world.writes
        plan = self.world.look(crash_after=crash_after)
        self.snapshots.append(tuple(self.world.jobs.values()))
        if crash_after is None and self.world.writes == before:
            assert plan.wake_at is None or plan.wake_at > self.world.now, "it would spin"

    @rule(age=st.integers(1, 4), crash_after=st.one_of(st.none(), st.integers(0, 6)))
    def looks_with_an_old_list_of_children(self, age, crash_after):
        seen = self.snapshots[max(0, len(self.snapshots) - age)]
        self.world.look(crash_after=crash_after, seeing=seen)

    @rule(data=st.data())
    def a_child_becomes_ready(self, data):
        if live := self.world.live():
            self.world.becomes_ready(data.draw(st.sampled_from(live)))

    @rule(data=st.data(), silent=st.booleans())
    def a_child_succeeds(self, data, silent):
        if live := self.world.live():
            self.world.succeeds(data.draw(st.sampled_from(live)), silent=silent)

    @rule(data=st.data(), failure=st.sampled_from([Failure.FREE, Failure.COUNTED, Failure.DATA]))
    def a_child_fails(self, data, failure):
        if live := self.world.live():
            self.world.fails(data.draw(st.sampled_from(live)), failure, "Broken")

    @rule(data=st.data())
    def a_script_breaks_the_contract_at_the_first_participant(self, data):
        first = self.world.training.spec.participants[0].name
        for identity in self.world.live(Role.TRAIN):
            if identity.participant == first:
                self.world.fails(identity, Failure.CONTRACT, "NoSubmit")

    @rule(data=st.data())
    def a_user_changes_who_takes_part(self, data):
        names = st.lists(st.sampled_from(range(6)), min_size=2, max_size=5, unique=True)
        chosen = [self.everybody[i] for i in data.draw(names)]
        # Named evaluators stay: that is a rule of the schema.
        if self.everybody[0] not in chosen:
            chosen.append(self.everybody[0])
        self.world.edited(participants=chosen)

    @rule(data=st.data())
    def an_update_is_rejected(self, data):
        for identity in self.world.live(Role.AGGREGATE):
            candidates = self.world.record(identity.round).status.candidates
            bad = data.draw(st.integers(0, len(candidates) - 1))
            verdicts = "".join("a" if i == bad else "." for i in range(len(candidates)))
            told = {"verdicts": verdicts, "reasons": {"a": "NotFinite"}}
            if len(candidates) - 1 < self.world.training.spec.quorum.minimum:
                self.world.fails(identity, Failure.VERDICTS, "TooFewAccepted", **told)
            else:
                self.world.succeeds(identity, **told)

    @rule(data=st.data())
    def a_job_is_deleted_by_hand(self, data):
        if left := sorted((i for i, j in self.world.jobs.items() if not j.finished), key=str):
            del self.world.jobs[data.draw(st.sampled_from(left))]

    @rule(seconds=st.sampled_from([1, 30, 700]))
    def time_passes(self, seconds):
        self.world.passes(seconds=seconds)

    @rule(hours=st.sampled_from([-5, -1, 1, 5]))
    def another_leader_has_another_clock(self, hours):
        self.world.passes(hours=hours)

    @rule(suspend=st.booleans())
    def a_user_suspends_or_resumes(self, suspend):
        if self.world.training.spec.suspend is not suspend:
            self.world.edited(suspend=suspend)

    @rule(after=st.integers(0, 2))
    def a_user_changes_the_quarantine(self, after):
        if self.world.training.spec.quarantine.after != after:
            self.world.edited(quarantine={"after": after, "rounds": 1 + after})

    @rule(data=st.data())
    def a_round_ends_without_one(self, data):
        """Somebody's data are broken, all others are well: so that rounds are lost in a row."""
        if live := self.world.live(Role.TRAIN):
            self.world.fails(data.draw(st.sampled_from(live)), Failure.DATA, "NotFinite")
            for _ in range(3):
                self.world.all_succeed()

    @rule(rounds=st.integers(1, 5))
    def a_user_changes_the_rounds(self, rounds):
        if self.world.training.spec.rounds != rounds:
            self.world.edited(rounds=rounds)

    @invariant()
    def rounds_never_go_back(self):
        number = self.world.training.status.round
        assert number >= self.highest_round
        self.highest_round = number

    @invariant()
    def a_round_has_one_global_model(self):
        model = self.world.training.status.global_model
        if model is not None:
            assert self.models.setdefault(model.round, model) == model
            assert model.round >= max(self.models)

    @invariant()
    def no_attempt_is_counted_twice(self):
        for record in self.world.records.values():
            for p in record.status.participants:
                failed = [
                    i
                    for i, child in self.world.finished.items()
                    if (i.role, i.round, i.participant) == (Role.TRAIN, record.spec.round, p.name)
                    and child.failure is Failure.COUNTED
                    and i.attempt <= p.attempt
                ]
                assert p.failures <= len(failed)

    @invariant()
    def what_was_accepted_had_succeeded(self):
        for record in self.world.records.values():
            for p in record.status.participants:
                if p.state in ("Reported", "Accepted"):
                    done = [
                        i
                        for i, child in self.world.finished.items()
                        if i.role is Role.TRAIN
                        and (i.round, i.participant, i.attempt)
                        == (record.spec.round, p.name, p.attempt)
                        and child.failure is None
                    ]
                    assert done, (p, sorted(self.world.finished, key=str))

    @invariant()
    def who_lost_round_after_round_is_left_out_unless_it_was_needed(self):
        """Read off the states of all rounds that there were, whatever the records carry along."""
        for record in sorted(self.world.records.values(), key=lambda r: r.spec.round):
            number, spec = record.spec.round, self.world.training.spec
            if number not in self.specs:
                self.specs[number] = spec
                self.begins(record, spec)
            self.losers[number] = {p.name: p for p in record.status.participants}

    def begins(self, record, spec):
        number, policy = record.spec.round, spec.quarantine
        names = {p.name for p in spec.participants}
        stories = {name: self.story(name, number) for name in names}
        blamed = set(record.spec.losing) | set(record.spec.quarantined)
        assert blamed <= {name for name, lost in stories.items() if lost}
        if policy.after == 0:
            assert not blamed
        for name, row in record.spec.losing.items():
            assert row == stories[name], (name, number)
        for name in record.spec.quarantined:
            assert record.spec.quarantined[name] <= number - 1 + policy.rounds
        out = {n for n in names if record.spec.quarantined.get(n, 0) >= number}
        needed = max(spec.quorum.minimum, spec.selection.minimum) - len(names - out)
        if number > 0:
            assert len(out & set(record.spec.invited)) == max(0, needed)

    def story(self, name, number):
        """Rounds lost in a row before this one, since the participant is one."""
        row = 0
        for earlier in range(1, number):
            p = self.losers.get(earlier, {}).get(name)
            spec = self.specs.get(earlier + 1, self.world.training.spec)
            if p is not None and p.state == "Accepted":
                row = 0
            elif p is not None and quarantine.by_own_fault(p):
                row += 1
            if spec.participant(name) is None or spec.quarantine.after == 0:
                row = 0
        return row

    @invariant()
    def success_means_every_round_done(self):
        status = self.world.training.status
        if status.phase == "Succeeded":
            assert status.global_model.round == status.round
            assert status.round >= 1
            assert {r.status.phase for r in self.world.records.values()} == {"Published"}
            last = self.world.record(status.round)
            if self.world.training.spec.evaluation:
                assert last.status.evaluation
                assert not any(e.is_open for e in last.status.evaluation)
            if self.world.training.spec.fine_tune:
                assert last.status.personalization
                assert not any(t.is_open for t in last.status.personalization)

    @invariant()
    def the_models_that_are_kept_are_the_best_there_were(self):
        status, keep = self.world.training.status, self.world.training.spec.keep
        assert len(status.kept) <= keep.best
        values = [best.value for best in status.kept]
        assert values == sorted(values, reverse=True)
        for best in status.kept:
            assert best.model == self.models[best.round]

    @invariant()
    def nobody_is_personalised_before_the_last_model_is_measured(self):
        for identity in self.world.live(Role.PERSONALIZE):
            record = self.world.record(identity.round)
            assert record.status.phase == "Published"
            assert not any(e.is_open for e in record.status.evaluation)

    def teardown(self):
        """Left in peace, every training comes to its end."""
        if not hasattr(self, "world"):
            return
        if self.world.training.spec.suspend:
            self.world.edited(suspend=False)
        self.world.to_the_end()
        assert self.world.training.status.phase == "Succeeded"


class HostileClusterOfThoseWhoStay(HostileCluster):
    """The same with `pods: Resident`: the hub may die, too, and its reports come late or never."""

    make = staticmethod(a_staying_world)

    @rule(data=st.data())
    def the_hub_forgets_what_somebody_told(self, data):
        # Its own work a hub forgets only with its life.
        told = (i for i in self.world.reports if i.role in (Role.TRAIN, Role.EVALUATE))
        if reports := sorted(told, key=str):
            del self.world.reports[data.draw(st.sampled_from(reports))]

    @rule(failure=st.sampled_from([Failure.FREE, Failure.COUNTED]))
    def the_hub_dies(self, failure):
        if self.world.hub is not None:
            self.world._dies(self.world.hub, failure, None)

    @rule()
    def all_goes_well_for_a_while(self):
        self.world.all_succeed()


TestHostileCluster = HostileCluster.TestCase
TestHostileCluster.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestHostileClusterOfThoseWhoStay = HostileClusterOfThoseWhoStay.TestCase
TestHostileClusterOfThoseWhoStay.settings = TestHostileCluster.settings


def test_deleting_before_the_status_is_written_would_count_an_attempt_twice():
    """Why a commit has one order: evidence that goes before it is recorded is lost."""
    world = a_world(retries=2).in_round(1)
    world.fails(world.identity("north"))
    evidence = world.jobs[world.finished and max(world.finished, key=lambda i: i.round)]
    world._delete(evidence)
    world.settle()
    assert world.participant("north").failures == 0
    assert world.identity("north").attempt == 1


@pytest.mark.parametrize("writes", range(9))
def test_a_crash_as_the_last_round_begins_leaves_no_record_too_many(writes):
    """No later round begins that would let go of what this one should have."""
    world = a_world(rounds=3, history=2).in_round(2).all_succeed(Role.TRAIN)
    for identity in world.live(Role.AGGREGATE):
        world.becomes_ready(identity)
        world.succeeds(identity)
    world.look(crash_after=writes)
    world.to_the_end().look()
    assert sorted(record.spec.round for record in world.records.values()) == [2, 3]
