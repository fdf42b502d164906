"""Laws of the models: round trips, overriding, counting ranks."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedoperator.api import admission
from fedoperator.api.strategy import COORDINATEWISE, COUNTING, Strategy
from fedoperator.api.trainer import Trainer, TrainerOverride, merged, processes_per_node
from fedoperator.api.training import TrainingSpec
from tests.api.strategies import STRATEGIES

NAMES = st.from_regex(r"[a-z]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
OBJECTS = st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,20}[a-z0-9])?", fullmatch=True)
TEXTS = st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=20)
QUANTITIES = st.integers(1, 64) | st.sampled_from(["500m", "1.5", "64Gi", "2e3", "100k"])
PATHS = st.from_regex(r"(/[a-z][a-z0-9]{0,8}){1,3}", fullmatch=True).filter(
    lambda path: path.split("/")[1] not in ("tmp", "fedtrain", "dev")
)
PARAMETERS = st.dictionaries(
    NAMES,
    st.none() | st.booleans() | st.integers(-100, 100) | TEXTS | st.lists(st.integers(0, 9)),
    max_size=5,
)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of the fields, each or not."""
    return st.fixed_dictionaries({}, optional=fields)


def named(item: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(item, max_size=3, unique_by=lambda entry: entry["name"])


KEY = st.fixed_dictionaries({"name": OBJECTS, "key": st.just("key")})
ENV = st.fixed_dictionaries({"name": st.from_regex(r"X_[A-Z]{1,8}", fullmatch=True)}).flatmap(
    lambda named: st.one_of(
        st.fixed_dictionaries({"value": TEXTS}),
        st.fixed_dictionaries({"valueFrom": st.fixed_dictionaries({"secretKeyRef": KEY})}),
    ).map(lambda source: named | source)
)
VOLUMES = st.lists(
    st.tuples(NAMES, PATHS, st.booleans()),
    max_size=3,
    unique_by=(lambda v: v[0], lambda v: v[1]),
).map(
    lambda given: [
        {"name": name, "mountPath": path, "readOnly": only, "configMap": {"name": "c"}}
        for name, path, only in given
    ]
)
RESOURCES = some(
    limits=st.dictionaries(
        st.sampled_from(["cpu", "memory", "nvidia.com/gpu", "amd.com/gpu", "hugepages-2Mi"]),
        QUANTITIES,
    ),
    requests=st.dictionaries(st.sampled_from(["cpu", "memory"]), QUANTITIES),
)
FIELDS = {
    "args": st.lists(TEXTS, max_size=3),
    "env": named(ENV),
    "nodes": st.integers(1, 64),
    "processesPerNode": st.integers(1, 8),
    "resources": RESOURCES,
    "nodeSelector": st.dictionaries(NAMES, TEXTS, max_size=2),
    "sharedMemory": QUANTITIES,
    "terminationGracePeriodSeconds": st.integers(1, 86400),
    "hangTimeout": st.sampled_from(["30s", "1h30m"]),
    "imagePullPolicy": st.sampled_from(["Always", "Never"]),
    "tolerations": st.lists(some(key=NAMES, operator=st.just("Exists")), max_size=2),
}
OVERRIDES = some(**FIELDS, image=OBJECTS, volumes=VOLUMES)
TRAINERS = st.fixed_dictionaries(
    {"image": OBJECTS, "command": st.lists(TEXTS, min_size=1, max_size=3)},
    optional={**FIELDS, "volumes": VOLUMES},
)
PARTICIPANTS = st.lists(
    st.fixed_dictionaries({"name": NAMES}, optional={"trainer": OVERRIDES}),
    min_size=1,
    max_size=11,
    unique_by=lambda participant: participant["name"],
)
COMPRESSIONS = st.one_of(
    st.just({"codec": "BFloat16"}),
    some(block=st.sampled_from([64, 256, 4096])).map(lambda given: {"codec": "Int8"} | given),
    some(block=st.integers(1024, 65536), fraction=st.floats(1e-6, 1)).map(
        lambda given: {"codec": "TopK"} | given
    ),
)


@st.composite
def aggregations(draw: st.DrawFn, most: int) -> dict[str, Any]:
    """strategy, aggregation, compression, and the least quorum; of at most `most` participants."""
    strategy = draw(STRATEGIES)
    needed = Strategy.model_validate(strategy).minimum
    if needed > most:
        strategy, needed = {"name": "FedAvg"}, 1
    precisions = ["Float32", "Float64"]
    if strategy["name"] not in (*COORDINATEWISE, *COUNTING):
        precisions.append("Exact")
    aggregation = draw(
        some(shards=st.integers(1, 64), precision=st.sampled_from(precisions), resources=RESOURCES)
    )
    compressions = {"SCAFFOLD": st.none(), "FedNova": st.just({"codec": "BFloat16"})}
    compression = compressions.get(strategy["name"], COMPRESSIONS)
    fields = draw(some(aggregation=st.just(aggregation), compression=compression))
    if fields.get("compression", {}) is None:
        del fields["compression"]
    return {"strategy": strategy, "quorum": {"minimum": needed}, **fields}


PATTERNS = st.lists(st.sampled_from(["head.*", "*.bias"]), min_size=1, max_size=2)


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    """Valid ones, with as many of the optional fields as chance has it."""
    participants = draw(PARTICIPANTS)
    rule = draw(aggregations(len(participants)))
    many = st.integers(rule["quorum"]["minimum"], len(participants))
    minimum = draw(many)
    apart = draw(st.booleans())  # an evaluator, or layers and models that stay at home
    forgets_nothing = rule["strategy"]["name"] == "SCAFFOLD"
    if not apart or forgets_nothing or rule.get("compression", {}).get("codec") == "TopK":
        for participant in participants:
            participant["scratch"] = {"claimName": f"{participant['name']}-scratch"}
    names = [participant["name"] for participant in participants]
    claim = st.fixed_dictionaries({"claimName": OBJECTS})
    spec = draw(
        st.fixed_dictionaries(
            {
                "rounds": st.integers(1, 10_000),
                "trainer": TRAINERS,
                "participants": st.just(participants),
                "exchange": claim
                | st.fixed_dictionaries(
                    {"size": QUANTITIES}, optional={} if apart else {"exclude": PATTERNS}
                ),
            },
            optional={
                "selection": st.fixed_dictionaries(
                    {"minimum": many.map(lambda n: max(n, minimum))},
                    optional={"fraction": st.floats(0.01, 1), "seed": st.integers(-9, 9)},
                ),
                "weight": some(
                    by=st.sampled_from(["Tokens", "Uniform"]), max=st.integers(1, 10**9)
                ),
                "retries": st.integers(0, 100),
                "parameters": PARAMETERS,
                "seed": st.integers(-(2**53) + 1, 2**53 - 1),
                "evaluation": st.just({"evaluator": {"name": "x" + names[0][:39]}})
                if apart and "x" + names[0][:39] not in names
                else some(by=st.sampled_from(["Participants", *names])),
                "personalization": st.just({"fineTune": {}})
                if apart
                else some(ditto=st.just({"pull": 0.1}), fineTune=st.just({})).filter(bool),
                "keep": some(last=st.integers(2, 9), updates=st.integers(1, 9)),
                "tracking": some(
                    mlflow=some(experiment=st.sampled_from(["digits", "Digits 2.0"])),
                    tensorboard=st.just({}),
                ).filter(bool),
                "security": some(runAsUser=st.none() | st.integers(1, 9), fsGroup=st.none()),
                "suspend": st.booleans(),
            },
        )
    )
    if "selection" not in spec:
        minimum = min(minimum, rule["quorum"]["minimum"])
    spec |= rule | {"quorum": {"minimum": minimum}}
    if "evaluation" in spec:
        spec["stop"] = {"metric": "accuracy", "target": draw(st.floats(-9, 9))}
        spec["keep"] = {**spec.get("keep", {}), "best": draw(st.integers(0, 3))}
    return spec


@given(specs())
def test_a_valid_spec_has_no_problems_and_survives_the_round_trip(a_training, spec) -> None:
    assert admission.problems(None, a_training(**spec)) == []
    parsed = TrainingSpec.model_validate(spec)
    assert TrainingSpec.model_validate(parsed.to_dict()) == parsed


@pytest.mark.apiserver
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(spec=specs())
def test_the_api_server_accepts_what_problems_accepts(a_training, kubectl, spec) -> None:
    command = ("create", "--dry-run=server", "--validate=strict", "-f", "-")
    code, reply = kubectl(*command, document=a_training(**spec))
    assert code == 0, reply


@given(specs(), st.data())
def test_a_misspelt_field_is_always_a_problem(a_training, spec, data) -> None:
    field = data.draw(st.sampled_from(sorted(spec)))
    spec[f"{field}s"] = spec[field]
    lines = [str(problem) for problem in admission.problems(None, a_training(**spec))]
    assert f"spec.{field}s: no such field; did you mean {field}?" in lines


@given(TRAINERS)
def test_an_empty_override_changes_nothing(trainer) -> None:
    default = Trainer.model_validate(trainer)
    assert merged(default, None) == default
    assert merged(default, TrainerOverride()) == default


@given(TRAINERS, OVERRIDES)
def test_an_override_replaces_exactly_what_it_says(trainer, override) -> None:
    default = Trainer.model_validate(trainer)
    told = TrainerOverride.model_validate(override)
    result = merged(default, told)
    for field in Trainer.model_fields:
        said = getattr(told, field)
        assert getattr(result, field) == (getattr(default, field) if said is None else said)
    assert merged(result, told) == result


@given(TRAINERS)
def test_ranks_are_as_said_else_the_accelerators_else_one(trainer) -> None:
    parsed = Trainer.model_validate(trainer)
    ranks = processes_per_node(parsed)
    limits = trainer.get("resources", {}).get("limits", {})
    if "processesPerNode" in trainer:
        assert ranks == trainer["processesPerNode"]
    elif not any("/" in name for name in limits):
        assert ranks == 1
    else:
        assert ranks in {1, *limits.values()}


@pytest.mark.parametrize(
    ("limits", "ranks"),
    [
        ({}, 1),
        ({"cpu": 8, "memory": "64Gi"}, 1),
        ({"nvidia.com/gpu": 8}, 8),
        ({"nvidia.com/gpu": "8"}, 8),
        ({"nvidia.com/gpu": 4, "rdma/hca": 1}, 4),
        ({"requests.kubernetes.io/thing": 4}, 1),
    ],
)
def test_ranks_follow_the_accelerators(limits, ranks) -> None:
    trainer = Trainer.model_validate({"resources": {"limits": limits}})
    assert processes_per_node(trainer) == ranks


WHOLE = pytest.mark.parametrize(
    "spec",
    [
        {"rounds": 5.0},
        {"retries": 1e1},
        {"exchange": {"size": 1e9}},
        {"security": {"runAsUser": 1000.0}},
        {
            "participants": [
                {"name": "north", "trainer": {"nodes": 2.0, "resources": {"limits": {"cpu": 4.0}}}}
            ]
        },
    ],
    ids=lambda spec: next(iter(spec)),
)


@WHOLE
def test_a_whole_number_may_be_written_with_a_point(a_training, spec) -> None:
    assert admission.problems(None, a_training(**spec)) == []


@pytest.mark.apiserver
@WHOLE
def test_the_api_server_takes_a_whole_number_with_a_point(a_training, kubectl, spec) -> None:
    command = ("create", "--dry-run=server", "--validate=strict", "-f", "-")
    code, reply = kubectl(*command, document=a_training(**spec))
    assert code == 0, reply


def test_null_is_nothing_except_where_it_is_a_choice(a_training) -> None:
    document = a_training(weight=None, retries=None, security={"runAsUser": None, "fsGroup": 7})
    assert admission.problems(None, document) == []
    spec = TrainingSpec.model_validate(document["spec"])
    assert (spec.weight.by, spec.retries) == ("Samples", 2)
    assert spec.to_dict()["security"] == {"runAsUser": None, "runAsGroup": 65532, "fsGroup": 7}
