"""Whatever the operator is killed at, its training comes to the same end: a quarter of all points.

`make faults` runs all of them, and random crashes and mixes beside.
"""

import pytest

from tests.cluster import rbac
from tests.faults import bench, run
from tests.faults.bench import Bench
from tests.faults.run import Point
from tests.faults.scenarios import SCENARIOS

pytestmark = pytest.mark.apiserver

SELDOM = {
    ("", "events", "list"),  # of Jobs that do not start for half a minute
    ("batch", "jobs", "get"),  # of one that is there already, and that an old list did not show
}


@pytest.mark.parametrize("name", SCENARIOS)
async def test_the_same_end_wherever_the_operator_is_killed(faults, name):
    undisturbed = await faults.undisturbed(name)
    assert undisturbed.wrong == []
    points = bench.a_part(bench.crash_points(name, len(undisturbed.written)), of=4)
    outcomes = [outcome async for outcome in faults.all(points)]
    assert [(str(o.point), o.point.replay, o.hit, o.wrong) for o in outcomes if o.wrong] == []
    assert sum(bool(o.hit) for o in outcomes) >= 0.8 * len(points), "hardly any was killed"


async def test_it_asks_for_all_that_the_chart_grants_and_for_nothing_else(faults):
    """Killed where it finds its claim made already; what is seldom asked for is named above."""
    undisturbed = await faults.undisturbed("plain")
    claim = undisturbed.written.index("create persistentvolumeclaims digits-exchange") + 1
    outcome = await faults.run(bench.crash_point("plain", claim, "unanswered"))
    assert outcome.wrong == []
    granted = {
        (group, resource, verb)
        for group, resource, verbs in rbac.NAMESPACED + rbac.LEASES
        for verb in verbs.split()
    }
    assert faults.verbs <= granted
    assert granted - faults.verbs <= SELDOM


async def test_a_forked_operator_does_what_a_started_one_does(faults):
    """Killed in the middle of a commit, and started by `python -m fedoperator` each time."""
    forked = bench.crash_point("plain", 16, "unanswered")
    started = Point(scenario=forked.scenario, faults=forked.faults, plainly=True)
    for outcome in [await faults.run(started), await faults.run(forked)]:
        assert outcome.wrong == []
        assert outcome.hit != []


async def test_a_successor_with_another_identity_waits_for_the_lease(faults):
    point = bench.followed_by_a_stranger(bench.crash_point("plain", 18, "after"))
    outcome = await faults.run(point)
    assert outcome.wrong == []
    acquired = [line for line in outcome.log.splitlines() if "lease acquired" in line]
    assert ["operator-0" in acquired[0], "operator-1" in acquired[1]] == [True, True]


async def test_a_training_applied_again_is_not_misled_by_what_was_there_before(faults):
    """The first lists of its children are those of the training before."""
    points = [Point(scenario="again", old_lists=n) for n in (1, 2, 3)]
    outcomes = [outcome async for outcome in faults.all(points)]
    assert [(o.point.old_lists, o.wrong) for o in outcomes if o.wrong] == []
    assert [len(o.hit) for o in outcomes] == [o.point.old_lists for o in outcomes]


async def test_two_operators_that_get_the_lease_in_turn_are_as_good_as_one(faults):
    points = [Point(scenario=name, rivals=True) for name in ("plain", "suspend", "resident")]
    outcomes = [outcome async for outcome in faults.all(points)]
    assert [(str(o.point), o.wrong) for o in outcomes if o.wrong] == []
    assert [o.hit for o in outcomes if len(o.hit) < 2] == [], "the lease changed hands"


async def test_once_all_is_said_nothing_is_written_for_a_minute(faults, monkeypatch):
    monkeypatch.setattr(run, "QUIET", 60.0)
    monkeypatch.setattr(run, "SETTLES", 75.0)
    outcomes = [o async for o in faults.all([Point(scenario=n) for n in ("plain", "resident")])]
    assert [(str(o.point), o.wrong) for o in outcomes if o.wrong] == []


PLANTED = """
import types
from fedoperator.rounds import life, machine
machine.life = types.SimpleNamespace(**vars(life))
machine.life.filled_in = lambda look, record: record
"""
"""A record that was made, and whose first status was not written any more, is taken as it is."""


async def test_the_bench_finds_what_is_planted(kubectl, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "STUCK", 20.0)
    async with Bench.open(kubectl.kubeconfig, tmp_path, planted=PLANTED) as faults:
        undisturbed = await faults.undisturbed("plain")
        assert undisturbed.wrong == []
        begun = undisturbed.written.index("create federatedrounds digits-00001") + 1
        outcome = await faults.run(bench.crash_point("plain", begun, "after"))
        assert outcome.wrong != []
