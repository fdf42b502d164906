"""What holds for every strategy."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.strategies import STRATEGIES, Needs, strategy
from tests.strategies.rounds_in_memory import (
    DOCUMENTS,
    facts_of,
    initial,
    label,
    reduce_by,
    reduced,
    updates,
)

Document = Mapping[str, object]
SEEDS = st.integers(0, 2**32)
every_strategy = pytest.mark.parametrize("document", DOCUMENTS, ids=label)
laws = settings(deadline=None, max_examples=25)
NUMBERS = st.integers(11, 14)
"""Participants: enough for each of the documents."""


def test_every_strategy_is_among_the_documents() -> None:
    assert {str(document["name"]) for document in DOCUMENTS} == set(STRATEGIES)


@pytest.mark.parametrize(
    "document",
    [d for d in DOCUMENTS if d["name"] != "Bulyan"] + [{"name": "Bulyan", "byzantine": 3}],
    ids=label,
)
@laws
@given(seed=SEEDS, participants=st.integers(15, 18))
def test_the_order_of_participants_does_not_matter(
    document: Document, seed: int, participants: int
) -> None:
    """Of Bulyan this is so from f = 3 on, where no score is of one neighbour only, and so a tie."""
    deltas = updates(seed, participants)
    samples = np.arange(1, participants + 1)
    order = np.random.default_rng(seed).permutation(participants)
    one = reduce_by(document, deltas, samples=samples)
    other = reduce_by(document, deltas[order], samples=samples[order])
    assert np.allclose(one, other, rtol=1e-5, atol=1e-5)


@every_strategy
@laws
@given(seed=SEEDS, participants=NUMBERS)
def test_where_all_agree_they_get_what_they_agree_on(
    document: Document, seed: int, participants: int
) -> None:
    """Except a clipped step towards it."""
    delta = updates(seed, 1)[0]
    result = reduce_by(document, np.tile(delta, (participants, 1)), samples=[*range(participants)])
    if document.get("radius") == 0.5:
        delta = (delta * 3 * 0.5 / np.linalg.norm(delta)).astype(np.float32)
    assert np.allclose(result, delta, rtol=1e-6, atol=1e-7)


@every_strategy
def test_a_first_round_with_the_fewest_participants_and_no_progress_changes_nothing(
    document: Document,
) -> None:
    rule = strategy(document)
    base = updates(1, 1)[0]
    slots = initial(rule, 33)
    delta = reduced(rule, np.zeros((rule.minimum, 33), np.float32), slots=slots)
    assert np.array_equal(delta, np.zeros(33))
    assert np.array_equal(rule.step(base.copy(), delta, slots), base)


@every_strategy
@laws
@given(seed=SEEDS, more=st.integers(0, 2))
def test_the_fewest_participants_are_enough(document: Document, seed: int, more: int) -> None:
    rule = strategy(document)
    deltas = updates(seed, rule.minimum + more)
    result = reduced(rule, deltas)
    assert result.dtype == np.float32
    assert result.shape == (33,)
    low = np.minimum(deltas.min(axis=0), 0)
    high = np.maximum(deltas.max(axis=0), 0)
    assert np.all((low - 1e-5 <= result) & (result <= high + 1e-5))


@every_strategy
@laws
@given(
    seed=SEEDS,
    exponents=st.lists(st.integers(-44, 30), min_size=11, max_size=14),
    signs=SEEDS,
)
def test_no_finite_update_makes_anything_infinite_for_rounds(
    document: Document, seed: int, exponents: list[int], signs: int
) -> None:
    """Up to 1.3e30, far beyond what intake lets pass, and warnings are errors."""
    rule = strategy(document)
    model = updates(seed, 1)[0]
    slots = initial(rule, 33)
    rng = np.random.default_rng(signs)
    for _ in range(5):
        magnitudes = 1.3 * 10.0 ** rng.permutation(exponents)
        deltas = magnitudes[:, None] * rng.choice([-1, 0, 1], size=(len(exponents), 33))
        delta = reduced(rule, deltas.astype(np.float32), slots=slots)
        model = rule.step(model, delta, slots)
        assert np.isfinite(model).all()
        assert all(np.isfinite(values).all() for values in slots.values())


@every_strategy
@laws
@given(seed=SEEDS, cuts=st.sets(st.integers(1, 32), max_size=4))
def test_pieces_give_the_same_bytes_as_the_whole(
    document: Document, seed: int, cuts: set[int]
) -> None:
    rule = strategy(document)
    deltas = updates(seed, 12)
    model = updates(seed + 1, 1)[0]
    coefficients = rule.coefficients(facts_of(rule, deltas))
    edges = [0, *sorted(cuts), 33]

    def folded(start: int, stop: int) -> list[np.ndarray]:
        slots = initial(rule, stop - start)
        if rule.center is not None:
            coefficients_of_deltas = coefficients[:-1].astype(np.float32)
        else:
            coefficients_of_deltas = coefficients.astype(np.float32)
        stack = deltas[:, start:stop].copy()
        delta = rule.combine(stack, coefficients_of_deltas)
        return [rule.step(model[start:stop].copy(), delta, slots), *slots.values()]

    pieces = [folded(start, stop) for start, stop in pairwise(edges)]
    for whole, *parts in zip(folded(0, 33), *pieces, strict=True):
        assert whole.tobytes() == np.concatenate(parts).tobytes()


@every_strategy
@laws
@given(seed=SEEDS, participants=NUMBERS, samples=SEEDS)
def test_floating_buffers_are_a_mean_of_the_accepted(
    document: Document, seed: int, participants: int, samples: int
) -> None:
    rule = strategy(document)
    counts = np.random.default_rng(samples).integers(1, 1000, participants)
    facts = facts_of(rule, updates(seed, participants), samples=counts)
    weights = rule.buffer_weights(facts, rule.coefficients(facts))
    assert weights.shape == (participants,)
    assert np.all(weights >= 0)
    assert weights.sum() == pytest.approx(1)


@every_strategy
def test_coefficients_ask_for_no_more_than_the_needs(document: Document) -> None:
    rule = strategy(document)
    facts = facts_of(rule, updates(1, 12))
    lean = type(facts)(
        weights=facts.weights,
        products=facts.products if Needs.PRODUCTS in rule.needs else None,
        lengths=facts.lengths if rule.counts_steps else None,
    )
    assert np.array_equal(rule.coefficients(lean), rule.coefficients(facts))


ROBUST = [
    document
    for document in DOCUMENTS
    if document["name"] in ("Median", "TrimmedMean", "Krum", "MultiKrum", "Bulyan")
]


@pytest.mark.parametrize("document", ROBUST, ids=label)
@laws
@given(seed=SEEDS, participants=NUMBERS, direction=SEEDS, same=st.booleans())
def test_outliers_do_not_take_a_robust_rule_out_of_the_honest_range(
    document: Document, seed: int, participants: int, direction: int, same: bool
) -> None:
    """As many as it is told to put up with (the median: less than half), anywhere in the order."""
    most = document.get("byzantine", document.get("trim", (participants - 1) // 2))
    assert isinstance(most, int)
    rng = np.random.default_rng(direction)
    outliers = rng.choice(participants, most, replace=False)
    deltas = updates(seed, participants)
    signs = rng.choice([-1, 1], size=(1 if same else most, 33))
    deltas[outliers] = np.float32(1e30) * signs
    honest = np.delete(deltas, outliers, axis=0)
    result = reduce_by(document, deltas)
    assert np.all((honest.min(axis=0) - 1e-5 <= result) & (result <= honest.max(axis=0) + 1e-5))


def test_one_outlier_takes_fedavg_anywhere() -> None:
    """So that the law above says something."""
    deltas = updates(1, 9)
    deltas[4] = 1e30
    assert np.all(reduce_by({"name": "FedAvg"}, deltas) > 1e28)


@pytest.mark.parametrize("name", ["FedAvg", "FedProx", "FedAvgM", "DiLoCo", "GeometricMedian"])
def test_sample_counts_count(name: str) -> None:
    deltas = updates(1, 3)
    result = reduce_by({"name": name}, deltas, samples=[998, 1, 1])
    assert np.allclose(result, deltas[0], atol=0.02)
