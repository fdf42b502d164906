"""Every value is described once, bounded, and refused where it is unknown or mistyped."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from manifests import values
from tests.chart.conftest import CHART, HelmError
from tests.chart.settings import DEFAULTS, OTHERWISE, Path, leaves, objects, put

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
OF_EVERY_TYPE = {str: "a word", int: 3, bool: True, list: ["a"], dict: {"a": {"b": []}}}


@pytest.fixture(scope="module")
def refused(helm: Callable[..., str], tmp_path_factory) -> Callable[[Any], str]:
    """What helm says of these values, which it must refuse."""
    file = tmp_path_factory.mktemp("values") / "values.yaml"

    def said(given: Any) -> str:
        file.write_text(yaml.safe_dump(given))
        with pytest.raises(HelmError) as error:
            helm("template", "fedtrain", CHART, "--values", file)
        return str(error.value)

    return said


def at(path: Path) -> str:
    return f"at '/{'/'.join(path)}'"


# Described once.


@pytest.mark.parametrize("file", values.files(), ids=lambda file: file.name)
def test_what_is_generated_from_the_values_is_up_to_date(file):
    assert values.files()[file] == file.read_text(), (
        f"{file.name} is stale: run `python -m manifests.values`"
    )


def test_every_value_has_a_sentence_in_the_schema_and_a_line_in_the_readme():
    page = (CHART / "README.md").read_text()
    for path, default in leaves():
        rules: Any = SCHEMA
        for name in path:
            rules = rules["properties"][name]
            assert len(rules["description"].split()) >= 2, path
            assert rules["description"].endswith("."), path
        assert f"| `{'.'.join(path)}` | `" in page, path
        (written,) = re.findall(rf"\| `{re.escape('.'.join(path))}` \| `(.*?)` \|", page)
        assert yaml.safe_load(written) == default


def test_a_field_without_a_word_above_it_is_told():
    with pytest.raises(ValueError, match=r"^image\.tag: say above it what it is$"):
        list(values.values("# An image.\nimage:\n  # Where.\n  repository: a\n  tag: b\n"))


def test_a_field_that_the_schema_does_not_know_is_told():
    described = list(values.values("# Of nobody.\nnobodys: 1\n"))
    with pytest.raises(ValueError, match=r"^nobodys: is not in values\.schema\.json$"):
        values.schema(json.dumps(SCHEMA), described)


def test_a_comment_belongs_to_the_field_below_it_alone():
    text = "# Of the file.\n\n# Of a\n# number.\na: 1\n# Of words.\nb:\n  # Of one.\n  c: x\n"
    found = [(v.name, v.default, v.text) for v in values.values(text)]
    assert found == [("a", "1", "Of a number."), ("b", None, "Of words."), ("b.c", "x", "Of one.")]


# Known.


def test_schema_and_values_have_the_same_fields():
    def fields(rules: Any, path: Path = ()) -> Iterator[Path]:
        for name, rule in rules.get("properties", {}).items():
            yield from fields(rule, (*path, name))
        if path and "properties" not in rules:
            yield path

    of_pods = ("affinity",)  # Its fields are of a pod, and none is there by default.
    in_schema = {p for p in fields(SCHEMA) if p[:1] != of_pods} | {of_pods}
    assert in_schema == {path for path, _ in leaves()} | {("global",)}


def test_every_object_refuses_what_it_does_not_know(refused):
    given: Any = {}
    for path in objects():
        given = put(given, (*path, "unknown"), 1)
    for path, items in (
        ("imagePullSecrets", 1),
        ("tolerations", 1),
        ("topologySpreadConstraints", 1),
    ):
        given = put(given, (path,), [OTHERWISE[path][0] | {"unknown": items}])
    given = put(given, ("affinity", "unknown"), {})
    said = refused(given)
    lists = [
        (name, "0") for name in ("imagePullSecrets", "tolerations", "topologySpreadConstraints")
    ]
    for path in [*objects(), *lists, ("affinity",)]:
        place = at(path) if path else "at ''"
        assert f"{place}: additional properties 'unknown' not allowed" in said, path


def test_no_object_of_the_schema_is_open_but_for_what_kubernetes_checks():
    free = {"nodeAffinity", "podAffinity", "podAntiAffinity", "matchExpressions", "global"}

    def opened(rules: Any, name: str) -> Iterator[str]:
        if rules.get("type") == "object" and "additionalProperties" not in rules:
            yield name
        for kind in ("properties", "$defs"):
            for child, rule in rules.get(kind, {}).items():
                yield from opened(rule, child)
        if "items" in rules:
            yield from opened(rules["items"], name)

    assert set(opened(SCHEMA, "the whole")) <= free


# Of the right type.


@pytest.mark.parametrize("wrong", OF_EVERY_TYPE, ids=lambda kind: kind.__name__)
def test_a_value_of_another_type_is_refused(refused, wrong):
    given: Any = {}
    mistyped = [path for path, default in leaves() if type(default) is not wrong]
    for path in mistyped:
        given = put(given, path, OF_EVERY_TYPE[wrong])
    said = refused(given)
    assert len(mistyped) >= 25
    assert [path for path in mistyped if at(path) not in said] == []


@pytest.mark.parametrize("wrong", ["a word", 3, True, ["a"]], ids=str)
def test_anything_but_an_object_in_place_of_one_is_refused(refused, wrong):
    outermost = [path for path in objects() if len(path) == 1]
    said = refused(dict.fromkeys((name for (name,) in outermost), wrong))
    assert [path for path in outermost if at(path) not in said] == []


def test_what_a_list_or_a_map_holds_has_its_type_too(refused):
    given: Any = {}
    for path, default in leaves():
        if isinstance(default, list):
            given = put(given, path, [[]])
        elif isinstance(default, dict) and path != ("affinity",):
            given = put(given, path, {"a": []})
    said = refused(given)
    for path, default in leaves():
        if isinstance(default, list):
            assert at((*path, "0")) in said
        elif isinstance(default, dict) and path != ("affinity",):
            assert at((*path, "a")) in said


# Within bounds.


def bounded(rules: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every text, number and list of the schema, where values can put it."""
    if "$ref" in rules:
        rules = SCHEMA["$defs"][rules["$ref"].rpartition("/")[2]]
    for name, rule in rules.get("properties", {}).items():
        yield from bounded(rule, (*path, name))
    if rules.get("type") in ("string", "integer", "array"):
        yield path, rules


def beyond(rules: Any) -> Iterator[Any]:
    if rules["type"] == "integer":
        yield from (rules["minimum"] - 1, rules["maximum"] + 1, rules["minimum"] + 0.5)
    elif rules["type"] == "array":
        yield ["a"] * (rules["maxItems"] + 1)
    else:
        yield "a" * (rules["maxLength"] + 1)
        if "pattern" in rules:
            yield "?!"


@pytest.mark.parametrize("which", range(3))
def test_a_value_beyond_its_bounds_is_refused(refused, which):
    given, places = {}, []
    for path, rules in bounded(SCHEMA):
        wrong = list(beyond(rules))
        if which < len(wrong) and path[:1] != ("affinity",):
            given, places = put(given, path, wrong[which]), [*places, path]
    said = refused(given)
    assert len(places) >= 4
    assert [path for path in places if at(path) not in said] == []


def test_what_can_be_one_of_a_few_words_is_no_other(refused):
    said = refused({"logLevel": "LOUD", "image": {"pullPolicy": "Sometimes"}})
    assert "at '/logLevel': value must be one of 'DEBUG', 'INFO', 'WARNING', 'ERROR'" in said
    assert "at '/image/pullPolicy': value must be one of" in said


def test_quantities_are_quantities(refused):
    given = {"resources": {"requests": {"cpu": "a lot"}, "limits": {"memory": -1}}}
    said = refused(given)
    assert "at '/resources/requests/cpu': 'a lot' does not match" in said
    assert "at '/resources/limits/memory'" in said


def test_the_defaults_and_the_others_are_within(helm, tmp_path):
    file = tmp_path / "values.yaml"
    for given in (DEFAULTS, {name: v for name, v in OTHERWISE.items() if "." not in name}):
        file.write_text(yaml.safe_dump(given))
        assert "kind: Deployment" in helm("template", "fedtrain", CHART, "--values", file)


# Together.


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {"watch": {"clusterWide": True, "namespace": "a"}},
            'watch.namespace: "a", but watch.clusterWide is true; set one of the two',
        ),
        (
            {"metrics": {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}},
            "metrics.podMonitor.enabled: true, as is metrics.serviceMonitor.enabled",
        ),
        (
            {"metrics": {"serviceMonitor": {"enabled": True}, "service": {"enabled": False}}},
            "metrics.serviceMonitor.enabled: true, but metrics.service.enabled is false",
        ),
    ],
)
def test_values_that_do_not_go_together_are_refused_in_a_sentence(refused, given, sentence):
    assert sentence in refused(given)
