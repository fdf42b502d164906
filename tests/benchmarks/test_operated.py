"""What is read off the API server's audit log."""

from typing import Any

from benchmarks.operated import figures
from benchmarks.operated.audit import OPERATOR, Request

OF_DIGITS = "/apis/batch/v1/jobs?labelSelector=fedtrain.dev/training%3Ddigits&limit=250"


def a_request(at: float, until: float, **more: Any) -> Request:
    usual: dict[str, Any] = {
        "agent": OPERATOR,
        "namespace": "n",
        "name": "",
        "uri": "",
        "code": 200,
    }
    return Request(**usual | more, at=at, until=until)


def a_look(at: float, until: float) -> Request:
    return a_request(at, until, verb="list", resource="jobs", uri=OF_DIGITS)


def a_write(at: float) -> Request:
    what = {"verb": "update", "resource": "federatedrounds/status", "name": "digits-00001"}
    return a_request(at, at + 0.1, **what)


def an_end(at: float, until: float) -> Request:
    what = {"verb": "update", "resource": "jobs/status", "name": "digits-train-1-north-1"}
    return a_request(at, until, agent="kube-controller-manager", ends=True, **what)


def test_a_reaction_is_the_first_write_of_a_look_that_knows_the_event() -> None:
    seen = [an_end(0, 1), a_look(0.5, 1.5), a_write(2), a_look(5, 6), a_write(7)]
    assert figures.reactions(seen) == [1.0]


def test_a_look_that_was_answered_before_the_event_was_does_not_count_as_knowing_it() -> None:
    seen = [a_look(-0.5, 2), an_end(0, 1), a_look(0.2, 0.8), a_write(2), a_look(5, 6), a_write(7)]
    assert figures.reactions(seen) == [6.0]
