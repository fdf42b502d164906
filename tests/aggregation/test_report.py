"""What shards tell each other: the same values on both sides, and one report out of many."""

import json

import numpy as np
import pytest

from fedtrain.aggregation.report import Claim, Refusal, Report, merged

ONE = Report(
    complete=False,
    refusals=(Refusal(candidate=3, reason="NotFinite", sentence="tensor 'w'", at=(4, 1024)),),
    claims=(Claim(candidate=0, samples=7, digest="sha256:0", size=9),),
    hashes={"0": {"w": "ab" * 32}},
    squares={"w": (0.1 + 0.2, 1e-300)},
    largest={"w": (1.0, 2.0)},
    alignment={"w": (0.1, 0.2, 0.3)},
    products={"w": np.array([[1 / 3, 5e-324], [-0.0, 1e308]])},
    written={"model": 12},
)


def test_a_report_comes_back_to_the_last_bit() -> None:
    again = Report.from_json(ONE.to_json())
    assert again.to_json() == ONE.to_json()
    assert again.squares == ONE.squares
    assert again.alignment == ONE.alignment
    assert again.products["w"].tobytes() == ONE.products["w"].tobytes()
    assert (again.refusals, again.claims) == (ONE.refusals, ONE.claims)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"refusals": 1}', ONE.to_json()[:-1]])
def test_what_is_no_report_is_an_error_in_one_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="not a report"):
        Report.from_json(text)


def test_a_report_is_plain_json() -> None:
    assert json.loads(ONE.to_json())["written"] == {"model": 12}


def test_of_a_candidate_s_refusals_the_first_in_the_schema_counts_whoever_found_it() -> None:
    early, late = (
        Report(refusals=(Refusal(candidate=1, reason=reason, sentence="", at=at),))
        for reason, at in (("TooLarge", (2, 0)), ("NotFinite", (5, 0)))
    )
    for order in ((early, late), (late, early)):
        (refusal,) = merged(order).refusals
        assert refusal.reason == "TooLarge"


def test_a_receipt_that_shards_read_differently_is_refused() -> None:
    reports = [
        Report(claims=(Claim(candidate=0, samples=n, digest="d", size=1),)) for n in (1, 10**9)
    ]
    whole = merged(reports)
    assert whole.claims == ()
    assert [refusal.reason for refusal in whole.refusals] == ["ReceiptMismatch"]


def test_one_report_is_made_of_the_tensors_of_all() -> None:
    parts = [
        Report(
            hashes={"0": {name: name * 64}},
            squares={name: (1.0,)},
            written={"model": 5},
            complete=name == "a",
        )
        for name in "ab"
    ]
    whole = merged(parts)
    assert whole.hashes == {"0": {"a": "a" * 64, "b": "b" * 64}}
    assert whole.squares == {"a": (1.0,), "b": (1.0,)}
    assert (whole.written, whole.complete) == ({"model": 10}, False)
