"""What the operator may do is asked for, and what it may not is told before it is needed."""

import asyncio
import contextlib
from types import SimpleNamespace

import pytest

from fedoperator import errors
from fedoperator.cluster import rights
from fedoperator.cluster.rights import LEASE, NEEDED, Rights, absent
from tests.cluster import rbac

ALL = rbac.rules(rbac.NAMESPACED)
OF_ONE_LEASE = [
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
    {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": ["fedtrain"],
        "verbs": ["get", "update"],
    },
]


def test_what_the_chart_grants_is_enough():
    assert list(absent(NEEDED, ALL)) == []
    assert list(absent(LEASE, OF_ONE_LEASE, name="fedtrain")) == []


@pytest.mark.parametrize("missing", range(len(NEEDED)))
def test_every_rule_is_needed(missing):
    group, resource, verbs = NEEDED[missing]
    left = ALL[:missing] + ALL[missing + 1 :]
    (told,) = absent(NEEDED, left)
    assert told == f"{verbs.replace(' ', ' and ')} {resource}{group and f'.{group}'}"


def test_one_verb_is_named_by_itself():
    jobs = {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get", "list", "watch"]}
    left = [rule for rule in ALL if rule["resources"] != ["jobs"]]
    assert list(absent(NEEDED, [*left, jobs])) == ["create and delete jobs.batch"]


@pytest.mark.parametrize(
    "wide",
    [
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
        {"apiGroups": ["", "batch", "fedtrain.dev", "networking.k8s.io"]}
        | {"resources": ["*", "*/status"], "verbs": ["*"]},
    ],
)
def test_wildcards_allow_what_they_say(wide):
    assert list(absent(NEEDED, [wide])) == []


def test_a_rule_for_certain_objects_is_none_for_all():
    named = [rule | {"resourceNames": ["digits"]} for rule in ALL]
    assert len(list(absent(NEEDED, named))) == len(NEEDED)
    others = [rule | {"resourceNames": ["another"]} for rule in OF_ONE_LEASE]
    assert list(absent(LEASE, others, name="fedtrain")) == [
        "get and create and update leases.coordination.k8s.io"
    ]


def test_rules_that_the_server_does_not_know_all_of_prove_nothing():
    assert list(absent(NEEDED, None)) == []


async def after_one_question(answer, watched="hospitals") -> tuple[Rights, list[str]]:
    """answer: called with the namespace; gives a status or raises."""
    asked = []

    async def request(method, path, body):
        asked.append(body["spec"]["namespace"])
        return {"status": answer(asked[-1])}

    known = Rights(
        SimpleNamespace(request=request),  # type: ignore[arg-type]
        watched=watched,
        lease_namespace="fedtrain-system",
        lease_name="fedtrain",
    )
    assert list(known.lacking()) == ["what the operator may do is not known yet"]
    asking = asyncio.create_task(known.keep())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    return known, asked


async def test_of_each_namespace_it_is_told_what_lacks_there():
    lacking = {"hospitals": ALL[1:], "fedtrain-system": OF_ONE_LEASE[:1]}
    known, asked = await after_one_question(lambda where: {"resourceRules": lacking[where]})
    assert asked == ["hospitals", "fedtrain-system"]
    of_trainings, of_the_lease = known.lacking()
    assert of_trainings == (
        "the operator may not get and list and watch federatedtrainings.fedtrain.dev in namespace "
        "hospitals: bind the rules of the chart's templates/rbac.yaml to its ServiceAccount"
    )
    assert "get and update leases.coordination.k8s.io in namespace fedtrain-system" in of_the_lease


async def test_one_question_is_enough_where_both_are_in_one_namespace():
    known, asked = await after_one_question(
        lambda where: {"resourceRules": ALL + OF_ONE_LEASE}, watched=""
    )
    assert asked == ["fedtrain-system"]
    assert list(known.lacking()) == []


async def test_an_account_that_may_not_ask_is_not_called_short_of_rights():
    def refuse(_):
        raise errors.Refused("selfsubjectrulesreviews is forbidden")

    known, _ = await after_one_question(refuse)
    assert list(known.lacking()) == []


async def test_silence_changes_nothing_that_was_known(monkeypatch):
    monkeypatch.setattr(rights, "PAUSE", 0)
    answers = iter([{"resourceRules": ALL[1:] + OF_ONE_LEASE}])

    def answer(_):
        for status in answers:
            return status
        raise errors.Unavailable("no answer")

    known, _ = await after_one_question(answer, watched="fedtrain-system")
    assert len(list(known.lacking())) == 1
