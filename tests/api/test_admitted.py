"""The rules and the API server give equal verdicts; the whole ten thousand: tests.api.admitted."""

import pytest

from fedoperator.api import admission
from tests.api import admitted


@pytest.mark.apiserver
async def test_generated_trainings_are_judged_alike(transport) -> None:
    tallies = await admitted.compared(transport, "judged", 1500, "test")
    for tally in tallies.values():
        assert tally.differences == [], str(tally)
        assert min(tally.accepted, tally.refused) > tally.count // 5, str(tally)


async def test_a_difference_is_told_with_its_seed_and_made_small(a_training) -> None:
    async def says_no(document):
        wrong = admission.problems(None, document)
        return "no" if wrong or "retries" in document["spec"] else None

    tally = admitted.Tally()
    document = a_training(retries=1, seed=4, history=9)
    await admitted.judge(admitted.Case("seven", document, says_no), tally)
    (told,) = tally.differences
    assert told.startswith("seed seven: ")
    assert '"retries": 1' in told
    assert "history" not in told
