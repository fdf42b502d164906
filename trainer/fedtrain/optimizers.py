"""The state of a torch optimizer as named tensors, however its parameters are sharded.

Names are those of the model's parameters, so that a state finds its parameter again under another
wrapper and with another number of ranks. A state is rebuilt from what was saved: nothing steps the
optimizer to learn what its state looks like, which would run the script's hooks.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fedtrain.checkpoint import named_tensors
from fedtrain.snapshot import SnapshotError


class NamedOptimizer:
    """One optimizer of a module. part: begins the names of its tensors."""

    def __init__(self, part: str, optimizer: torch.optim.Optimizer, module: nn.Module) -> None:
        self._part = part
        self._optimizer = optimizer
        self._module = module

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of its state by name; they are the state's own."""
        return {
            self._key(name, slot): value.detach()
            for name, parameter in self._parameters()
            for slot, value in self._optimizer.state.get(parameter, {}).items()
            if isinstance(value, Tensor)
        }

    def rest(self) -> dict[str, Any]:
        """What is no tensor, hyperparameters included, and how each tensor lies; for `pickle`."""
        lies, others = {}, {}
        for name, parameter in self._parameters():
            for slot, value in self._optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    with_parameter = value.device == parameter.device
                    lies[name, slot] = with_parameter, getattr(value, "placements", None)
                else:
                    others[name, slot] = value
        names = tuple(name for name, _ in self._parameters())
        groups = hyperparameters(self._optimizer)
        return {"names": names, "lies": lies, "others": others, "groups": groups}

    def empty(self, rest: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Tensor]:
        """Tensors to be filled, for the `rest` of a snapshot; known: shapes and dtypes.

        Raises SnapshotError if the optimizer is for other parameters than the saved one was.
        """
        parameters = dict(self._parameters())
        if set(parameters) != set(rest["names"]):
            raise SnapshotError(f"{self._part} has other parameters than the saved one")
        tensors = {}
        for (name, slot), (with_parameter, placements) in rest["lies"].items():
            key, parameter = self._key(name, slot), parameters[name]
            if key not in known:
                raise SnapshotError(f"it has no {key!r}")
            shape, dtype = known[key]
            device = parameter.device if with_parameter else torch.device("cpu")
            tensors[key] = _empty(parameter, shape, dtype, device, placements)
        return tensors

    def assign(
        self, rest: Mapping[str, Any], tensors: Mapping[str, Tensor], *, groups: bool
    ) -> None:
        """Make the tensors that were filled, and all else, the optimizer's state.

        groups: the hyperparameters too. Raises SnapshotError if there are other groups now.
        """
        parameters = dict(self._parameters())
        self._optimizer.state.clear()
        for name, slot in rest["lies"]:
            state = self._optimizer.state.setdefault(parameters[name], {})
            state[slot] = tensors[self._key(name, slot)]
        for (name, slot), value in rest["others"].items():
            self._optimizer.state.setdefault(parameters[name], {})[slot] = value
        if groups:
            if len(rest["groups"]) != len(self._optimizer.param_groups):
                raise SnapshotError(f"{self._part} has other groups of parameters")
            set_hyperparameters(self._optimizer, rest["groups"])

    def _key(self, name: str, slot: Any) -> str:
        return f"{self._part}/{name}/{slot}"

    def _parameters(self) -> Iterator[tuple[str, Tensor]]:
        """(name, parameter); by their places those that are not the model's."""
        names = {id(t): name for name, t, _ in reversed(list(named_tensors(self._module)))}
        for number, group in enumerate(self._optimizer.param_groups):
            for index, parameter in enumerate(group["params"]):
                yield names.get(id(parameter), f"#{number}.{index}"), parameter


def hyperparameters(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """What the param groups say beside their parameters (lr ...), as copies."""
    return [
        {
            name: value.detach().cpu().clone() if isinstance(value, Tensor) else value
            for name, value in group.items()
            if name != "params"
        }
        for group in optimizer.param_groups
    ]


def set_hyperparameters(optimizer: torch.optim.Optimizer, groups: list[dict[str, Any]]) -> None:
    """Undo or redo what became of them; a tensor keeps its place, which a graph may refer to."""
    for group, wanted in zip(optimizer.param_groups, groups, strict=True):
        for name in group.keys() - wanted.keys() - {"params"}:
            del group[name]
        for name, value in wanted.items():
            if isinstance(value, Tensor) and isinstance(group.get(name), Tensor):
                group[name].copy_(value)
            else:
                group[name] = value


def model_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers under their published names, one name for a tied one."""
    seen: set[int] = set()
    tensors = {}
    for name, tensor, _ in named_tensors(module):
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[f"model/{name}"] = tensor.detach()
    return tensors


def _empty(
    parameter: Tensor, shape: tuple[int, ...], dtype: torch.dtype, device: Any, placements: Any
) -> Tensor:
    """To be filled with a state's tensor, sharded as its parameter is now."""
    mesh = getattr(parameter, "device_mesh", None)
    if mesh is None or placements is None:
        return torch.empty(shape, dtype=dtype, device=device)
    from torch.distributed import tensor as sharded

    if shape == tuple(parameter.shape):
        placements = parameter.placements  # type: ignore[attr-defined]
    elif len(placements) != mesh.ndim:
        sentence = f"a state of shape {list(shape)} cannot be sharded over {mesh.ndim} dimensions"
        raise SnapshotError(sentence)
    return sharded.zeros(*shape, dtype=dtype, device_mesh=mesh, placements=placements)
