"""How the work is cut: into units that are hashed independently of each other.

A digest is made of the hashes of tiles (`contract.TILE_BYTES`). A unit is the smallest run of a
tensor in which the tiles of everything that carries it begin and end: 16 MiB for fp32. Where a
codec's parts do not line up, it is the whole tensor. Units never depend on threads or shards.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fedtrain.codecs import Codec
from fedtrain.contract import TILE_BYTES
from fedtrain.layout import item_size
from fedtrain.schema import Schema, TensorSpec

ROW = 1024
"""Elements that soundness is looked at together, see `fedtrain.aggregation.soundness`."""


@dataclass(frozen=True, slots=True)
class Carrier:
    """A tensor of an update file that carries a tensor of the model, or one part of it.

    number: of this one among all that an update holds. part: of the codec, None if as it is.
    """

    number: int
    part: int | None
    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Carried:
    """A tensor of the model with everything that carries it; number: its place in the schema."""

    number: int
    spec: TensorSpec
    count: int
    unit: int
    carriers: tuple[Carrier, ...]
    codec: Codec | None

    def run(self, carrier: Carrier, start: int, stop: int) -> tuple[int, int]:
        """Which elements of the carrier carry elements [start, stop) of the tensor."""
        if self.codec is None or carrier.part is None:
            return start, stop
        first, last = self.codec.part_range(carrier.part, start, stop)
        return first, last


@dataclass(frozen=True, slots=True)
class Unit:
    """Elements [start, stop) of a tensor."""

    tensor: Carried
    start: int
    stop: int


def carried(schema: Schema, codec: Codec | None) -> tuple[Carried, ...]:
    """What an update holds: parameters by the codec's parts, everything else as it is, and nothing
    that is frozen."""
    tensors: list[Carried] = []
    reached = 0
    for number, spec in enumerate(schema.tensors):
        if spec.kind == "frozen":
            continue
        own = codec if spec.kind == "parameter" else None
        carriers = tuple(_carriers(spec, own, reached))
        reached += len(carriers)
        unit = _unit(spec, own, carriers)
        tensors.append(Carried(number, spec, _count(spec.shape), unit, carriers, own))
    return tuple(tensors)


def units_of(tensors: Sequence[Carried]) -> Iterator[Unit]:
    """In the schema's order; an empty tensor is one empty unit."""
    for tensor in tensors:
        for start in range(0, max(1, tensor.count), tensor.unit):
            yield Unit(tensor, start, min(start + tensor.unit, tensor.count))


def pieces(unit: Unit, size: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of the runs that are in memory at once, `size` elements or fewer."""
    step = max(ROW, size // ROW * ROW)
    if unit.tensor.codec is not None and unit.tensor.codec.unit is not None:
        step = max(1, step // unit.tensor.codec.unit) * unit.tensor.codec.unit
    for start in range(unit.start, unit.stop, step):
        yield start, min(start + step, unit.stop)


def _carriers(spec: TensorSpec, codec: Codec | None, number: int) -> Iterator[Carrier]:
    if codec is None:
        yield Carrier(number, None, spec.name, spec.dtype, spec.shape)
        return
    for part, one in enumerate(codec.parts(spec.shape)):
        yield Carrier(number + part, part, spec.name + one.suffix, one.dtype, one.shape)


def _unit(spec: TensorSpec, codec: Codec | None, carriers: tuple[Carrier, ...]) -> int:
    count, unit = _count(spec.shape), TILE_BYTES // item_size(spec.dtype)
    while unit < count and not _lines_up(unit, codec, carriers):
        unit *= 2
    return max(1, min(unit, count)) if unit >= count else unit


def _lines_up(unit: int, codec: Codec | None, carriers: tuple[Carrier, ...]) -> bool:
    if codec is None:
        return True
    if codec.unit is not None and unit % codec.unit:
        return False
    stops = (codec.part_range(part, 0, unit)[1] for part in range(len(carriers)))
    return all(
        stop * item_size(carrier.dtype) % TILE_BYTES == 0
        for stop, carrier in zip(stops, carriers, strict=True)
    )


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count
