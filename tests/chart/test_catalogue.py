"""What a catalogue of charts shows of this one is what it is."""

import tomllib

import yaml

from fedoperator.api import admission, crd
from fedoperator.api.training import TrainingSpec
from tests.chart.conftest import CHART, ROOT, only

CHART_YAML = yaml.safe_load((CHART / "Chart.yaml").read_text())


def shown(name: str):
    return yaml.safe_load(CHART_YAML["annotations"][f"artifacthub.io/{name}"])


def test_the_catalogue_names_the_image_that_is_installed(rendered):
    (container,) = only(rendered(), "Deployment")["spec"]["template"]["spec"]["containers"]
    assert shown("images") == [{"name": "controller", "image": container["image"]}]


def test_the_catalogue_names_the_definitions_that_are_installed():
    there = [yaml.safe_load(text) for name, text in crd.files().items() if "/crds/" in name]
    assert {(c["kind"], c["version"], c["name"]) for c in shown("crds")} == {
        (d["spec"]["names"]["kind"], d["spec"]["versions"][0]["name"], d["metadata"]["name"])
        for d in there
    }
    assert all(c["displayName"] and c["description"].endswith(".") for c in shown("crds"))


def test_the_catalogues_example_is_a_training():
    (example,) = shown("crdsExamples")
    assert list(admission.problems(None, example)) == []
    TrainingSpec.model_validate(example["spec"])


def test_the_catalogue_says_what_changed_under_which_license():
    assert all(c["kind"] in CHANGES and c["description"] for c in shown("changes"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert CHART_YAML["annotations"]["artifacthub.io/license"] == project["license"]
    assert CHART_YAML["description"] == project["description"]
    assert shown("prerelease") is CHART_YAML["version"].startswith("0.")


CHANGES = ("added", "changed", "deprecated", "removed", "fixed", "security")
