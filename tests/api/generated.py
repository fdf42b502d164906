"""Trainings made at random from the CRD's own schema: plausible, at the bounds, and absurd.

One seed, one document. `python -m tests.api.admitted` gives thousands to an API server.
"""

import copy
import random
import string
from collections.abc import Iterator
from typing import Any

from fedoperator.api import admission, crd

Document = dict[str, Any]
Schema = dict[str, Any]

SCHEMA = crd.spec_schema()

WORDS = ("north", "south", "a", "x" * 40, "digits-exchange", "exchange", "a-1")
TEXTS: dict[str, tuple[str, ...]] = {
    "name of lower-case letters, digits and -": (*WORDS, "north-2"),
    "name of a Kubernetes object": (*WORDS, "x" * 253, "0.a", "shared"),
    "relative path without . and ..": ("a", "a/b.safetensors", ".hidden/x", "a/", "x" * 1024),
    "absolute path without colons, . and ..": ("/data", "/data/", "/x/.y", "/dev/shm", "/model"),
    "name of a metric": ("accuracy", "loss", "_", "a" * 40),
    "duration": ("1h30m", "90s", "0s", "99999h", "5m"),
    "key": ("token", ".x", "a" * 253),
    "name of an environment variable": ("NCCL_DEBUG", "_", "a.b-c", "A" * 128),
    "digest": (f"sha256:{'0' * 64}",),
    "name of a queue": ("team-a", "0", "x" * 63),
    "name of an experiment": ("digits", "Digits 2.0_a-b", "x" * 100),
    "key of a node's label": ("zone", "topology.kubernetes.io/zone", "A.b_c"),
    "pattern of names": ("*", "head.*", "[ab]?", "x" * 253),
}
"""What a text with a word of its own may be."""

QUANTITIES = (1, 0, 4, "500m", "2Gi", "1e3", ".5", "1.", "0", 2**53 - 1, "1k")
NULL: Any = None
ABSURD: tuple[Any, ...] = (
    NULL, "", " ", "\n", "a\n", "a\u0000b", "é", "\u2028", "🙂" * 11, "..", "../x", "/", "//a",
    "/a:b", "/fedtrain", "/fedtrain/x", "/tmp", "/scratch/", "/fedtrainer", "A", "-a", "a-", "0",
    "x" * 41, "x" * 254, "x" * 9000, "HOME", "PET_X", "FEDTRAIN_TASK", "$(HOME)", "sha256:0",
    -1, 0, 1, 2, 5.0, 0.5, 1.5, -0.0, 1e-9, 1e308, -1e308, 65537, 2**31, 2**53, 2**63, 2**64,
    10**30, 1e25, float("nan"), float("inf"), True, False, [], {}, [[]], [NULL], {"a": NULL},
    ["a", "a"], {"": ""}, "true", "1", "1Gi", "-1", "1 Gi", "10m ", "0h", "Retry", "retry",
)  # fmt: skip
"""Of any type, wherever it does not belong."""


class Generator:
    """Documents as its seed has it."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)

    def training(self) -> Document:
        """A small valid one, with something set, and with something wrong in every second."""
        names = self.random.sample(["north", "south", "west", "east"], self.random.randint(1, 4))
        spec: Document = {
            "rounds": 3,
            "trainer": {"image": "digits", "command": ["torchrun", "train.py"]},
            "participants": [{"name": name} for name in names],
            "exchange": self.random.choice([{"size": "1Gi"}, {"claimName": "shared"}]),
        }
        if self.random.random() < 0.5:
            for name, participant in zip(names, spec["participants"], strict=True):
                participant["scratch"] = {"claimName": f"{name}-scratch"}
        if self.random.random() < 0.4:
            spec["evaluation"] = {}
        document = {
            "apiVersion": "fedtrain.dev/v1alpha1",
            "kind": "FederatedTraining",
            "metadata": {"name": "digits"},
            "spec": spec,
        }
        for _ in range(self.random.randint(0, 6)):
            before = copy.deepcopy(spec)
            self._set(spec, SCHEMA, absurd=0.0)
            # Fields that do not go together are wanted, but not in nearly every document.
            if self.random.random() < 0.8 and admission.problems(None, document):
                document["spec"] = spec = before
        if self.random.random() < 0.4:
            self._spoil(document)
        if self.random.random() < 0.2:
            self._write_on(document["metadata"])
        return document

    def changed(self, document: Document) -> Document:
        """The same with another spec, as somebody might edit it, or break it."""
        document = copy.deepcopy(document)
        if self.random.random() < 0.4:
            document["spec"]["suspend"] = self.random.random() < 0.7
        for _ in range(self.random.randint(0, 2)):
            self._set(document["spec"], SCHEMA, absurd=0.1)
        if self.random.random() < 0.3:
            self._people(document["spec"]["participants"])
        if self.random.random() < 0.3:
            document["spec"]["parameters"] = self._json(2) if self._tosses() else {"rate": 0.1}
        if self.random.random() < 0.1:
            document["metadata"] |= {self.random.choice(["labels", "annotations"]): self._labels()}
        return document

    def _tosses(self) -> bool:
        return self.random.random() < 0.5

    def _people(self, participants: Any) -> None:
        """They come, go and change places."""
        if not isinstance(participants, list) or not participants:
            return
        match self.random.randrange(3):
            case 0:
                participants.append({"name": self.random.choice(["late", "north", "south"])})
            case 1:
                participants.pop(self.random.randrange(len(participants)))
            case 2:
                self.random.shuffle(participants)

    def _set(self, value: Document, schema: Schema, absurd: float) -> None:
        """One field somewhere below gets another value."""
        fields = schema.get("properties")
        if not fields:
            return
        name = self.random.choice(sorted(fields))
        here, child = value.get(name), fields[name]
        if isinstance(here, dict) and child.get("properties") and self.random.random() < 0.7:
            self._set(here, child, absurd)
        elif isinstance(here, list) and here and "items" in child and self.random.random() < 0.8:
            items, index = child["items"], self.random.randrange(len(here))
            if isinstance(here[index], dict) and "properties" in items:
                self._set(here[index], items, absurd)
            else:
                here[index] = self._value(items, absurd)
        else:
            value[name] = self._value(child, absurd)

    def _value(self, schema: Schema, absurd: float, depth: int = 0) -> Any:
        """What the schema allows; with this probability, each part of it anything at all."""
        if self.random.random() < absurd:
            return self._anything(schema)
        if "enum" in schema:
            return self.random.choice(schema["enum"])
        if schema.get("x-kubernetes-int-or-string"):
            return self.random.choice(QUANTITIES)
        match schema["type"]:
            case "boolean":
                return self._tosses()
            case "integer":
                return self._number(schema, whole=True)
            case "number":
                return self._number(schema, whole=self.random.random() < 0.2)
            case "string":
                return self._text(schema)
            case "array":
                return self._list(schema, absurd, depth)
        if schema.get("x-kubernetes-preserve-unknown-fields"):
            return self._json(3)
        if "additionalProperties" in schema:
            return self._map(schema, absurd, depth)
        needed = schema.get("required", ())
        likely = 0.5 if depth < 2 else 0.2
        return {
            name: self._value(child, absurd, depth + 1)
            for name, child in schema.get("properties", {}).items()
            if name in needed or self.random.random() < likely
        }

    def _number(self, schema: Schema, *, whole: bool) -> float:
        low, high = schema.get("minimum", -1e6), schema.get("maximum", 1e6)
        near = [low, high, low + 1, low + 1, low + 2, (low + high) / 2]
        value = min(max(self.random.choice(near), low), high)
        return int(value) if whole else float(value)

    def _text(self, schema: Schema) -> str:
        if "title" in schema and schema["title"] in TEXTS:
            return self.random.choice(TEXTS[schema["title"]])
        most = min(schema["maxLength"], 9000)
        letters = string.ascii_letters + string.punctuation + " äß🙂"
        text = "".join(self.random.choices(letters, k=self.random.randint(1, min(most, 12))))
        return self.random.choice([text, "x" * most, "Participants", text[:1], "a"])

    def _list(self, schema: Schema, absurd: float, depth: int) -> list[Any]:
        least = schema.get("minItems", 0)
        count = max(least, self.random.choice([0, 1, 1, 2, 3]))
        if self.random.random() < 0.02:
            count = schema["maxItems"] + self.random.randint(0, 1) if depth < 2 else count
        items = [self._value(schema["items"], absurd, depth + 1) for _ in range(min(count, 40))]
        if schema["x-kubernetes-list-type"] != "map" or self.random.random() < 0.1:
            return items
        named = {str(i.get("name")): i for i in items if isinstance(i, dict)}
        return list(named.values())

    def _map(self, schema: Schema, absurd: float, depth: int) -> Document:
        keys = ("cpu", "memory", "nvidia.com/gpu", "rdma/hca", "zone", "")
        some = self.random.sample(keys, self.random.randint(0, 3))
        if self.random.random() < 0.05:
            some = [f"k{i}" for i in range(schema["maxProperties"] + self.random.randint(0, 1))]
        return {key: self._value(schema["additionalProperties"], absurd, depth + 1) for key in some}

    def _json(self, depth: int) -> Any:
        """Free values, as of parameters; a mapping at the top."""
        keys = ("rate", "a", "", "é", "x-y", "__class__", "0")
        leaves = (1, 1.0, 0.1, "a", "", NULL, True, False, -5, 2**40, "x" * 100, [1, "a", NULL])
        if depth == 1 or (depth < 3 and self._tosses()):
            return self.random.choice(leaves)
        return {key: self._json(depth - 1) for key in self.random.sample(keys, 3)}

    def _anything(self, schema: Schema) -> Any:
        """Absurd, or just beyond a bound."""
        beyond: list[Any] = []
        if "minimum" in schema:
            beyond += [schema["minimum"] - 1, schema["minimum"]]
        if "maximum" in schema:
            beyond += [schema["maximum"] + 1, schema["maximum"]]
        if schema.get("type") == "string" and "maxLength" in schema:
            beyond += ["x" * (schema["maxLength"] + 1), "🙂" * schema["maxLength"]]
        if beyond and self._tosses():
            return self.random.choice(beyond)
        return copy.deepcopy(self.random.choice(ABSURD))

    def _spoil(self, document: Document) -> None:
        """One thing is wrong, or at least strange."""
        spec = document["spec"]
        match self.random.randrange(8):
            case 0:
                where = self.random.choice(list(_mappings(spec)))
                if where:
                    del where[self.random.choice(sorted(where))]
            case 1:
                where = self.random.choice(list(_mappings(spec)))
                where[self.random.choice(["surprise", "Rounds", "on_miss", ""])] = 1
            case 2:
                self.random.choice([spec, document])["spec"] = self._anything({})
            case 3:
                document[self.random.choice(["rounds", "Kind", "data"])] = 1
            case 4:
                spec["parameters"] = {
                    "long": "x" * self.random.choice([32000, 32758, 32759, 99999])
                }
            case _:
                self._set(spec, SCHEMA, absurd=0.6)

    def _write_on(self, metadata: Document) -> None:
        field = self.random.choice(["labels", "annotations", "name", "generateName", "other"])
        match field:
            case "labels":
                metadata[field] = self._labels()
            case "annotations":
                metadata[field] = self._labels()
                if self._seldom():
                    most = 256 * 1024 - len("long")
                    metadata[field] = {"long": "x" * (most + self.random.choice([0, 1]))}
            case "name" | "generateName":
                names = ["a", "x" * 40, "x" * 41, "Digits", "1a", "a.b", "", "a-", NULL, 5, "a_"]
                if field == "generateName":
                    metadata.pop("name", None)
                metadata[field] = self.random.choice([*names, "x" * 35, "x" * 36, "a-b"])
            case _:
                metadata[self.random.choice(["label", "Name", "team"])] = "a"

    def _labels(self) -> Any:
        """Or annotations; mostly some that might be right."""
        keys = (
            "team", "example.com/team", "a/b/c", "/a", "a/", "-a", "A.b_c", "x" * 63, "x" * 64,
            "Example.com/a", "e" * 253 + "/a", "e" * 254 + "/a", "a b", "", "kueue.x-k8s.io/queue",
        )  # fmt: skip
        values = ("", "a", "-a", "a-", "x" * 63, "x" * 64, "a b", "Ü", "a\n", NULL, 1, True, "a.b")
        if self._seldom():
            return copy.deepcopy(self.random.choice([NULL, [], "a", {}]))
        return {self.random.choice(keys): self.random.choice(values) for _ in range(2)}

    def _seldom(self) -> bool:
        return self.random.random() < 0.15


def _mappings(value: Any) -> Iterator[Document]:
    """Each mapping in a document."""
    if isinstance(value, dict):
        yield value
    for child in value.values() if isinstance(value, dict) else value:
        if isinstance(child, dict | list):
            yield from _mappings(child)


Path = tuple[str | int, ...]


def parts(value: Any, path: Path = ()) -> Iterator[Path]:
    """Where each part of a document is, the whole before what is in it, the last first."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in reversed(list(pairs)):
        yield (*path, key)
        if isinstance(child, dict | list):
            yield from parts(child, (*path, key))


def without(value: Any, path: Path) -> Any:
    """The document less one of its parts."""
    first, rest = path[0], path[1:]
    if isinstance(value, dict):
        left = {key: child for key, child in value.items() if key != first}
        return {**value, first: without(value[first], rest)} if rest else left
    left = [child for index, child in enumerate(value) if index != first]
    if not rest:
        return left
    return [without(child, rest) if index == first else child for index, child in enumerate(value)]
