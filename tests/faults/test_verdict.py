"""The verdict sees what may not be, and says how one end differs from another."""

from typing import Any

from tests.faults import verdict
from tests.faults.mirror import View

OWNER = {"kind": "FederatedTraining", "name": "digits", "uid": "12345678-u", "controller": True}


def a_view(*objects: tuple[str, str, dict[str, Any]]) -> View:
    view = View()
    for plural, name, more in objects:
        meta = {"name": name, "uid": f"{name}-uid", **more.get("metadata", {})}
        view.heard("ADDED", (plural, name), {**more, "metadata": meta})
    return view


def a_training(**status: Any) -> tuple[str, str, dict[str, Any]]:
    meta = {"uid": "12345678-u"}
    return ("federatedtrainings", "digits", {"metadata": meta, "status": status})


def a_record(**status: Any) -> tuple[str, str, dict[str, Any]]:
    meta = {"ownerReferences": [OWNER]}
    return ("federatedrounds", "digits-00001", {"metadata": meta, "status": status})


def test_what_nobody_owns_is_an_orphan():
    job = ("jobs", "digits-train-1-north-1", {"metadata": {"ownerReferences": [OWNER]}})
    assert verdict.violations(a_view(a_training(), job)) == []
    (sentence,) = verdict.violations(a_view(job))
    assert sentence == (
        "jobs digits-train-1-north-1 is owned by FederatedTraining digits, which is gone"
    )


def test_nobody_counts_twice():
    north = {"name": "north", "attempt": 1, "state": "Accepted"}
    record = a_record(participants=[north, north], candidates=[{"name": "north", "attempt": 2}])
    found = verdict.violations(a_view(a_training(), record))
    assert found[0] == "digits-00001 has north 2 times among its participants"
    assert found[1] == "digits-00001 accepted north in an attempt that was no candidate"


def test_a_round_has_one_global_model_for_ever():
    view = a_view(a_training(globalModel={"round": 1, "path": "a", "digest": "b"}))
    assert verdict.violations(view) == []
    plural, name, again = a_training(globalModel={"round": 1, "path": "a", "digest": "c"})
    again["metadata"]["name"] = name
    view.heard("MODIFIED", (plural, name), again)
    assert verdict.violations(view) == ["round 1 had 2 global models: a b, a c"]


def test_times_and_uids_are_no_difference_and_everything_else_is():
    took = {"Training": 3.5}
    one = a_view(a_training(phase="Succeeded", startedAt="2026-01-01T00:00:00Z", durations=took))
    other = a_view(a_training(phase="Failed", startedAt="2026-01-02T00:00:00Z"))
    assert verdict.differences(verdict.end_of(one), verdict.end_of(one)) == []
    assert verdict.differences(verdict.end_of(one), verdict.end_of(other)) == [
        "training.phase is Failed here and Succeeded undisturbed"
    ]


def test_what_is_made_again_is_counted_again():
    job = ("jobs", "digits-init-0-north-1", {})
    once, twice = a_view(job), a_view(job)
    made = twice.objects["jobs", "digits-init-0-north-1"]
    twice.heard("DELETED", ("jobs", "digits-init-0-north-1"), made)
    again = {"metadata": {**made["metadata"], "uid": "another"}}
    twice.heard("ADDED", ("jobs", "digits-init-0-north-1"), again)
    twice.heard("ADDED", ("jobs", "digits-init-0-north-1"), again)  # as a new list would
    found = verdict.differences(verdict.end_of(once), verdict.end_of(twice))
    assert found == [
        "created.jobs digits-init-0-north-1 is 2 here and 1 undisturbed",
        "deleted.jobs digits-init-0-north-1 is 1 here and nothing undisturbed",
    ]
