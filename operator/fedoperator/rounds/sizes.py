"""How large the files of a federation are, from the tensors of its model: no file is opened.

Layouts are those of `fedtrain.tensorfile`, `fedtrain.codecs` and `fedtrain.schema`, of which the
operator imports nothing; tests compare the two.
"""

import fnmatch
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fedoperator.api.training import Participant, TrainingSpec

FLOATING = frozenset({"F64", "F32", "F16", "BF16"})
_ITEM = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2}
_ITEM |= {"I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_BUFFERS = ("running_mean", "running_var")

SLOTS = {
    "FedAvgM": ("momentum",),
    "DiLoCo": ("momentum",),
    "SCAFFOLD": ("control",),
    "CenteredClipping": ("center",),
    "FedAdam": ("m", "v"),
    "FedYogi": ("m", "v"),
    "FedAdagrad": ("m", "v"),
}
"""What a strategy keeps beside the global model: so many more copies of its parameters."""

RECEIPT = 640
"""Bytes of a receipt with a few metrics."""
MANIFEST, MANIFEST_EACH = 560, 290
"""Bytes of a manifest, and of each accepted update in it."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a global model."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    kind: Literal["parameter", "buffer", "integer", "frozen"] = "parameter"

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.count * _ITEM[self.dtype]


@dataclass(frozen=True, slots=True)
class Model:
    """What travels as the global model."""

    tensors: tuple[Tensor, ...]

    @property
    def parameters(self) -> int:
        return sum(t.count for t in self.tensors if t.kind in ("parameter", "frozen"))


def of_count(parameters: int) -> Model:
    """A model of which only the number of parameters is known: one tensor in fp32."""
    return Model((Tensor("parameters", "F32", (parameters,)),))


def of_header(header: dict[str, Any], spec: TrainingSpec) -> Model:
    """The global model that a checkpoint becomes, by the header of its safetensors file: floating
    tensors in fp32, those that stay at home left out. Raises ValueError for what is no header.
    """
    tensors = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            dtype, shape = str(entry["dtype"]), tuple(int(n) for n in entry["shape"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{name}: not a tensor") from error
        if dtype not in _ITEM:
            raise ValueError(f"{name}: {dtype} is no type of numbers that travels")
        if travels(name, spec):
            tensors.append(_published(name, dtype, shape, spec))
    return Model(tuple(sorted(tensors, key=lambda tensor: tensor.name)))


def of_schema(document: dict[str, Any]) -> Model:
    """By the schema.json beside a global model. Raises ValueError for what is none."""
    try:
        return Model(
            tuple(
                Tensor(t["name"], t["dtype"], tuple(t["shape"]), t["kind"])
                for t in document["tensors"]
            )
        )
    except (KeyError, TypeError) as error:
        raise ValueError("not a schema") from error


def travels(name: str, spec: TrainingSpec) -> bool:
    """Whether exchange.include and exclude let the tensor leave its participant."""
    include, exclude = spec.exchange.include or ["*"], spec.exchange.exclude or []
    return any(fnmatch.fnmatchcase(name, p) for p in include) and not any(
        fnmatch.fnmatchcase(name, p) for p in exclude
    )


def _published(name: str, dtype: str, shape: tuple[int, ...], spec: TrainingSpec) -> Tensor:
    if dtype not in FLOATING:
        return Tensor(name, dtype, shape, "integer")
    kind: Literal["parameter", "buffer", "frozen"] = "parameter"
    if name.rpartition(".")[2] in _BUFFERS:
        kind = "buffer"
    elif spec.adapters is not None and spec.adapters.aggregation == "FrozenA" and "lora_A" in name:
        kind = "frozen"
    return Tensor(name, "F32", shape, kind)


def file_bytes(tensors: Iterable[Tensor]) -> int:
    """Of a safetensors file: length, header filled to a multiple of 8, data."""
    at, header = 0, {"__metadata__": {"format": "pt"}}
    entries: dict[str, Any] = dict(header)
    for tensor in tensors:
        place = [at, at + tensor.nbytes]
        entries[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": place,
        }
        at += tensor.nbytes
    text = len(json.dumps(entries, separators=(",", ":")).encode())
    return 8 + -(-text // 8) * 8 + at


def global_bytes(model: Model, spec: TrainingSpec, number: int, accepted: int) -> int:
    """Of a folder global/<number>/<n>: model, server state, schema, manifest."""
    size = file_bytes(model.tensors) + state_bytes(model, spec, number) + schema_bytes(model)
    return size + MANIFEST + (MANIFEST_EACH * accepted if number else 0)


def state_bytes(model: Model, spec: TrainingSpec, number: int) -> int:
    """Of server.safetensors beside the model of a round; the initial model has none."""
    slots: Sequence[str] = SLOTS.get(spec.strategy.name, ()) if number else ()
    if not slots:
        return 0
    parameters = [t for t in model.tensors if t.kind == "parameter"]
    return file_bytes(
        Tensor(f"{slot}/{t.name}", "F32", t.shape) for slot in slots for t in parameters
    )


def schema_bytes(model: Model) -> int:
    tensors = [
        {
            "name": t.name,
            "dtype": t.dtype,
            "shape": list(t.shape),
            "kind": t.kind,
            "aliases": [],
        }
        for t in model.tensors
    ]
    return len(json.dumps({"version": 1, "tensors": tensors}, indent=1)) + 1


def update_bytes(model: Model, spec: TrainingSpec, participant: Participant) -> int:
    """Of a participant's update file, without its receipt."""
    moving = [t for t in model.tensors if t.kind != "frozen"]
    own = participant.adapter_rank
    if own is not None and spec.adapters is not None and spec.adapters.rank is not None:
        moving = [_narrowed(t, own) for t in moving]
    return file_bytes(part for tensor in moving for part in _parts(tensor, spec))


def _narrowed(tensor: Tensor, rank: int) -> Tensor:
    """The factor of an adapter as a participant of a smaller rank has it."""
    shape = tensor.shape
    if "lora_A" in tensor.name and len(shape) == 2:
        shape = (min(rank, shape[0]), shape[1])
    elif "lora_B" in tensor.name and len(shape) == 2:
        shape = (shape[0], min(rank, shape[1]))
    return Tensor(tensor.name, tensor.dtype, shape, tensor.kind)


def _parts(tensor: Tensor, spec: TrainingSpec) -> list[Tensor]:
    """What carries a tensor: as it is, or by the codec's parts."""
    if spec.compression is None or tensor.kind != "parameter":
        return [tensor]
    given, name, count = spec.compression.document, tensor.name, tensor.count
    if given["name"] == "BFloat16":
        return [Tensor(name, "BF16", tensor.shape)]
    if given["name"] == "Int8":
        scales = Tensor(f"{name}:scales", "F32", (-(-count // given["block"]),))
        return [Tensor(name, "I8", tensor.shape), scales]
    whole, rest = divmod(count, given["block"])
    lengths = (given["block"], rest)
    each = [min(length, math.ceil(given["fraction"] * length)) for length in lengths]
    kept = (whole * each[0] + each[1],)
    return [Tensor(name, "F32", kept), Tensor(f"{name}:indices", "I16", kept)]
