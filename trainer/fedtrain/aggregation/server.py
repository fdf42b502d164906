"""The server's own state: tensors "<slot>/<parameter>" in fp32 beside the global model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from fedtrain.contract import SERVER_FILE
from fedtrain.errors import TryAgain
from fedtrain.layout import TensorFileError
from fedtrain.modelfiles import INDEX_SUFFIX, ModelFiles, open_model
from fedtrain.schema import TensorSpec

Array = np.ndarray[Any, Any]


def tensor_name(slot: str, parameter: str) -> str:
    return f"{slot}/{parameter}"


def described(
    slots: Mapping[str, float], specs: Sequence[TensorSpec]
) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    """(name, dtype, shape) of the state's tensors for these tensors of the model."""
    return tuple(
        (tensor_name(slot, spec.name), "F32", spec.shape)
        for slot in sorted(slots)
        for spec in specs
        if spec.kind == "parameter"
    )


class ServerState:
    """The state beside the base: its files if `digest` names some, else the slots' first values.

    Raises TryAgain (BaseUnreadable) for files that do not hold these slots.
    """

    def __init__(self, folder: Path, slots: Mapping[str, float], digest: str | None) -> None:
        self._slots = slots
        self._folder = folder
        self._files: ModelFiles | None = None
        self.digest = digest if slots else None

    def __enter__(self) -> Self:
        if self.digest is not None:
            whole = self._folder / SERVER_FILE
            index = whole.with_name(SERVER_FILE + INDEX_SUFFIX)
            try:
                self._files = open_model(index if index.exists() else whole)
            except (TensorFileError, OSError) as error:
                raise TryAgain("BaseUnreadable", f"{self._folder.name}: {error}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if self._files is not None:
            self._files.close()

    def check(self, specs: Sequence[TensorSpec]) -> None:
        """Raises TryAgain (BaseUnreadable) unless the files hold exactly these slots."""
        if self._files is None:
            return
        found = {(info.name, info.dtype, info.shape) for info in self._files.tensors.values()}
        wanted = set(described(self._slots, specs))
        if found != wanted:
            odd = min(name for name, _, _ in found ^ wanted)
            sentence = (
                f"{self._folder.name}/{SERVER_FILE}: {odd[:80]!a} is not as the strategy has it"
            )
            raise TryAgain("BaseUnreadable", sentence)

    def read(self, slot: str, spec: TensorSpec, start: int, out: Array) -> None:
        """The slot's values for the model's tensor, from element `start` on."""
        if self._files is None:
            out.fill(self._slots[slot])
            return
        try:
            self._files.read_into(tensor_name(slot, spec.name), start, out)
        except TensorFileError as error:
            raise TryAgain("BaseUnreadable", f"{self._folder.name}: {error}") from error
