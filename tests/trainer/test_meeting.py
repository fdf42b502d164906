"""Ranks that act together: one error for all, wherever it was met, and nobody waits for ever."""

from typing import Any

import pytest

from fedtrain.collective import Alone
from fedtrain.errors import DataError, TryAgain
from fedtrain.meeting import Meeting
from tests.trainer.threads import Threads

STEPS = 3


def acted(failing: dict[int, int], world: int = 3) -> list[Any]:
    """What became of ranks that gather in three steps, of which some fail before a step."""

    def live(ranks: Any) -> Any:
        meeting = Meeting(ranks)

        def act() -> list[list[int]]:
            told = []
            for step in range(STEPS + 1):
                if failing.get(ranks.rank) == step:
                    raise TryAgain("Failed", f"rank {ranks.rank} in step {step}")
                if step < STEPS:
                    told.append(meeting.gather(10 * step + ranks.rank))
            return told

        return meeting.act(act)

    return Threads(world).run(live)


def test_without_a_failure_everybody_hears_everybody() -> None:
    assert acted({}) == [[[0, 1, 2], [10, 11, 12], [20, 21, 22]]] * 3


@pytest.mark.parametrize("step", range(STEPS + 1))
@pytest.mark.parametrize("rank", range(3))
def test_a_failure_anywhere_is_the_same_error_everywhere(rank: int, step: int) -> None:
    errors = acted({rank: step})
    assert {(type(e), e.reason, str(e)) for e in errors} == {
        (TryAgain, "Failed", f"rank {rank} in step {step}")
    }


def test_of_several_failures_the_first_step_and_then_the_first_rank_is_told() -> None:
    assert {str(error) for error in acted({0: 2, 1: 1, 2: 1})} == {"rank 1 in step 1"}


def test_ranks_go_on_together_after_a_failure() -> None:
    def live(ranks: Any) -> Any:
        meeting = Meeting(ranks)

        def fail() -> None:
            if ranks.rank == 1:
                raise DataError("NotFinite", "rows of rank 1")
            meeting.gather("never heard")

        with pytest.raises(DataError, match="rows of rank 1"):
            meeting.act(fail)
        return meeting.act(lambda: meeting.tell(ranks.rank + 5))

    assert Threads(2).run(live) == [5, 5]


def test_a_process_alone_raises_what_it_raised() -> None:
    error = DataError("NotFinite", "w")

    def fail() -> None:
        raise error

    with pytest.raises(DataError) as raised:
        Meeting(Alone()).act(fail)
    assert raised.value is error


def test_a_bug_is_nobody_s_word_and_passes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        Meeting(Alone()).act(lambda: 1 // 0)
