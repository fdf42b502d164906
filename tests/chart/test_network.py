"""Whom the operator talks to, by the rules of its NetworkPolicy."""

import pytest
from policies import Pod, may_connect

from fedtrain.contract import HUB_PORT
from tests.chart.conftest import only


@pytest.mark.parametrize("everywhere", [False, True])
def test_the_operators_policy_lets_in_scrapes_and_lets_out_what_it_needs(rendered, everywhere):
    asked = {"networkPolicy": {"enabled": True}, "watch": {"clusterWide": everywhere}}
    documents = rendered(asked)
    policies = [only(documents, "NetworkPolicy")]
    labels = only(documents, "Deployment")["spec"]["template"]["metadata"]["labels"]
    operator = Pod("fedtrain-system", labels)
    hub = {"fedtrain.dev/training": "digits", "fedtrain.dev/resident": "true"}
    here, elsewhere = Pod("fedtrain-system", hub), Pod("hospitals", hub)
    stranger, server = Pod("fedtrain-system", {"app": "web"}), Pod("", None, "192.0.2.1")

    assert may_connect(policies, stranger, operator, 8080), "scrapes come from anywhere"
    assert not may_connect(policies, stranger, operator, 7448)
    assert may_connect(policies, operator, Pod("kube-system", {"k8s-app": "dns"}), 53, "UDP")
    assert not may_connect(policies, operator, server, 53, "UDP")
    assert may_connect(policies, operator, server, 6443)
    assert not may_connect(policies, operator, server, 22)
    assert may_connect(policies, operator, here, HUB_PORT)
    assert may_connect(policies, operator, elsewhere, HUB_PORT) == everywhere
    assert not may_connect(policies, operator, stranger, HUB_PORT)
    assert not may_connect(policies, operator, here, 22)


def test_where_the_api_server_is_may_be_said(rendered):
    where = {"cidrs": ["192.0.2.1/32"], "ports": [16443]}
    documents = rendered({"networkPolicy": {"enabled": True, "apiServer": where}})
    policies = [only(documents, "NetworkPolicy")]
    labels = only(documents, "Deployment")["spec"]["template"]["metadata"]["labels"]
    operator = Pod("fedtrain-system", labels)
    assert may_connect(policies, operator, Pod("", None, "192.0.2.1"), 16443)
    assert not may_connect(policies, operator, Pod("", None, "192.0.2.2"), 16443)
    assert not may_connect(policies, operator, Pod("", None, "192.0.2.1"), 443)
