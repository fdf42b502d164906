"""What of a model stays with its participant: layers that never travel, and a personal model.

    layers.safetensors      the tensors that `spec.exchange` keeps at home (`fedtrain.partial`)
    personal.safetensors    the personal model v_k of Ditto (`fedtrain.ditto`)

Both lie in `fedtrain.memory` beside `rnd.state` and follow its rule: what a round begins with is
what the participant's last *accepted* attempt left. They pass through in tiles, in the dtype that
the model has; rank 0 reads, and tells the other ranks.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from fedtrain import codecs, partial
from fedtrain.contract import ParticipantTask
from fedtrain.ditto import Personal
from fedtrain.errors import ContractError
from fedtrain.layout import numpy_dtype, plan
from fedtrain.memory import Memory
from fedtrain.tensorfile import TensorFile, TensorWriter
from fedtrain.weights import Array, Weights, tile_starts

LAYERS_FILE = "layers.safetensors"
PERSONAL_FILE = "personal.safetensors"
MODEL_FILE = "model.safetensors"

T = TypeVar("T")


class Together(Protocol):
    """`Session.together`: done on rank 0, and told to all."""

    def __call__(self, act: Callable[[], T], /) -> T: ...


class KeptTensors:
    """Some tensors of a model, kept in a file of the participant's memory."""

    def __init__(self, weights: Weights, names: Sequence[str], file: str) -> None:
        self.file = file
        self._weights = weights
        self._names = tuple(names)
        self._shapes = {spec.name: spec.shape for spec in weights.schema.tensors}
        self._built: dict[str, tuple[str, list[tuple[int, Array]]]] | None = None

    def write(self, folder: Path) -> None:
        own = {name: self._weights.own(name) for name in self._names}
        infos = plan((name, dtype, self._shapes[name]) for name, (dtype, _) in own.items())
        with TensorWriter(folder / self.file, infos, {"format": "pt"}) as file:
            for name, (dtype, tiles) in own.items():
                for start, tile in tiles:
                    file.write(name, start, tile.astype(numpy_dtype(dtype), copy=False))

    def restore(self, memory: Memory, together: Together) -> bool:
        """Fill the tensors with what the last accepted attempt left; False if it left nothing.

        Raises TryAgain (StateUnreadable), and ContractError (SchemaMismatch) if the model is not
        the one that they were kept of.
        """
        opened: list[TensorFile] = []

        def found() -> dict[str, tuple[str, tuple[int, ...]]] | None:
            file = memory.tensors(self.file)
            if file is None:
                return None
            opened.append(file)
            return {name: (info.dtype, info.shape) for name, info in file.tensors.items()}

        def read(name: str, start: int, stop: int) -> Array:
            return together(lambda: memory.read(opened[0], name, start, stop))

        try:
            there = together(found)
            if there is None:
                return False
            shapes = {name: shape for name, (_, shape) in there.items()}
            if shapes != {name: self._shapes[name] for name in self._names}:
                sentence = f"{self.file} was kept of another model: build the same one each time"
                raise ContractError("SchemaMismatch", sentence)
            for name, (dtype, _) in there.items():
                self._weights.fill(name, self._tiles(name, dtype, read))
            return True
        finally:
            for file in opened:
                file.close()

    def as_built(self) -> None:
        """Where nothing was accepted yet: the values that the script gave them, also after rounds
        of this very process whose updates were lost."""
        if self._built is None:
            own = ((name, *self._weights.own(name)) for name in self._names)
            self._built = {
                name: (dtype, [(start, tile.copy()) for start, tile in tiles])
                for name, dtype, tiles in own
            }
            return
        for name, (dtype, built) in self._built.items():
            self._weights.fill(name, ((start, _wide(tile, dtype)) for start, tile in built))

    def _tiles(
        self, name: str, dtype: str, read: Callable[[str, int, int], Array]
    ) -> Iterator[tuple[int, Array]]:
        for start, stop in tile_starts(math.prod(self._shapes[name])):
            yield start, _wide(read(name, start, stop), dtype)


def _wide(tile: Array, dtype: str) -> Array:
    return codecs.widened(tile) if dtype == "BF16" else tile


@dataclass(slots=True, kw_only=True)
class Home:
    """One script's model, parted into what travels and what does not; lives through many rounds.

    whole: every tensor. weights: what travels. layers: what does not, if there is any. personal:
    the script's personal model, if it has one.
    """

    whole: Weights
    weights: Weights = field(init=False)
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    personal: Personal | None = None
    layers: KeptTensors | None = field(init=False, default=None)
    _twin: KeptTensors | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.weights, names = partial.parted(self.whole, self.include, self.exclude)
        if self.whole.sharded and (names or self.personal is not None):
            sentence = "layers and models that stay at home are for models that are not sharded yet"
            raise ContractError("ModelUnsupported", f"rounds(model): {sentence}; use DDP")
        if names:
            self.layers = KeptTensors(self.whole, names, LAYERS_FILE)
        if self.personal is not None:
            self.personal.check(self.weights.schema)
            twin = self.personal.weights
            everything = [spec.name for spec in twin.schema.tensors]
            self._twin = KeptTensors(twin, everything, PERSONAL_FILE)

    @property
    def kept(self) -> tuple[KeptTensors, ...]:
        """What is saved with a submit."""
        return tuple(one for one in (self.layers, self._twin) if one is not None)

    def begin(self, memory: Memory, together: Together) -> None:
        """Once the global model is loaded: the participant's own tensors, as last accepted."""
        if self.layers is not None and not self.layers.restore(memory, together):
            self.layers.as_built()
        if self._twin is not None and not self._twin.restore(memory, together):
            assert self.personal is not None, "a file of a model that is there"
            self.personal.begin_as(self.whole)

    def pull(self, task: ParticipantTask) -> None:
        """Have the personal model drawn to the global one that is loaded now, until `end`."""
        if self.personal is not None:
            self.personal.pull(self.weights, task.pull or 0.0)
        elif task.pull is not None:
            raise ContractError(
                "NoPersonalModel",
                "spec.personalization.ditto asks for a personal model: pass rounds(..., "
                "personal=a second model, personal_optimizer=its optimizer)",
            )

    def end(self) -> None:
        """Of a round: nothing of it is left in the script's optimizer."""
        if self.personal is not None:
            self.personal.end()

    def publish(self, memory: Memory, metrics: Mapping[str, Mapping[str, float]]) -> None:
        """Leave the fine-tuned models on the participant's scratch, in place of older ones.

        Raises TryAgain (StateNotSaved).
        """
        names = [spec.name for spec in self.whole.schema.tensors]
        models = [KeptTensors(self.whole, names, MODEL_FILE)]
        memory.publish([*models, self._twin] if self._twin is not None else models, metrics)
