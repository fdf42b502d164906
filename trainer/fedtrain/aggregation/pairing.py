"""Passes over pairs of factors: both tensors of a layer, whole, by one thread.

`Products` puts the participants' products together (`adapters.aggregation: Product`). `Residuals`
measures, of whatever was published, how far it is from the exact weighted sum of the products.
In memory are the factors of one pair, of all updates: (out + in) · Σ rᵢ numbers in each thread.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedtrain.adapters import Pair, narrowed
from fedtrain.aggregation import lowrank
from fedtrain.aggregation.fold import BaseModel, check_finite
from fedtrain.aggregation.hashing import RunningTiles
from fedtrain.aggregation.passes import Pass
from fedtrain.aggregation.record import Record
from fedtrain.aggregation.units import Carried, Unit, carried, pieces
from fedtrain.aggregation.updates import Bench, UnitReading, Update
from fedtrain.codecs import Codec
from fedtrain.errors import TryAgain
from fedtrain.layout import TensorFileError
from fedtrain.schema import Schema, TensorSpec
from fedtrain.tensorfile import TensorWriter, bytes_of

Array = np.ndarray[Any, Any]
PIECE = 128 * 1024
LARGEST = 2.0**100
"""Of a product (its Frobenius norm): a sum of such is far from fp32's end, so no participant can
make the next model infinite by factors of which each number is fit to be summed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """Where factors are read from, and written to.

    schema: of the global model. ranks: of each update's adapter, None where it is the global one's.
    weights: n_k / n of each update. model_file: of the next model.
    """

    schema: Schema
    codec: Codec | None
    base: BaseModel
    updates: Sequence[Update]
    ranks: Sequence[int | None]
    weights: Sequence[float]
    model_file: TensorWriter

    def of_base(self, spec: TensorSpec) -> Array:
        """fp32, in the shape of the global model."""
        out = np.empty(math.prod(spec.shape), np.float32)
        try:
            self.base.read_into(spec.name, 0, out)
        except TensorFileError as error:
            raise TryAgain("BaseUnreadable", f"the base's {spec.name[:80]!a}: {error}") from error
        return out.reshape(spec.shape)

    def carried(self) -> list[Mapping[str, Carried]]:
        """Of each update: name → what carries it."""
        kinds = {
            rank: {one.spec.name: one for one in carried(narrowed(self.schema, rank), self.codec)}
            for rank in set(self.ranks)
        }
        return [kinds[rank] for rank in self.ranks]


class PairPass(Pass[Pair]):
    """owned: the pairs that are this process's work."""

    def __init__(self, owned: Sequence[Pair], factors: Factors, record: Record) -> None:
        super().__init__(factors.updates, record)
        self.factors = factors
        self._owned = owned
        self._carried = factors.carried()

    def units(self) -> Iterator[Pair]:
        return iter(self._owned)

    def trained(
        self, position: int, spec: TensorSpec, base: Array, bench: Bench
    ) -> tuple[Array, UnitReading | None]:
        """A factor of the rank of this update, fp64 (rank, in) or (out, rank): what was loaded and
        the delta; and how it was read, None if it is frozen. An unsound one means nothing."""
        tensor = self._carried[position].get(spec.name)
        if tensor is None:
            return matrix(base), None
        unit = Unit(tensor, 0, tensor.count)
        reading = UnitReading(unit, [self.updates[position]], bench, self.record)
        shape = tensor.spec.shape
        flat = base[: shape[0], : shape[1]].astype(np.float64).reshape(-1)
        for start, stop in pieces(unit, PIECE):
            for _, value in reading.values(start, stop):
                flat[start:stop] += value
        return matrix(flat.reshape(shape)), reading


class Products(PairPass):
    """The weighted sum of the products, cut to the global rank, becomes the next model's pair."""

    def work(self, number: int, pair: Pair, bench: Bench) -> None:
        specs = pair.a, pair.b
        base = {spec.name: self.factors.of_base(spec) for spec in specs}
        squares: dict[str, list[float]] = {spec.name: [] for spec in specs}
        terms: list[lowrank.Term] = []
        for position, weight in enumerate(self.factors.weights):
            if self.interrupted:
                return
            read = [self.trained(position, spec, base[spec.name], bench) for spec in specs]
            for spec, (_, reading) in zip(specs, read, strict=True):
                assert reading is not None, "nothing is frozen in Product"
                reading.leave_hashes()
                reading.forget()
                squares[spec.name] += reading.squares
            (a, _), (b, _) = read
            if np.linalg.norm(a) * np.linalg.norm(b) > LARGEST:
                sentence = f"the product of {pair.a.name[:80]!a} and its B is beyond {LARGEST:.1e}"
                candidate = self.updates[position].candidate
                self.record.refuse(candidate, "TooLarge", sentence, (self._number(pair), 0))
            terms.append((weight, b, a))
        for spec in specs:
            tiles = RunningTiles()
            tiles.update(bytes_of(base[spec.name]))
            self.record.hashed("base", spec.name, 0, tiles.finish())
            self.record.measured(spec.name, 0, squares[spec.name])
        if self.record.spoiled:
            return
        b, a = lowrank.summed(terms, matrix(base[pair.a.name]))
        for spec, factor in ((pair.a, a), (pair.b, b)):
            flat = factor.astype(np.float32).reshape(-1)
            check_finite(flat, spec.name)
            self.factors.model_file.write(spec.name, 0, flat)

    def _number(self, pair: Pair) -> int:
        """The place of its A in the schema."""
        return self.factors.schema.tensors.index(pair.a)


class Residuals(PairPass):
    """‖W − Σ wᵢ Bᵢ Aᵢ‖ and ‖Σ wᵢ Bᵢ Aᵢ‖ of each pair of the model that has just been written."""

    def work(self, number: int, pair: Pair, bench: Bench) -> None:
        specs = pair.a, pair.b
        base = {spec.name: self.factors.of_base(spec) for spec in specs}
        terms: list[lowrank.Term] = []
        for position, weight in enumerate(self.factors.weights):
            if self.interrupted:
                return
            a, b = (self.trained(position, spec, base[spec.name], bench)[0] for spec in specs)
            terms.append((weight, b, a))
        if self.record.spoiled:  # a file has changed since it was summed
            return
        a, b = (self._written(spec) for spec in specs)
        self.record.off(pair.a.name, *lowrank.residual(b, a, terms))

    def _written(self, spec: TensorSpec) -> Array:
        out = np.empty(math.prod(spec.shape), np.float32)
        self.factors.model_file.read_back(spec.name, out)
        return matrix(out.reshape(spec.shape))


def matrix(factor: Array) -> Array:
    """(rank, in) of an A, (out, rank) of a B, of convolutions too."""
    return factor.reshape(len(factor), -1)
