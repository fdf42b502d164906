"""Each mistake gets one clear sentence: from `problems`, and from the API server in its reply."""

from typing import Any

import pytest

from fedoperator.api import admission
from tests.api.adapter_mistakes import OF_ADAPTERS
from tests.api.aggregation_mistakes import OF_THE_AGGREGATION
from tests.api.mistakes import MOUNTED, Mistake, a_claim, a_trainer, a_volume, participants
from tests.api.personal_mistakes import OF_WHAT_STAYS_AT_HOME

MISTAKES = (
    Mistake(
        "an unknown field",
        {"quorum": {"on_miss": "Retry"}},
        ("spec.quorum.on_miss: no such field; did you mean onMiss?",),
        theirs='unknown field "spec.quorum.on_miss"',
    ),
    Mistake(
        "an unknown field of a participant",
        participants({}, {"Data": {}}),
        ("spec.participants[1].Data: no such field; did you mean data?",),
        theirs='unknown field "spec.participants[1].Data"',
    ),
    Mistake(
        "an unknown field with nothing in it",  # found by tests.api.admitted
        {"quorum": {"maximum": None}},
        ("spec.quorum.maximum: no such field; did you mean minimum?",),
        theirs='unknown field "spec.quorum.maximum"',
    ),
    Mistake(
        "a parameter of a strategy with a capital letter",
        {"strategy": {"name": "FedProx", "Mu": 0.1}},
        ("spec.strategy.Mu: no such field; did you mean mu?",),
        theirs='unknown field "spec.strategy.Mu"',
    ),
    Mistake(
        "a queue for pods that stay",
        {"pods": "Resident", "scheduling": {"queueName": "team-a"}},
        (
            "spec.scheduling.queueName: admits one piece of work after the other, and pods that "
            "stay take many; use pods: PerRound, or leave it out",
        ),
    ),
    Mistake(
        "a topology of no queue",
        participants({}, {"trainer": {"topology": {"key": "rack", "by": "Queue"}}}),
        (
            "spec.scheduling.queueName: is missing, and a trainer's topology.by is Queue; give it, "
            "or use by: Scheduler there",
        ),
    ),
    Mistake(
        "a text for a number",
        {"rounds": "ten"},
        ('spec.rounds: "ten" is not a whole number; use 1 to 10000',),
        theirs='spec.rounds: Invalid value: "string"',
    ),
    Mistake(
        "true for a number",
        {"retries": True},
        ("spec.retries: true is not a whole number; use 0 to 100, or leave it out for 2",),
        theirs='spec.retries: Invalid value: "boolean"',
    ),
    Mistake(
        "no rounds",
        {"rounds": None},
        ("spec.rounds: is missing; give a whole number from 1 to 10000",),
        theirs="spec.rounds: Required value",
    ),
    Mistake(
        "zero nodes",
        participants({}, {"trainer": {"nodes": 0}}),
        (
            "spec.participants[1].trainer.nodes: 0 is not a number of nodes; "
            "use 1 or more, or leave it out for 1",
        ),
        theirs="spec.participants[1].trainer.nodes in body should be greater than or equal to 1",
    ),
    Mistake(
        "too many rounds",
        {"rounds": 10001},
        ("spec.rounds: 10001 is too large; use 10000 or less",),
        theirs="spec.rounds in body should be less than or equal to 10000",
    ),
    Mistake(
        "a fraction of nothing",
        {"selection": {"fraction": 0}},
        ("spec.selection.fraction: 0 is too small; use more than 0, or leave it out for 1.0",),
        theirs="spec.selection.fraction in body should be greater than 0",
    ),
    Mistake(
        "a quantity with a point and no quotes",
        a_trainer(resources={"limits": {"cpu": 0.5}}),
        ("spec.trainer.resources.limits.cpu: 0.5 is not a quantity; write it as a string, '0.5'",),
        theirs="spec.trainer.resources.limits.cpu: Invalid value",
    ),
    Mistake(
        "a quantity with a wrong unit",
        {"exchange": {"size": "10 GB"}},
        ('spec.exchange.size: "10 GB" is not a quantity; write 4, 500m or 2Gi, say',),
        theirs="spec.exchange.size in body should match",
    ),
    Mistake(
        "a participant twice",
        {"participants": [{"name": "north"}, {"name": "south"}, {"name": "north"}]},
        ('spec.participants[2].name: "north" is spec.participants[0] already; give it once',),
        theirs="spec.participants[2]: Duplicate value",
    ),
    Mistake(
        "an access mode twice",
        {"exchange": {"size": "1Gi", "accessModes": ["ReadWriteMany", "ReadWriteMany"]}},
        (
            'spec.exchange.accessModes[1]: "ReadWriteMany" is spec.exchange.accessModes[0] '
            "already; give it once",
        ),
        theirs="spec.exchange.accessModes[1]: Duplicate value",
    ),
    Mistake(
        "no participants",
        {"participants": []},
        ("spec.participants: 0 entries; use 1 or more",),
        theirs="spec.participants in body should have at least 1 items",
    ),
    Mistake(
        "a participant that is a text",
        {"participants": ["north"]},
        (
            'spec.participants[0]: "north" is not a mapping; '
            "write a mapping of name, trainer, data, scratch, base, adapterRank",
        ),
        theirs='spec.participants[0]: Invalid value: "string"',
    ),
    Mistake(
        "a participant with a capital letter",
        {"participants": [{"name": "Hospital A"}]},
        (
            'spec.participants[0].name: "Hospital A" is not a name of lower-case letters, '
            "digits and -; write it like hospital-a",
        ),
        theirs="spec.participants[0].name in body should match",
    ),
    Mistake(
        "a participant's name that is too long",
        {"participants": [{"name": "h" * 41}]},
        (
            f'spec.participants[0].name: "{"h" * 41}" is not a name of lower-case letters, '
            "digits and -; use 40 characters or less",
        ),
        theirs="spec.participants[0].name: Too long",
    ),
    Mistake(
        "a word that is none of those there are",
        {"quorum": {"onMiss": "retry"}},
        ('spec.quorum.onMiss: "retry" is not Retry or Fail; did you mean Retry?',),
        theirs='spec.quorum.onMiss: Unsupported value: "retry"',
    ),
    Mistake(
        "a duration with a space",
        {"quorum": {"deadline": "10 min"}},
        ('spec.quorum.deadline: "10 min" is not a duration; write it like 1h30m, or leave it out',),
        theirs="spec.quorum.deadline in body should match",
    ),
    Mistake(
        "a duration of nothing",
        {"quorum": {"deadline": "0m0s"}},
        (
            "spec.quorum.deadline: 0m0s is no time at all; "
            "use 1s or more, or leave it out to wait for everybody",
        ),
    ),
    Mistake(
        "a hang timeout of nothing",
        participants({"trainer": {"hangTimeout": "0s"}}, {}),
        (
            "spec.participants[0].trainer.hangTimeout: 0s is no time at all; "
            "use 10s or more, or leave it out to wait for ever",
        ),
    ),
    Mistake(
        "no time to save in",
        a_trainer(terminationGracePeriodSeconds=0),
        (
            "spec.trainer.terminationGracePeriodSeconds: 0 is not a number of seconds; "
            "use 1 or more, or leave it out for 30",
        ),
        theirs="spec.trainer.terminationGracePeriodSeconds in body should be greater than",
    ),
    Mistake(
        "another word for keeping",
        {"optimizerState": "Kept"},
        ('spec.optimizerState: "Kept" is not Reset or Keep; did you mean Keep?',),
        theirs='spec.optimizerState: Unsupported value: "Kept"',
    ),
    Mistake(
        "a quorum above the participants",
        {"quorum": {"minimum": 3}},
        (
            "spec.quorum.minimum: 3 can never report, there are 2 participants; "
            "use 2 or less, or add some",
        ),
    ),
    Mistake(
        "a quorum above what a round invites",
        {"quorum": {"minimum": 2}, "selection": {"fraction": 0.5}},
        (
            "spec.quorum.minimum: 2 is more than a round invites; "
            "raise selection.minimum to 2, or lower this",
        ),
    ),
    Mistake(
        "a selection above the participants",
        {"selection": {"minimum": 3}},
        (
            "spec.selection.minimum: 3 cannot be selected, there are 2 participants; "
            "use 2 or less, or add some",
        ),
    ),
    Mistake(
        "an evaluator that is nobody",
        {"evaluation": {"by": "west"}},
        (
            "spec.evaluation.by: west is no participant; "
            "use Participants, for all of them, or the name of one",
        ),
    ),
    Mistake(
        "a stop without an evaluation",
        {"stop": {"metric": "accuracy", "target": 0.9}},
        (
            "spec.stop: reads what an evaluation measures, and there is none; "
            "add spec.evaluation: {}",
        ),
    ),
    Mistake(
        "a stop without a reason",
        {"stop": {"metric": "accuracy"}, "evaluation": {}},
        ("spec.stop: gives no reason to stop; add target, patience, or both",),
    ),
    Mistake(
        "no image",
        {"trainer": {"command": ["c"]}, **participants({}, {"trainer": {"image": "i"}})},
        ("spec.trainer.image: is missing; give it here, or in the trainer of every participant",),
    ),
    Mistake(
        "no command",
        {"trainer": {"image": "i"}},
        ("spec.trainer.command: is missing; give it here, or in the trainer of every participant",),
    ),
    Mistake(
        "a reserved environment variable",
        a_trainer(env=[{"name": "MASTER_ADDR", "value": "x"}]),
        (
            "spec.trainer.env[0].name: MASTER_ADDR is set by fedtrain itself; "
            "leave it out or use another name",
        ),
    ),
    Mistake(
        "an environment variable with a reserved beginning, at a participant",
        participants({}, {"trainer": {"env": [{"name": "PET_NNODES", "value": "2"}]}}),
        (
            "spec.participants[1].trainer.env[0].name: PET_NNODES is set by fedtrain itself; "
            "leave it out or use another name",
        ),
    ),
    Mistake(
        "an environment variable without a value",
        a_trainer(env=[{"name": "A"}]),
        ("spec.trainer.env[0]: A needs either value (which may be empty) or valueFrom",),
    ),
    Mistake(
        "a value from two places",
        a_trainer(
            env=[
                {
                    "name": "A",
                    "valueFrom": {
                        "secretKeyRef": {"name": "s", "key": "k"},
                        "configMapKeyRef": {"name": "c", "key": "k"},
                    },
                }
            ]
        ),
        ("spec.trainer.env[0].valueFrom: give exactly one of secretKeyRef, configMapKeyRef",),
    ),
    Mistake(
        "an environment variable twice",
        a_trainer(env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]),
        ('spec.trainer.env[1].name: "A" is spec.trainer.env[0] already; give it once',),
        theirs="spec.trainer.env[1]: Duplicate value",
    ),
    Mistake(
        "a volume from nowhere",
        a_trainer(volumes=[{"name": "cache", "mountPath": "/cache"}]),
        (
            "spec.trainer.volumes[0]: give exactly one of persistentVolumeClaim, configMap, "
            "secret, emptyDir",
        ),
    ),
    Mistake(
        "a volume over the exchange",
        a_trainer(volumes=[a_volume(mountPath="/fedtrain/global")]),
        (
            "spec.trainer.volumes[0].mountPath: /fedtrain/global hides /fedtrain, /tmp or "
            "/scratch, which fedtrain uses; use another path",
        ),
    ),
    Mistake(
        "data over the scratch space",
        participants({"data": {"claimName": "north-data", "mountPath": "/tmp/"}}, {}),
        (
            "spec.participants[0].data.mountPath: /tmp/ hides /fedtrain, /tmp or /scratch, "
            "which fedtrain uses; use another path",
        ),
    ),
    Mistake(
        "a mount that climbs",
        a_trainer(volumes=[a_volume(mountPath="/data/../fedtrain")]),
        (
            'spec.trainer.volumes[0].mountPath: "/data/../fedtrain" is not an absolute path '
            "without colons, . and ..; write it like /data",
        ),
        theirs="spec.trainer.volumes[0].mountPath in body should match",
    ),
    Mistake(
        "two volumes at one path",
        a_trainer(volumes=[a_volume(), a_volume(name="other")]),
        ("spec.trainer.volumes: /cache is mounted twice; give each volume a path of its own",),
        theirs=None,
    ),
    Mistake(
        "data where a volume is",
        {
            **a_trainer(volumes=[a_volume(mountPath="/data")]),
            **participants({}, {"data": {"claimName": "south-data"}}),
        },
        (
            "spec.participants[1].data.mountPath: /data is mounted twice; "
            "give each volume a path of its own",
        ),
        theirs=None,
    ),
    Mistake(
        "the exchange among everybody's volumes",
        a_trainer(volumes=[a_volume(), a_claim("digits-exchange")]),
        (f"spec.trainer.volumes[1].persistentVolumeClaim.claimName: {MOUNTED('digits-exchange')}",),
        theirs=f"spec.trainer.volumes: Invalid value: {MOUNTED('digits-exchange')}",
    ),
    Mistake(
        "the exchange as the data of a participant",
        participants({"data": {"claimName": "north-data"}}, {"data": {"claimName": "shared"}})
        | {"exchange": {"claimName": "shared"}},
        (f"spec.participants[1].data.claimName: {MOUNTED('shared')}",),
        theirs=f"spec.participants: Invalid value: {MOUNTED('shared')}",
    ),
    Mistake(
        "the exchange among a participant's volumes, if only to read",
        participants({"trainer": {"volumes": [a_claim("shared", readOnly=True)]}}, {})
        | {"exchange": {"claimName": "shared"}},
        (
            "spec.participants[0].trainer.volumes[0].persistentVolumeClaim.claimName: "
            f"{MOUNTED('shared')}",
        ),
        theirs=f"spec.participants: Invalid value: {MOUNTED('shared')}",
    ),
    Mistake(
        "a history of one model",
        {"keep": {"last": 1}},
        ("spec.keep.last: 1 is too small; use 2 or more, or leave it out for 3",),
        theirs="spec.keep.last in body should be greater than or equal to 2",
    ),
    Mistake(
        "parameters that are a data set",
        {"parameters": {"table": "x" * 40_000}},
        (
            "spec.parameters: 40012 bytes of JSON are too much; "
            "use 32768 or less, and a file in the image or a ConfigMap for more",
        ),
        theirs=None,
    ),
    Mistake(
        "an exchange from two places",
        {"exchange": {"claimName": "exchange", "size": "1Gi"}},
        ("spec.exchange: give either claimName, of a claim that exists, or size, for a new one",),
    ),
    Mistake(
        "a model from a claim without a path",
        {"model": {"claimName": "models"}},
        ("spec.model: claimName and path go together; give both or neither",),
    ),
    Mistake(
        "a model from two places",
        {"model": {"init": {}, "claimName": "models", "path": "a.safetensors"}},
        ("spec.model: give either init, or claimName and path",),
    ),
    Mistake(
        "a path out of its claim",
        {"model": {"claimName": "models", "path": "../a.safetensors"}},
        (
            'spec.model.path: "../a.safetensors" is not a relative path without . and ..; '
            "write it like models/base.safetensors, or leave it out",
        ),
        theirs="spec.model.path in body should match",
    ),
    Mistake(
        "the root user",
        {"security": {"runAsUser": 0}},
        (
            "spec.security.runAsUser: 0 is not a user or group id other than root's; "
            "use 1 or more, or leave it out for 65532",
        ),
        theirs="spec.security.runAsUser in body should be greater than or equal to 1",
    ),
    Mistake(
        "two mistakes",
        {"exchange": {}, "quorum": {"minimum": 9, "deadline": "0s"}},
        (
            "spec.exchange: give either claimName, of a claim that exists, or size, for a new one",
            "spec.quorum.deadline: 0s is no time at all; "
            "use 1s or more, or leave it out to wait for everybody",
        ),
    ),
)
ALL = (*MISTAKES, *OF_THE_AGGREGATION, *OF_ADAPTERS, *OF_WHAT_STAYS_AT_HOME)
EACH = pytest.mark.parametrize("mistake", ALL, ids=[mistake.says for mistake in ALL])


@EACH
def test_problems_says_where_what_and_the_remedy(mistake, a_training) -> None:
    found = admission.problems(None, a_training(**mistake.spec))
    assert tuple(map(str, found)) == mistake.ours


@pytest.mark.apiserver
@EACH
def test_the_api_server_says_the_same(mistake, a_training, kubectl) -> None:
    command = ("create", "--dry-run=server", "--validate=strict", "-f", "-")
    code, reply = kubectl(*command, document=a_training(**mistake.spec))
    assert code == (1 if mistake.reply else 0), reply
    for text in mistake.reply:
        assert text in reply


ALLOWED = pytest.mark.parametrize(
    "spec",
    [
        {"model": {"claimName": "shared", "path": "base.safetensors"}},
        {"model": {"claimName": "shared", "path": "llama/model.safetensors.index.json"}},
        {"model": {"claimName": "shared", "path": "llama/"}},
        participants({"data": {"claimName": "digits-exchange"}}, {}),
        participants({"scratch": {"claimName": "digits-exchange"}}, {}),
    ],
    ids=[
        "a model from the exchange",
        "a model of several files",
        "a folder with a model",
        "a claim that only sounds like the exchange",
        "a scratch that only sounds like the exchange",
    ],
)


@ALLOWED
def test_a_claim_beside_the_exchange_is_nobodys_mistake(spec, a_training) -> None:
    document = a_training(exchange={"claimName": "shared"}, **spec)
    assert admission.problems(None, document) == []


@pytest.mark.apiserver
@ALLOWED
def test_the_api_server_accepts_a_claim_beside_the_exchange(spec, a_training, kubectl) -> None:
    document = a_training(exchange={"claimName": "shared"}, **spec)
    code, reply = kubectl("create", "--dry-run=server", "-f", "-", document=document)
    assert code == 0, reply


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_parameters_that_json_cannot_say_are_refused(value, a_training) -> None:
    itself: dict[str, Any] = {"lr": value}
    for parameters in (itself, {"list": [value]}):
        (problem,) = admission.problems(None, a_training(parameters=parameters))
        assert str(problem) == (
            "spec.parameters: NaN, infinity and what contains itself cannot be written as JSON; "
            "use numbers, or text in quotes"
        )


@pytest.mark.parametrize("levels", [65, 5000])
def test_parameters_of_too_many_levels_are_refused(levels, a_training) -> None:
    deep: Any = 1
    for number in range(levels - 1):
        deep = [deep] if number % 2 else {"a": deep}
    given = a_training(parameters={}, personalization={"fineTune": {"parameters": {}}})
    given["spec"]["parameters"]["deep"] = deep
    given["spec"]["personalization"]["fineTune"]["parameters"]["x"] = deep
    for_the_script, for_the_last_phase = admission.problems(None, given)
    sentence = "more than 64 levels of mappings and lists; use fewer"
    assert str(for_the_script) == f"spec.parameters: {sentence}"
    assert str(for_the_last_phase) == f"spec.personalization.fineTune.parameters: {sentence}"


def test_parameters_of_as_many_levels_as_are_read_are_accepted(a_training) -> None:
    deep: Any = 1
    for _ in range(63):
        deep = {"a": deep}
    assert admission.problems(None, a_training(parameters={"deep": deep})) == []


NAMES = ("Digits", "digits.v2", "1-digits", "d" * 41, "digits-")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_none_is_refused_with_the_remedy(name, a_training) -> None:
    (problem,) = admission.problems(None, a_training(name=name))
    assert str(problem) == (
        f'metadata.name: "{name}" is not the name of a training; '
        "use at most 40 lower-case letters, digits and -, beginning with a letter"
    )


@pytest.mark.apiserver
@pytest.mark.parametrize("name", NAMES)
def test_the_api_server_refuses_the_same_names(name, a_training, kubectl) -> None:
    code, reply = kubectl("create", "--dry-run=server", "-f", "-", document=a_training(name=name))
    assert code == 1
    own = f"{name} is not the name of a training; use at most 40 lower-case letters"
    assert own in reply or "a lowercase RFC 1123 subdomain" in reply


@pytest.mark.parametrize(
    ("document", "lines"),
    [
        (
            {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": []}},
            [
                'apiVersion: "v1" is not fedtrain.dev/v1alpha1; write that',
                'kind: "Pod" is not FederatedTraining; write that',
            ],
        ),
        (
            {},
            [
                "apiVersion: is missing; write fedtrain.dev/v1alpha1",
                "kind: is missing; write FederatedTraining",
                "metadata: is missing; give the training a name there",
                "spec: is missing; write what is wanted there",
            ],
        ),
    ],
)
def test_what_is_no_training_is_not_looked_into(document, lines) -> None:
    assert [str(problem) for problem in admission.problems(None, document)] == lines


def test_a_field_beside_the_spec_is_refused(a_training) -> None:
    (problem,) = admission.problems(None, {**a_training(), "rounds": 3})
    assert str(problem).startswith("rounds: no such field; leave it out, or use one of apiVersion")


def test_a_generated_name_is_a_name(a_training) -> None:
    document = {**a_training(), "metadata": {"generateName": "digits-"}}
    assert admission.problems(None, document) == []
