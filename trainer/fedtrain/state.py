"""`rnd.state`: what a participant remembers of its own rounds, as a mapping of names to values.

A value is a numpy array, a torch tensor (which comes back on the CPU), or whatever JSON can hold.
On disk the arrays are a safetensors file of our own writing, the rest is JSON; nothing is pickled,
and torch is loaded only where a tensor is given back. `fedtrain.memory` says when and where.
"""

import json
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np

from fedtrain.errors import ContractError
from fedtrain.layout import TensorFileError, dtype_name, numpy_dtype, plan
from fedtrain.tensorfile import TensorFile, TensorWriter, read_text

STATE_FILE = "state.json"
TENSORS_FILE = "state.safetensors"
VERSION = 1
RESERVED = "__"
"""How no name begins: safetensors has a use for one such name, and we may have for others."""

_TORCH_DTYPES = frozenset(
    {"float64", "float32", "float16", "bfloat16"}
    | {"int64", "int32", "int16", "int8", "uint8", "bool"}
)


class State(MutableMapping[str, Any]):
    """Kept from round to round, but only from rounds that the federation accepted.

    It is saved with the submit, before the update is published, and what a round begins with is
    what this participant's last *accepted* update was submitted with: a round whose update was
    lost or refused leaves no trace. Every rank may set it; rank 0's is what is saved, and all ranks
    begin the next round with that. Raises ContractError (BadState) for what cannot be kept.
    """

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self._values = dict(values or {})

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __setitem__(self, name: str, value: Any) -> None:
        _check(name, value)
        self._values[name] = value

    def __delitem__(self, name: str) -> None:
        del self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"State({', '.join(self._values)})"

    def write(self, folder: Path) -> str:
        """Put the tensors into `folder`; the text of the state.json that belongs to them."""
        arrays: dict[str, Any] = {}
        rest: dict[str, Any] = {}
        torch_names = []
        for name, value in self._values.items():
            _check(name, value)  # again, for a list may have been changed since it was set
            if isinstance(value, np.ndarray):
                arrays[name] = value
            elif _is_tensor(value):
                arrays[name] = _array_of(value)
                torch_names.append(name)
            else:
                rest[name] = value
        infos = plan((name, dtype_name(array), array.shape) for name, array in arrays.items())
        with TensorWriter(folder / TENSORS_FILE, infos) as file:
            for info in infos:
                dtype = numpy_dtype(info.dtype)  # little endian
                file.write(info.name, 0, arrays[info.name].astype(dtype, copy=False))
        document = {"version": VERSION, "json": rest, "torch": sorted(torch_names)}
        return json.dumps(document, indent=1, sort_keys=True) + "\n"


def read_state(folder: Path) -> dict[str, Any]:
    """The values that `State.write` put there. Raises OSError, or ValueError in one sentence."""
    try:
        document = json.loads(read_text(folder / STATE_FILE))
        if document["version"] != VERSION:
            raise ValueError(f"{STATE_FILE} is not of version {VERSION}")
        values: dict[str, Any] = dict(document["json"])
        torch_names = set(document["torch"])
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{STATE_FILE} is not what was written there: {error}") from error
    with TensorFile.open(folder / TENSORS_FILE) as file:
        for name, info in file.tensors.items():
            array = file.read(name).reshape(info.shape)
            values[name] = _tensor_of(array, info.dtype) if name in torch_names else array
    return values


def _check(name: Any, value: Any) -> None:
    if not isinstance(name, str) or not name.isprintable() or name.startswith(RESERVED):
        raise _unfit(name, f"a name is printable text that does not begin with {RESERVED}")
    if isinstance(value, np.ndarray):
        try:
            dtype_name(value)
        except TensorFileError as error:
            raise _unfit(name, f"an array of {value.dtype} cannot be kept") from error
    elif _is_tensor(value):
        dtype = str(value.dtype).removeprefix("torch.")
        if dtype not in _TORCH_DTYPES or value.is_sparse or hasattr(value, "full_tensor"):
            raise _unfit(name, f"a tensor of {dtype} ({type(value).__name__}) cannot be kept")
    elif odd := next(_beyond_json(value), None):
        raise _unfit(
            name,
            f"{odd}, which JSON does not hold; give each array or tensor a name of its own in "
            "rnd.state, and turn keys into text and tuples into lists"
            if isinstance(value, dict | list)
            else f"{odd}, which cannot be kept as it is; use numpy arrays, torch tensors, or what "
            "JSON holds (None, bools, numbers, text, lists, and mappings with text as keys)",
        )


def _unfit(name: Any, why: str) -> ContractError:
    return ContractError("BadState", f"rnd.state[{name!r}]: {why}")


def _beyond_json(value: Any, where: str = "") -> Iterator[str]:
    """What would not come back from JSON as what it was (a tuple would not), and where it is."""
    if isinstance(value, list):
        for index, one in enumerate(value):
            yield from _beyond_json(one, f"{where}[{index}]")
    elif isinstance(value, dict):
        for key, one in value.items():
            if not isinstance(key, str):
                yield f"{where or 'it'} has a key that is a {type(key).__name__}"
            yield from _beyond_json(one, f"{where}[{key!r}]")
    elif not (value is None or isinstance(value, bool | int | float | str)):
        yield f"{where or 'it'} is a {type(value).__name__}"


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")  # nobody has a tensor who has not loaded it
    return torch is not None and isinstance(value, torch.Tensor)


def _array_of(tensor: Any) -> Any:
    import torch

    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(np.uint16)
    return tensor.numpy()


def _tensor_of(array: Any, dtype: str) -> Any:
    import torch

    if dtype == "BF16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
