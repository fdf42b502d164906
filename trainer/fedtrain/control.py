"""SCAFFOLD's control variates at a participant: Karimireddy, Kale, Mohri, Reddi, Stich, Suresh,
"SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", ICML 2020 (arXiv:1910.06378),
Algorithm 1, option II:

    y ← y − η (g(y) − c_i + c)          c_i⁺ = c_i − c + (x − y) / (K η)

The server's c lies beside the global model, as the strategy's state. c_i is kept with `rnd.state`,
see `fedtrain.memory`: it is that of this participant's last accepted update, so that c stays the
mean of all participants' c_i. Nothing but the update travels: from it, K and η the server makes the
change of c_i itself. K η is the round's length, see `fedtrain.length`.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedtrain.contract import SERVER_FILE, ModelRef, parted_digest
from fedtrain.errors import TryAgain
from fedtrain.layout import TensorFileError, plan
from fedtrain.log import say
from fedtrain.memory import Memory
from fedtrain.modelfiles import INDEX_SUFFIX, ModelFiles, open_model
from fedtrain.schema import TensorSpec
from fedtrain.store import Store, Submission
from fedtrain.tensorfile import Digest, TensorFile, TensorWriter, bytes_of, tensor_tiles
from fedtrain.weights import Array, Tiles, Weights

CONTROL_FILE = "control.safetensors"
SLOT = "control"
"""What c is called among the server's tensors: "control/<parameter>"."""

LOST = (
    "this participant's control variate is not on its scratch any more: it begins with zero again, "
    "and what was lost stays in the server's"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """c and c_i as this round begins with them. remembered: whether there is a c_i."""

    store: Store
    memory: Memory
    weights: Weights
    remembered: bool

    def drift(self) -> Iterator[tuple[str, Tiles]]:
        """(parameter, c − c_i), each to be read to its end; nothing at all while both are zero.

        Raises TryAgain (BaseUnreadable, BaseDigestMismatch, StateUnreadable).
        """
        _, digest = parted_digest(self._model.digest)
        with self._opened() as (server, own):
            if server is None and own is None:
                return
            hashed = Digest()
            for spec in self._parameters():
                yield spec.name, _difference(spec, server, own, hashed)
            if server is not None and hashed.hexdigest() != digest:
                sentence = f"{self._model.path}/{SERVER_FILE} has not the digest {digest}"
                raise TryAgain("BaseDigestMismatch", sentence)

    def after(self, submission: Submission) -> "ControlAfter":
        """c_i⁺, to be kept with the state of the round that comes to this."""
        return ControlAfter(self, submission.length)

    def write(self, folder: Path, length: float) -> None:
        """Put c_i⁺ into a new file there; c is not hashed a second time."""
        parameters = self._parameters()
        layout = plan((spec.name, "F32", spec.shape) for spec in parameters)
        with (
            self.store.base() as base,
            self._opened() as (server, own),
            TensorWriter(folder / CONTROL_FILE, layout) as file,
        ):
            for spec in parameters:
                for start, delta in self.weights.deltas(spec.name, base.tiles(spec.name)):
                    after = np.multiply(delta, np.float32(-1 / length))
                    stop = start + delta.size
                    if own is not None:
                        after += own.read(spec.name, start, stop)
                    if server is not None:
                        after -= server.read(f"{SLOT}/{spec.name}", start, stop)
                    file.write(spec.name, start, after)

    @property
    def _model(self) -> ModelRef:
        assert self.store.task.model is not None, "who trains has a global model"
        return self.store.task.model

    def _parameters(self) -> list[TensorSpec]:
        with self.store.base() as base:
            return [spec for spec in base.schema.tensors if spec.kind == "parameter"]

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[ModelFiles | None, TensorFile | None]]:
        """The files of c and c_i, those that there are."""
        whole = self.store.root / self._model.path / SERVER_FILE
        index = whole.with_name(SERVER_FILE + INDEX_SUFFIX)
        with ExitStack() as opened:
            server = own = None
            try:
                if parted_digest(self._model.digest)[1] is not None:
                    server = open_model(index if index.exists() else whole)
                    opened.enter_context(server)
            except (OSError, TensorFileError) as error:
                raise TryAgain("BaseUnreadable", f"{self._model.path}: {error}") from error
            if self.remembered:
                own = self.memory.tensors(CONTROL_FILE)
                if own is None:
                    sentence = f"{CONTROL_FILE} is on rank 0's scratch only; share the claim"
                    raise TryAgain("StateUnreadable", sentence)
                opened.enter_context(own)
            yield server, own


@dataclass(frozen=True, slots=True)
class ControlAfter:
    """c_i⁺ of a round of this length."""

    control: Control
    length: float

    def write(self, folder: Path) -> None:
        self.control.write(folder, self.length)


def remembered(memory: Memory) -> bool:
    """Whether there is a c_i; says so if there was one, and it is lost."""
    file = memory.tensors(CONTROL_FILE)
    if file is not None:
        file.close()
    elif memory.accepted is not None:
        say(LOST)
    return file is not None


def _difference(
    spec: TensorSpec, server: ModelFiles | None, own: TensorFile | None, hashed: Digest
) -> Iterator[tuple[int, Array]]:
    """c − c_i, tile by tile; c's tiles are hashed."""
    (info,) = plan([(f"{SLOT}/{spec.name}", "F32", spec.shape)])
    for index, start, stop in tensor_tiles(info):
        tile = np.zeros(stop - start, np.float32)
        if server is not None:
            try:
                server.read_into(info.name, start, tile)
            except (OSError, ValueError, KeyError) as error:
                raise TryAgain("BaseUnreadable", f"{SERVER_FILE}: {error}") from error
            sha256 = hashlib.sha256(bytes_of(tile)).digest()
            hashed.update(info.name, info.dtype, info.shape, index, sha256)
        if own is not None:
            try:
                tile -= own.read(spec.name, start, stop)
            except (OSError, ValueError, KeyError) as error:
                raise TryAgain("StateUnreadable", f"{CONTROL_FILE}: {error}") from error
        if tile.size:
            yield start, tile
