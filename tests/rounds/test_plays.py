"""Dice against the decisions: whatever faults a play has, the training comes to its end.

Beside the state machine of `test_crashes`, whose shrinking explains what it finds and which asserts
more: dice cost a hundredth, so that hundreds of long plays reach the last phases in seconds.
"""

import random
from collections.abc import Callable

import pytest
from staying import StayingWorld, a_staying_world
from world import World, a_world

from fedoperator.rounds.observed import Failure
from fedtrain.contract import Role

PLAYS, MOVES = 30, 60
FAILURES = (Failure.FREE, Failure.COUNTED, Failure.DATA)


class Player:
    """One play: a federation and what befalls it, all of it from one seed."""

    def __init__(self, make: Callable[..., World], seed: str) -> None:
        self.dice = random.Random(seed)
        changes = {
            "evaluation": self.dice.choice([None, {"by": "Participants"}, {"by": "north"}]),
            "personalization": self.dice.choice([None, {"fineTune": {}}]),
        }
        self.world = make(
            self.dice.randint(2, 4),
            rounds=self.dice.randint(1, 3),
            retries=self.dice.randint(0, 2),
            quorum={"minimum": 2},
            quarantine={"after": self.dice.randint(0, 2), "rounds": self.dice.randint(1, 3)},
            **{name: value for name, value in changes.items() if value},
        )
        self.seen = [tuple(self.world.jobs.values())]
        self.moves = [
            *[self.look] * 6,
            *[self.look_at_old_children] * 2,
            *[self.becomes_ready] * 2,
            *[self.succeeds] * 3,
            *[self.all_goes_well] * 2,
            self.fails,
            self.loses_a_round,
            self.is_deleted,
            self.time_passes,
            self.is_suspended_or_resumed,
        ]
        if isinstance(self.world, StayingWorld):
            self.moves += [self.the_hub_dies, self.a_report_is_lost]

    def play(self) -> World:
        for _ in range(MOVES):
            self.dice.choice(self.moves)()
        if self.world.training.spec.suspend:
            self.world.edited(suspend=False)
        return self.world.to_the_end()

    def look(self) -> None:
        self.world.look(crash_after=self.dice.choice([None, None, 0, 1, 2, 3]))
        self.seen.append(tuple(self.world.jobs.values()))

    def look_at_old_children(self) -> None:
        self.world.look(seeing=self.dice.choice(self.seen[-4:]))

    def becomes_ready(self) -> None:
        if live := self.world.live():
            self.world.becomes_ready(self.dice.choice(live))

    def succeeds(self) -> None:
        if live := self.world.live():
            self.world.succeeds(self.dice.choice(live), silent=self.dice.random() < 0.2)

    def all_goes_well(self) -> None:
        """For a while, so that plays get as far as the last phases."""
        self.world.all_succeed()

    def fails(self) -> None:
        if live := self.world.live():
            self.world.fails(self.dice.choice(live), self.dice.choice(FAILURES), "Broken")

    def loses_a_round(self) -> None:
        """For good, while the others are well; rounds lost in a row lead to quarantine."""
        if live := self.world.live(Role.TRAIN):
            self.world.fails(live[0], Failure.DATA, "NotFinite")
            for _ in range(3):
                self.world.all_succeed()

    def is_deleted(self) -> None:
        if left := sorted((i for i, j in self.world.jobs.items() if not j.finished), key=str):
            del self.world.jobs[self.dice.choice(left)]

    def time_passes(self) -> None:
        self.world.passes(seconds=self.dice.choice([1, 30, 700, -3600]))

    def is_suspended_or_resumed(self) -> None:
        self.world.edited(suspend=self.dice.random() < 0.3)

    def the_hub_dies(self) -> None:
        assert isinstance(self.world, StayingWorld)
        if self.world.hub is not None:
            self.world._dies(self.world.hub, self.dice.choice(FAILURES[:2]), None)

    def a_report_is_lost(self) -> None:
        assert isinstance(self.world, StayingWorld)
        if reports := sorted(self.world.reports, key=str):
            lost = self.dice.choice(reports)
            if lost in self.world.handed:
                del self.world.reports[lost]


@pytest.mark.parametrize("make", [a_world, a_staying_world])
@pytest.mark.parametrize("group", range(4))
def test_every_play_of_faults_comes_to_its_end(make: Callable[..., World], group: int) -> None:
    for number in range(PLAYS):
        seed = f"{group}-{number}"
        try:
            world = Player(make, seed).play()
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
        assert world.training.status.phase == "Succeeded", seed
