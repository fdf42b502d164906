"""A global model in memory: names and arrays."""

from pathlib import Path
from typing import Any

import numpy as np

from fedoperator.local.folder import Refused
from fedtrain import codecs, modelfiles, schema, tensorfile
from fedtrain.contract import SCHEMA_FILE


class StateDict(dict[str, "np.ndarray[Any, Any]"]):
    """Tensors by name, tied names too, as `load_state_dict` wants them: numpy's, or by `torch()`.

    path: of the safetensors file, or of the index of several, that it was read from.
    """

    path: Path

    def torch(self) -> "dict[str, Any]":
        """The same memory as torch's tensors."""
        import torch

        return {name: torch.from_numpy(array) for name, array in self.items()}

    def __repr__(self) -> str:
        count = sum(array.size for array in self.values())
        return f"<StateDict of {len(self)} tensors, {count:,} elements: {self.path}>"


def read(path: str | Path) -> StateDict:
    """The model at `path`: one safetensors file, the index of several, or a folder with either.

    All of it is read into memory; bf16, which numpy has not, comes widened to float32. Raises
    Refused, in one sentence, if there is no such model or it cannot be read.
    """
    place = Path(path)
    result = StateDict()
    result.path = place
    try:
        with modelfiles.open_model(place, links=True) as files:
            for name, info in files.tensors.items():
                array = files.read(name)
                if info.dtype == "BF16":
                    array = codecs.widened(array)
                result[name] = array.reshape(info.shape)
        folder = place if place.is_dir() else place.parent
        beside = folder / SCHEMA_FILE
        if beside.exists():  # of ours, which says what is tied; another's file has all its names
            for spec in schema.Schema.from_json(tensorfile.read_text(beside)).tensors:
                result |= dict.fromkeys(spec.aliases, result[spec.name])
    except (OSError, ValueError, KeyError) as error:
        raise Refused(f"{place}: no model can be read there: {error}") from error
    return result
