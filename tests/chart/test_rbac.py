"""What the operator may do: what it does, and nothing else."""

import pytest

from tests.chart.conftest import only
from tests.cluster import rbac


def granted(role) -> set[tuple[str, str, str, str]]:
    """(group, resource, verb, name or nothing), one each."""
    return {
        (group, resource, verb, name)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
    }


def used(table) -> set[tuple[str, str, str, str]]:
    return {(group, resource, verb, "") for group, resource, v in table for verb in v.split()}


def test_the_role_grants_exactly_the_verbs_that_are_used(rendered):
    assert granted(only(rendered(), "Role")) == used(rbac.NAMESPACED + rbac.GANGS)


def test_the_same_holds_for_a_whole_cluster(rendered):
    documents = rendered({"watch": {"clusterWide": True}})
    name = "fedtrain-system-fedtrain"
    assert granted(only(documents, "ClusterRole", name)) == used(rbac.NAMESPACED + rbac.GANGS)
    assert only(documents, "ClusterRoleBinding", name)["roleRef"]["name"] == name
    assert [d["metadata"]["name"] for d in documents if d["kind"] == "Role"] == ["fedtrain-lease"]


def test_a_lease_is_its_own_alone(rendered):
    role = only(rendered({"watch": {"namespace": "hospitals"}}), "Role", "fedtrain-lease")
    assert role["metadata"]["namespace"] == "fedtrain-system"
    group = "coordination.k8s.io"
    assert granted(role) == {
        (group, "leases", "create", ""),
        (group, "leases", "get", "fedtrain"),
        (group, "leases", "update", "fedtrain"),
    }
    assert {g[:3] for g in granted(role)} == {g[:3] for g in used(rbac.LEASES)}


def test_the_role_is_where_the_trainings_are(rendered):
    documents = rendered({"watch": {"namespace": "hospitals"}})
    for kind in ("Role", "RoleBinding"):
        assert only(documents, kind)["metadata"]["namespace"] == "hospitals"
    (subject,) = only(documents, "RoleBinding")["subjects"]
    assert (subject["name"], subject["namespace"]) == ("fedtrain", "fedtrain-system")


@pytest.mark.parametrize("everywhere", [False, True])
def test_no_wildcards_no_secrets_no_escalation(rendered, everywhere):
    documents = rendered({"watch": {"clusterWide": everywhere}})
    for role in documents:
        for group, resource, verb, _ in granted(role) if "rules" in role else ():
            assert "*" not in (group, resource, verb)
            assert resource not in (
                "secrets",
                "roles",
                "rolebindings",
                "serviceaccounts",
                "pods/exec",
            )
            assert verb not in ("escalate", "bind", "impersonate")


def test_people_may_write_trainings_but_no_records(rendered):
    documents = rendered()
    edit = granted(only(documents, "ClusterRole", "fedtrain-system-fedtrain-edit"))
    assert {(resource, verb) for _, resource, verb, _ in edit} == {
        ("federatedtrainings", verb) for verb in ("create", "update", "patch", "delete")
    }
    view = granted(only(documents, "ClusterRole", "fedtrain-system-fedtrain-view"))
    assert {verb for _, _, verb, _ in view} == {"get", "list", "watch"}
