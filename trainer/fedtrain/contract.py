"""The contract between the operator and the processes it starts: tasks, paths, receipts, exits.

Standard library only, and the only module of this package that the operator imports. Whoever
starts a process (the operator's Jobs, the local shell) puts one JSON document, a *task*, into the
environment variable `FEDTRAIN_TASK` and the root of the training's folder on the exchange into
`FEDTRAIN_ROOT`; every path of a task is relative to that root:

    global/<round>/<n>/model.safetensors, schema.json, manifest.json
    updates/<participant>/<round>/<attempt>/update.safetensors, receipt.json
    updates/<participant>/<round>/evaluation-<attempt>/receipt.json
    updates/<participant>/<round>/personalization-<attempt>/receipt.json

Texts that travel with a model (config.json ...) lie beside it. A strategy with a state of its own
adds server.safetensors; of several shards each file is parts with an index, <file>.index.json.

A process answers by its exit code, by what it published, and by a termination message of at most
`MESSAGE_LIMIT` bytes, which may get lost: everything in it can be read again from the exchange.
"""

import dataclasses
import enum
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

VERSION = "0.1.0"
"""Of fedtrain, both halves: they are released together."""

TASK_ENV = "FEDTRAIN_TASK"
"""The task: what the process is asked to do, one JSON document."""

ROOT_ENV = "FEDTRAIN_ROOT"
"""The root of the training's folder on the exchange, which the paths of a task are relative to."""

SCRATCH_ENV = "FEDTRAIN_SCRATCH"
"""A folder of the participant's own, which outlives its pods if it has a claim for it."""

BASE_ENV = "FEDTRAIN_BASE"
"""The folder of the frozen base model, read-only, where `spec.model.base` asks for one."""

SHARD_ENV = "JOB_COMPLETION_INDEX"
"""Which shard of an aggregation a process is; Kubernetes sets it in the pods of Indexed Jobs."""

MESSAGE_ENV = "FEDTRAIN_TERMINATION_LOG"
"""Where the termination message goes; Kubernetes' own default if unset."""

OUTCOME_ENV = "FEDTRAIN_OUTCOME"
"""Prefix of the files in which ranks tell `fedtrain.launch`, their grandparent, why they failed."""

HUB_ENV = "FEDTRAIN_HUB"
"""host:port of the training's hub, in processes that stay between rounds (`pods: Resident`)."""

HUB_TOKEN_ENV = "FEDTRAIN_HUB_TOKEN"  # noqa: S105 - a name
"""What the operator shows the hub to prove itself; in the hub's own environment alone."""

CARRIER_ENV = "FEDTRAIN_CARRIER"
"""The uid of the Job that a process which stays belongs to; names come again, uids do not."""

HUB_PORT = 7448
"""Where the hub listens in its pod, and its Service for it."""

HUB_FILE = ".hub-token"
"""In updates/<participant>/: what that participant's processes show the hub. Only they and the hub
see this folder, so that to know it is to be them."""

HUB_LINE_LIMIT = 4 * 1024 * 1024
"""Bytes of one message between hub, operator and participants: a line of JSON."""

HUB_BEAT = 3.0
"""Seconds between two signs of life, each way; who is silent three times as long is gone."""

HUB_REPORTS_EACH = 8
"""Reports of one participant that are remembered: the last ones, whatever it says."""

HANG_ENV = "FEDTRAIN_HANG_TIMEOUT"
"""Seconds without a step after which `fedtrain.launch` calls a rank hung; unset for never."""

GRACE_ENV = "FEDTRAIN_GRACE"
"""Seconds from SIGTERM to SIGKILL, as Kubernetes gives them to a pod; 30 if unset."""

MOUNT = "/fedtrain"
"""Where containers see the training's folder on the exchange."""

BASE_MOUNT = f"{MOUNT}/base"
"""Where participants see the claim of the base model."""

IMPORT_MOUNT = "/model"
"""Where the import of an initial model sees the claim that it comes from."""

DEFAULT_MESSAGE_PATH = "/dev/termination-log"
MESSAGE_LIMIT = 3 * 1024
"""Bytes; the kubelet keeps the *last* 4,096 of a termination message (container status)."""

MODEL_FILE = "model.safetensors"
MODEL_INDEX_FILE = "model.safetensors.index.json"
"""Beside the shards of a model that is more than one file, as Hugging Face lays them out."""

SERVER_FILE = "server.safetensors"
"""The server's own state, beside the global model that it goes with."""

UPDATE_FILE = "update.safetensors"
RECEIPT_FILE = "receipt.json"
SCHEMA_FILE = "schema.json"
MANIFEST_FILE = "manifest.json"
RECEIPT_VERSION = 1
TILE_BYTES = 16 * 1024 * 1024
"""The unit in which tensors are hashed; part of what a digest means."""

METRICS_LIMIT = 20
METRIC_NAME = r"^[a-zA-Z_][a-zA-Z0-9_]{0,39}$"

RESERVED_ENV_PREFIXES = ("FEDTRAIN_", "PET_")
RESERVED_ENV = frozenset({"HOME", "MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK"})
"""Names (and prefixes of names) that a user's `env` may not set."""


class Exit(enum.IntEnum):
    """Exit codes of every process started for a training (after BSD's sysexits.h)."""

    OK = 0
    CONTRACT = 64
    """The script broke the contract (no submit, unknown tensor); no retry can cure it."""
    DATA = 65
    """The participant's data or model cannot be used as they are; no retry can cure it."""
    VERDICTS = 66
    """Of the aggregator only: decide this round again from the verdicts in the message."""
    EXCHANGE = 74
    """The exchange is full or cannot be written; charged to nobody."""
    TRY_AGAIN = 75
    """A passing failure; counted against the retries."""


class Role(enum.StrEnum):
    """What a child workload of a training is there for."""

    PREPARE = "prepare"
    INIT = "init"
    TRAIN = "train"
    AGGREGATE = "aggregate"
    EVALUATE = "evaluate"
    PERSONALIZE = "personalize"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRef:
    """A global model that counts: its folder relative to the root, and its digest.

    digest: of the model's tensors; with a server state, "<the model's>+<the state's>".
    """

    path: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantTask:
    """What one participant's pod set is asked to do; read by `fedtrain.loop`.

    role: INIT publishes `output/model.safetensors` and schema.json, untrained; TRAIN yields one
    round and publishes `output/update.safetensors`; EVALUATE measures `model`, publishes metrics;
    PERSONALIZE measures it, trains it for the participant alone, and measures it again.
    model: None only for INIT. deadline: seconds the operator allows from readiness on, or None.
    codec: how the update is to travel, see `fedtrain.codecs`; None for fp32. proximal: FedProx's μ.
    unit: what the script's samples count, `spec.weight.by`.
    adapters: {"aggregation", "rank"} of `fedtrain.adapters`, the rank that this participant's
    adapter has to have, or None. base: the digest of the frozen base model, or None for that which
    the global model names, see `fedtrain.basemodel`.
    strategy: its name, for some have a part in the training, see `fedtrain.correction`.
    optimizer_state: "Reset", or "Keep" to begin with that of the last accepted round.
    include, exclude: patterns on names of tensors, see `fedtrain.partial`. pull: Ditto's λ, None if
    no personal model is asked for.
    """

    role: Role
    training: str
    uid: str
    round: int
    participant: str
    attempt: int
    output: str
    model: ModelRef | None = None
    seed: int = 0
    parameters: Mapping[str, Any] = field(default_factory=dict)
    deadline: float | None = None
    codec: Mapping[str, Any] | None = None
    proximal: float = 0.0
    unit: str = "Samples"
    adapters: Mapping[str, Any] | None = None
    base: str | None = None
    strategy: str = "FedAvg"
    optimizer_state: str = "Reset"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    pull: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareTask:
    """Make the folders of a training on its exchange and prove that they can be written.

    participants: those whose `updates/<participant>/` must exist afterwards.
    """

    role: Role = Role.PREPARE
    training: str
    uid: str
    round: int
    attempt: int
    participants: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportTask:
    """Publish the safetensors at `source` (an absolute path in the container) as `output`.

    source: a file, the index file of a sharded checkpoint, or a folder with either. include,
    exclude: patterns on names; what the exchange does not carry is not imported.
    """

    role: Role = Role.INIT
    training: str
    uid: str
    round: int
    attempt: int
    source: str
    output: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregateTask:
    """Fold the candidates' updates into `model` and publish the next global model as `output`.

    candidates: (participant, attempt), the attempts whose updates count, sorted by participant.
    minimum: the fewest accepted updates. weight: "Samples", "Tokens" or "Uniform"; a participant's
    total is capped at weight_max. missing: participants whose termination message was lost and
    whose samples and digest the operator wants to learn. keep_globals and keep_updates: rounds
    whose files survive the pruning after publication. keep: folders of global models that survive
    it however old they are. population: how many participants the training has, invited or not.
    strategy: its name and every parameter, in the names of the API. norm_bound: L2 that every delta
    is scaled down to, or None. codec: how updates travel. precision: "Float32", "Float64" or
    "Exact". shards: processes that share the work, each told by `SHARD_ENV` which one it is.
    adapters: {"aggregation", "ranks": those of participants with one of their own}, or None.
    """

    role: Role = Role.AGGREGATE
    training: str
    uid: str
    round: int
    attempt: int
    model: ModelRef
    output: str
    candidates: tuple[tuple[str, int], ...]
    minimum: int
    population: int = 0
    strategy: Mapping[str, Any] = field(default_factory=lambda: {"name": "FedAvg"})
    norm_bound: float | None = None
    codec: Mapping[str, Any] | None = None
    precision: str = "Float32"
    shards: int = 1
    weight: str = "Samples"
    weight_max: int | None = None
    missing: tuple[str, ...] = ()
    keep_globals: int = 3
    keep: tuple[str, ...] = ()
    keep_updates: int = 1
    adapters: Mapping[str, Any] | None = None


Task = ParticipantTask | PrepareTask | ImportTask | AggregateTask
_KINDS: Mapping[str, type[Task]] = {
    kind.__name__: kind for kind in (ParticipantTask, PrepareTask, ImportTask, AggregateTask)
}


def task_id(task: Task) -> str:
    """`train/3/north/1`: the same for the same attempt at the same piece of work."""
    return work_id(task.role, task.round, getattr(task, "participant", ""), task.attempt)


def work_id(role: Role, round_number: int, participant: str, attempt: int) -> str:
    return f"{role}/{round_number}/{participant}/{attempt}"


def parted_id(text: str) -> tuple[Role, int, str, int]:
    """(role, round, participant, attempt); undoes `work_id`. Raises ValueError."""
    role, number, participant, attempt = text.split("/")
    return Role(role), int(number), participant, int(attempt)


def encode_task(task: Task) -> str:
    """One line of JSON for `FEDTRAIN_TASK`; `decode_task` gives an equal task back."""
    document = {"kind": type(task).__name__, **dataclasses.asdict(task)}
    return json.dumps(document, separators=(",", ":"), sort_keys=True)


def decode_task(text: str) -> Task:
    """The task in `FEDTRAIN_TASK`. Raises ValueError if it is not one of this version's."""
    document = json.loads(text)
    kind = _KINDS.get(document.pop("kind", None))
    if kind is None:
        raise ValueError(f"{TASK_ENV} holds no task that this version of fedtrain knows")
    document["role"] = Role(document["role"])
    if document.get("model") is not None:
        document["model"] = ModelRef(**document["model"])
    if "candidates" in document:
        document["candidates"] = tuple((str(p), int(a)) for p, a in document["candidates"])
    for name in ("participants", "missing", "include", "exclude", "keep"):
        if name in document:
            document[name] = tuple(document[name])
    try:
        return kind(**document)
    except TypeError as error:
        raise ValueError(f"{TASK_ENV} does not fit this version of fedtrain: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """`receipt.json`: its presence beside the files it names is the publication of an attempt.

    digest: of the published tensors (None after an evaluation). base: digest of the global model
    that the update is relative to, or that was evaluated. size: bytes of the safetensors file.
    codec: how its parameters are encoded, as the task said it; None for fp32. steps: of the
    optimizer. learning_rate: their mean. norm: ‖a‖₁ of `fedtrain.length`; None if not counted.
    before: what `metrics` were before the participant trained the model for itself.
    """

    version: int = RECEIPT_VERSION
    training: str
    round: int
    participant: str
    attempt: int
    base: str | None
    digest: str | None
    size: int
    samples: int
    steps: int = 0
    learning_rate: float | None = None
    norm: float | None = None
    seconds: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    codec: Mapping[str, Any] | None = None
    before: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises ValueError, in one sentence, for anything that is not a receipt."""
        try:
            receipt = cls(**json.loads(text, object_pairs_hook=_once))
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"not a receipt: {error}") from error
        names = ("version", "round", "attempt", "size", "samples", "steps")
        whole = [getattr(receipt, name) for name in names]
        if any(type(number) is not int or number < 0 for number in whole):
            raise ValueError(f"not a receipt: {', '.join(names)} must be whole")
        for number in (receipt.learning_rate, receipt.norm):
            # A bool is no float either; of infinity and NaN nothing is below this.
            if number is not None and not (type(number) in (int, float) and 0 < number < 1e12):
                raise ValueError("not a receipt: learning_rate and norm must be positive numbers")
        if receipt.version != RECEIPT_VERSION:
            raise ValueError(f"receipt version {receipt.version} is not {RECEIPT_VERSION}")
        return receipt


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("it says something twice")
    return document


_IN_A_RECEIPT: Mapping[Role, tuple[str, ...]] = {
    Role.INIT: ("digest", "size", "base_model"),
    Role.TRAIN: ("digest", "samples", "steps", "seconds", "metrics"),
    Role.EVALUATE: ("samples", "metrics"),
    Role.PERSONALIZE: ("samples", "seconds", "metrics", "before"),
}


def result_of(role: Role, text: str) -> dict[str, Any]:
    """What a receipt (of an initial model: its manifest) says about the result.

    Raises ValueError if it is none.
    """
    try:
        document = json.loads(text)
    except RecursionError as error:
        raise ValueError(str(error)) from error
    if not isinstance(document, dict):
        raise ValueError(f"it holds a {type(document).__name__}")
    return {name: document[name] for name in _IN_A_RECEIPT[role] if name in document}


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A termination message: why a process ended, and what it measured.

    reason: CamelCase, the word that conditions, events and metrics use. message: one sentence.
    result, by role: INIT {digest, size, base_model}; TRAIN {digest, samples, steps, seconds,
    metrics}; EVALUATE {samples, metrics}; PERSONALIZE {samples, seconds, metrics, before};
    AGGREGATE {digest, verdicts, reasons, details, filled, bytes, seconds, peakMemory, residual,
    exchangeFree, exchangeSize, spread, norms, cosines}, where `verdicts` holds one character per
    candidate ("." accepted, else a key of `reasons`), so that a thousand fit.
    """

    reason: str = "Completed"
    message: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)

    def encode(self) -> bytes:
        """At most MESSAGE_LIMIT bytes: `message` is cut first, then `result` is left out."""
        for text in (self.message[:2000], self.message[:200]):
            for result in (self.result, {k: v for k, v in self.result.items() if k != "details"}):
                document = {"reason": self.reason[:80], "message": text, "result": dict(result)}
                data = json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
                if len(data) <= MESSAGE_LIMIT:
                    return data
        cut = {"reason": self.reason[:80], "message": self.message[:200], "result": {}}
        return json.dumps(cut, separators=(",", ":"), sort_keys=True).encode()

    @classmethod
    def decode(cls, text: str) -> Self | None:
        """The message in a container's status, or None: a foreign text is no message of ours."""
        try:
            # Half a surrogate pair is no text: what cannot be UTF-8 becomes a question mark.
            whole = json.dumps(json.loads(text), ensure_ascii=False)
            document = json.loads(whole.encode("utf-8", "replace"))
        except (ValueError, RecursionError):
            return None
        if not isinstance(document, dict) or not isinstance(document.get("reason"), str):
            return None
        result = document.get("result")
        return cls(
            reason=re.sub(r"[^A-Za-z0-9]", "", document["reason"])[:80] or "Failed",
            message=str(document.get("message", "")),
            result=result if isinstance(result, dict) else {},
        )


def joined_digest(model: str, state: str | None) -> str:
    """The digest of a global model together with that of the server state beside it, if any."""
    return model if state is None else f"{model}+{state}"


def parted_digest(digest: str) -> tuple[str, str | None]:
    """(of the model, of the server state or None); undoes `joined_digest`."""
    model, plus, state = digest.partition("+")
    return model, state if plus else None


def weight_of(samples: int, by: str, maximum: int | None) -> int:
    """A participant's weight before normalisation: its total in the unit of `spec.weight`, capped.

    by: "Samples", "Tokens" or "Uniform" (then 1). The operator and the aggregator both use this.
    Raises ValueError for another unit.
    """
    if by == "Uniform":
        return 1
    if by not in ("Samples", "Tokens"):
        raise ValueError(f"weight.by: {by!r} is not Samples, Tokens or Uniform")
    return samples if maximum is None else min(samples, maximum)


def global_folder(round_number: int, n: int) -> str:
    """Where aggregation `n` of a round publishes; `status.globalModel` says which one counts."""
    return f"global/{round_number}/{n}"


def update_folder(participant: str, round_number: int, attempt: int) -> str:
    return f"updates/{participant}/{round_number}/{attempt}"


def evaluation_folder(participant: str, round_number: int, attempt: int) -> str:
    return f"updates/{participant}/{round_number}/evaluation-{attempt}"


def personalization_folder(participant: str, round_number: int, attempt: int) -> str:
    return f"updates/{participant}/{round_number}/personalization-{attempt}"


def training_folder(training: str, uid: str) -> str:
    """The training's folder on the exchange; the uid keeps a recreated name away from its past."""
    return f"{training}-{uid[:8]}"
