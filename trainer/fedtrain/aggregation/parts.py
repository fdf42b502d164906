"""The files that a process writes: the next model's and the server's state, or its part of them."""

import os
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from fedtrain.aggregation.server import described
from fedtrain.contract import MODEL_FILE, SERVER_FILE
from fedtrain.layout import plan
from fedtrain.modelfiles import shard_name
from fedtrain.schema import TensorSpec
from fedtrain.tensorfile import TensorWriter

METADATA = {"format": "pt"}
"""What other readers of safetensors files look for: plain names, row-major tensors."""


class Parts:
    """The writers of a process, a context manager; `finish` makes durable files of them.

    specs: the tensors of the model that this process writes. slots: of the strategy.
    """

    def __init__(
        self,
        folder: Path,
        specs: Sequence[TensorSpec],
        slots: Mapping[str, float],
        index: int,
        count: int,
    ) -> None:
        self._folder = folder
        self._specs = specs
        self._slots = slots
        self._part = index, count
        self._opened = ExitStack()
        self._files: dict[str, tuple[TensorWriter, Path]] = {}

    def __enter__(self) -> Self:
        model = tuple((spec.name, spec.dtype, spec.shape) for spec in self._specs)
        with ExitStack() as opened:
            self._open(opened, MODEL_FILE, model)
            if self._slots:
                self._open(opened, SERVER_FILE, described(self._slots, self._specs))
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._opened.__exit__(kind, error, trace)

    @property
    def model(self) -> TensorWriter:
        return self._files[MODEL_FILE][0]

    @property
    def state(self) -> TensorWriter | None:
        """None if the strategy keeps no state."""
        return self._files[SERVER_FILE][0] if self._slots else None

    def hashes(self) -> dict[str, dict[str, str]]:
        """ "model" and "server" → tensor → its tiles' hashes in hex, of everything written."""
        return {
            Path(file).stem: {name: tiles.hex() for name, tiles in writer.tiles().items()}
            for file, (writer, _) in self._files.items()
        }

    def finish(self) -> dict[str, int]:
        """Flush, give the files their names; "model" and "server" → bytes.

        They stay in the page cache, unlike the updates: everybody reads them next.
        """
        for file, (writer, path) in self._files.items():
            writer.close()
            os.replace(path, self._folder / shard_name(*self._part, file))
        return {Path(file).stem: writer.size for file, (writer, _) in self._files.items()}

    def _open(
        self, opened: ExitStack, file: str, tensors: Sequence[tuple[str, str, tuple[int, ...]]]
    ) -> None:
        # Under another name first: a shard that was killed may have left a part of its own here.
        path = self._folder / f".part-{uuid.uuid4().hex}"
        writer = opened.enter_context(TensorWriter(path, plan(tensors), METADATA))
        self._files[file] = writer, path
