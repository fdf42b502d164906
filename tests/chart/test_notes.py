"""The last words of an installation name the next command, and what is wrong with the values."""

import pytest

from tests.chart.conftest import CHART


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "helm test fedtrain -n fedtrain-system --logs"),
        ([], "kubectl apply -n fedtrain-system -f examples/01-digits/federation.yaml"),
        ([], "kubectl logs -n fedtrain-system deploy/fedtrain"),
        ([], "in namespace fedtrain-system."),
        (["watch.namespace=a"], "kubectl apply -n a -f examples"),
        (["watch.clusterWide=true"], "in all namespaces."),
        (["watch.clusterWide=true"], "kubectl get fedt,fedr --watch"),
        ([], "`helm uninstall` leaves the CustomResourceDefinitions and every training"),
        (["replicas=0"], "WARNING: replicas is 0: nobody sees to anything"),
        (["rbac.create=false"], "WARNING: rbac.create is false: the operator is not ready before"),
        (["serviceAccount.create=false"], "WARNING: serviceAccount.create is false and"),
        (["crds.enabled=false"], "WARNING: crds.enabled is false, and this cluster does not know"),
        (["networkPolicy.enabled=true"], "reaches the API server on port 443 or 6443 alone:"),
        (
            ["networkPolicy.enabled=true", "networkPolicy.apiServer.cidrs={192.0.2.1/32}"],
            "on port 443 or 6443 alone, at 192.0.2.1/32:",
        ),
    ],
)
def test_notes_say_what_is_next_and_what_is_wrong(helm, given, said):
    assert said in notes(helm, *given)


def test_notes_of_what_is_well_warn_of_nothing(helm):
    for given in ([], ["serviceAccount.create=false", "serviceAccount.name=theirs"]):
        assert "WARNING" not in notes(helm, *given)
    for given in (["crds.keep=false"], ["crds.enabled=false"]):
        assert "leaves the CustomResourceDefinitions" not in notes(helm, *given)


def notes(helm, *given: str) -> str:
    words = [f"--set={value}" for value in given]
    where = ("--namespace", "fedtrain-system", "--dry-run=client")
    return helm("install", "fedtrain", CHART, *where, *words).partition("\nNOTES:\n")[2]
