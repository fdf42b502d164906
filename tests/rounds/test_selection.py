"""A random subset, the same for the same seed."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from fedoperator.api.training import Selection
from fedoperator.rounds.selection import select

names = st.sets(st.from_regex("[a-z]{1,6}", fullmatch=True), min_size=1, max_size=30)
selections = st.builds(
    Selection,
    fraction=st.floats(0.01, 1),
    minimum=st.integers(1, 5),
    seed=st.integers(0, 2**40),
)


@given(names, selections, st.integers(1, 1000))
def test_it_is_a_function_of_names_seed_and_round(participants, selection, number):
    again = select(sorted(participants, reverse=True), selection, number)
    assert select(sorted(participants), selection, number) == again


@given(names, selections, st.integers(1, 1000), st.integers(1, 40))
def test_it_invites_as_many_as_asked_and_never_more_than_there_are(ps, selection, number, quorum):
    chosen = select(ps, selection, number, at_least=quorum)
    least = max(selection.minimum, quorum, selection.fraction * len(ps) - 1e-6)
    assert set(chosen) <= ps
    assert min(len(ps), least) <= len(chosen) <= len(ps)
    assert list(chosen) == sorted(set(chosen))


@given(names, selections, st.integers(1, 1000))
def test_removing_one_that_was_not_chosen_changes_nothing(participants, selection, number):
    chosen = select(participants, selection, number, at_least=1)
    for name in participants - set(chosen):
        fewer = select(participants - {name}, selection, number)
        assert set(fewer) <= set(chosen)


def test_everybody_gets_a_turn():
    chosen = Counter()
    for number in range(1, 201):
        chosen.update(select("abcde", Selection(fraction=0.6, seed=7), number))
    assert all(90 <= chosen[name] <= 150 for name in "abcde"), chosen


def test_three_of_five_is_three():
    assert len(select("abcde", Selection(fraction=0.6), 1)) == 3
