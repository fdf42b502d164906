"""What of a change wakes a look."""

import pytest
from listed import a_condition, a_job

from fedoperator.rounds import news


def test_a_job_that_was_only_just_made_is_no_news():
    assert not news.of_job(a_job())
    assert not news.of_job(a_job(ready=1, nodes=2))


@pytest.mark.parametrize("kind", ["SuccessCriteriaMet", "FailureTarget", "Suspended"])
def test_whatever_a_job_has_come_to_is_news(kind):
    assert news.of_job(a_job(a_condition(kind)))


@pytest.mark.parametrize("what", ["failed", "succeeded", "terminating"])
def test_a_pod_that_ended_or_goes_is_news(what):
    job = a_job(nodes=2)
    job["status"][what] = 1
    assert news.of_job(job)


def test_a_job_that_runs_goes_or_was_suspended_by_somebody_is_news():
    suspended = a_job()
    suspended["spec"]["suspend"] = True
    assert all(news.of_job(job) for job in (a_job(ready=1), a_job(deleting=True), suspended))


def test_of_a_training_a_new_spec_and_its_deletion_are_news_and_its_status_is_not():
    def training(observed, **meta):
        status = {"observedGeneration": observed} if observed else {}
        return {"metadata": {"generation": 2, **meta}, "status": status}

    assert not news.of_training(training(2))
    assert news.of_training(training(1))
    assert news.of_training(training(None))
    assert news.of_training(training(2, deletionTimestamp="2026-01-01T00:00:00Z"))
