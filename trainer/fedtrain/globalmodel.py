"""The global model of a task as a participant reads it: the base that its deltas are relative to.

Every byte that is read is hashed, and `Base.verify` compares: with the digest that the task names,
and with what this very process has read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fedtrain import codecs
from fedtrain.adapters import cut, narrowed
from fedtrain.collective import Ranks
from fedtrain.contract import SCHEMA_FILE, TILE_BYTES, ModelRef, parted_digest
from fedtrain.errors import ContractError, TryAgain
from fedtrain.layout import TensorFileError, item_size
from fedtrain.modelfiles import ModelFiles, open_model
from fedtrain.pieces import Differs, Pieces, joint_digest
from fedtrain.schema import Schema
from fedtrain.tensorfile import bytes_of, read_text
from fedtrain.weights import TILE, Array, Tiles, Weights


def opened(root: Path, model: ModelRef, ranks: Ranks, rank: int | None) -> "Base":
    """The global model there; see `Base` for the rest. Raises TryAgain (BaseUnreadable)."""
    folder = root / model.path
    try:
        schema = Schema.from_json(read_text(folder / SCHEMA_FILE))
        file = open_model(folder)
    except (OSError, ValueError) as error:
        raise TryAgain("BaseUnreadable", f"{model.path}: {error}") from error
    return Base(file, schema, model, ranks, rank)


class Base:
    """The global model being read, a context manager; what is read is remembered as hashes.

    rank: of the adapter that reads it, which sees as much of each pair. schema: as it sees it.
    """

    def __init__(
        self,
        file: ModelFiles,
        schema: Schema,
        model: ModelRef,
        ranks: Ranks,
        rank: int | None,
    ) -> None:
        self.schema = narrowed(schema, rank)
        self._whole = schema
        self._shapes = {spec.name: spec.shape for spec in self.schema.tensors}
        self._file = file
        self._model = model
        self._ranks = ranks
        self._pieces = Pieces()

    def __enter__(self) -> Self:
        sentence = self._whole.difference(self._file.tensors.values())
        if sentence is not None:
            self._file.close()
            raise TryAgain("BaseUnreadable", f"{self._model.path}: {sentence}")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def tiles(self, name: str) -> Tiles:
        """A tensor's values, to be read once; bf16 is widened, for numpy has none."""
        whole, own = self._file.tensors[name].shape, self._shapes[name]
        tiles = BaseTiles(self, name)
        return tiles if whole == own else cut(tiles, whole, own)

    def between(self, name: str, start: int, stop: int) -> Iterator[tuple[int, Array]]:
        """(start, values) of elements [start, stop) in pieces that lie within tiles."""
        info = self._file.tensors[name]
        tile = TILE_BYTES // item_size(info.dtype)
        at = start
        while at < stop:
            end = min(stop, at + TILE, (at // tile + 1) * tile)
            piece = self._read(name, at, end)
            self._pieces.add(info, at, bytes_of(piece))
            yield at, codecs.widened(piece) if info.dtype == "BF16" else piece
            at = end

    def count(self, name: str) -> int:
        return self._file.tensors[name].count

    def verify(self) -> None:
        """Raises TryAgain unless the file is what the task names, and what was read is its.

        What no rank has read is read here, for it is part of the digest. Collective.
        """
        try:
            digest = joint_digest(
                self._ranks,
                self._file.tensors,
                self._pieces,
                lambda name, start, stop: bytes_of(self._read(name, start, stop)),
                whole=False,
            )
        except Differs as error:
            sentence = f"{self._model.path} was changed while it was read: {error}"
            raise TryAgain("BaseDigestMismatch", sentence) from error
        wanted, _ = parted_digest(self._model.digest)
        if digest != wanted:
            sentence = f"{self._model.path} has digest {digest}, not {wanted}"
            raise TryAgain("BaseDigestMismatch", sentence)

    def _read(self, name: str, start: int, stop: int) -> Array:
        try:
            return self._file.read(name, start, stop)
        except (OSError, TensorFileError) as error:
            raise TryAgain("BaseUnreadable", f"{self._model.path}: {error}") from error


@dataclass(frozen=True, slots=True)
class BaseTiles:
    """One tensor of the base: all of it, or the elements that a rank needs (`weights.Ranged`)."""

    base: Base
    name: str

    def __iter__(self) -> Iterator[tuple[int, Array]]:
        return self.between(0, self.base.count(self.name))

    def between(self, start: int, stop: int) -> Iterator[tuple[int, Array]]:
        return self.base.between(self.name, start, stop)


def check_schema(schema: Schema, weights: Weights) -> None:
    """Raises ContractError, in one sentence, if the script's model is not the federation's."""
    names, own = weights.names(), {spec.name: spec for spec in weights.schema.tensors}
    covered = set()
    for spec in schema.tensors:
        if spec.name not in names:
            raise _mismatch(f"the global model has {spec.name!r}, the script's has not")
        mine = own[names[spec.name]]
        if mine.shape != spec.shape:
            sentence = f"{list(spec.shape)} in the global model, {list(mine.shape)} in the script's"
            raise _mismatch(f"{spec.name!r} is {sentence}")
        if (mine.kind == "integer") != (spec.kind == "integer"):
            sentence = f"{spec.dtype} in the global model, {mine.dtype} in the script's"
            raise _mismatch(f"{spec.name!r} is {sentence}")
        covered.add(mine.name)
    missing = sorted(own.keys() - covered)
    if missing:
        raise _mismatch(f"the script's model has {missing[0]!r}, the global model has not")


def _mismatch(sentence: str) -> ContractError:
    return ContractError("SchemaMismatch", f"{sentence}: build the same model in every role")
