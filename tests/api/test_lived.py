"""A few generated trainings to their end; `python -m tests.api.lived` takes hundreds."""

import pytest

from tests.api import lived


def test_whatever_is_accepted_comes_to_an_end_or_says_what_it_waits_for() -> None:
    said = {"status": {"phase": "Blocked", "reason": "ClaimMissing", "message": "make it"}}
    assert lived.told(said) == "Blocked: ClaimMissing"
    assert lived.told({"status": {"phase": "Blocked", "reason": "ClaimMissing"}}) is None
    assert lived.told({"status": {"phase": "Training"}}) is None
    assert lived.told({}) is None


@pytest.mark.apiserver
def test_a_dozen_generated_trainings_end_and_disturb_nobody() -> None:
    ends = lived.run(12, "ci")
    assert ends.total() == 12
    assert ends["Succeeded"] >= 6
