"""A torch module as named tensors: what its names are, what is tied, and how tiles get in and out.

Names are those of the plain module: the wrappers' own parts (`module.` of DDP, `_orig_mod.` of
torch.compile, those of FSDP and activation checkpointing) are left out, so that a wrapped and an
unwrapped model are one model. Dtype and device of the module are kept; one tile at a time is on the
host.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedtrain.errors import ContractError
from fedtrain.schema import Schema, TensorSpec
from fedtrain.weights import Array, Tiles, tile_starts

_WRAPPER_NAMES = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_DTYPES: Mapping[torch.dtype, str] = {
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_FLOATING: Mapping[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
}


class ModuleWeights:
    """The parameters and persistent buffers of a module, by their published names."""

    def __init__(self, module: nn.Module) -> None:
        if any(type(part).__name__ == "FullyShardedDataParallel" for part in module.modules()):
            raise _unsupported("", "is wrapped in FSDP; pass the module before it is wrapped")
        self._tensors: dict[str, Tensor] = {}
        kinds: dict[str, bool] = {}
        for name, tensor, is_parameter in named_tensors(module):
            if name in self._tensors:
                raise _unsupported(name, "comes twice once the wrappers' names are left out")
            _check(name, tensor)
            self._tensors[name], kinds[name] = tensor, is_parameter
        self._names: dict[str, str] = {}
        tied: dict[str, list[str]] = {}
        first: dict[tuple[object, ...], str] = {}
        for name, tensor in self._tensors.items():
            owner = first.setdefault(_place(tensor), name)
            self._names[name] = owner
            tied.setdefault(owner, []).append(name)
        self.schema = Schema.of(
            _spec(names, self._tensors[owner], kinds[owner]) for owner, names in tied.items()
        )

    def names(self) -> Mapping[str, str]:
        return self._names

    @torch.no_grad()
    def fill(self, name: str, tiles: Tiles) -> None:
        tensor = self._tensors[name].detach()
        # A view where there is one; a channels_last weight is filled by way of a copy.
        flat = tensor.view(-1) if tensor.is_contiguous() else torch.empty_like(tensor).reshape(-1)
        for start, tile in tiles:
            flat[start : start + tile.size].copy_(torch.from_numpy(tile))
        if not tensor.is_contiguous():
            tensor.copy_(flat.view(tensor.shape))

    def values(self, name: str) -> Iterator[tuple[int, Array]]:
        flat = self._flat(name)
        floating = flat.is_floating_point()
        for start, stop in tile_starts(flat.numel()):
            tile = flat[start:stop]
            yield start, _numpy(tile.to(torch.float32) if floating else tile)

    def own(self, name: str) -> tuple[str, Iterator[tuple[int, Array]]]:
        flat = self._flat(name)
        dtype = {**_DTYPES, **_FLOATING}.get(flat.dtype)
        if dtype is None:
            raise _unsupported(name, f"is {flat.dtype}, which cannot stay at home as it is")
        return dtype, ((start, _bits(flat[start:stop])) for start, stop in tile_starts(len(flat)))

    def deltas(self, name: str, base: Tiles) -> Iterator[tuple[int, Array]]:
        flat = self._flat(name)
        wide = torch.promote_types(flat.dtype, torch.float32)
        for start, tile in base:
            local = flat[start : start + tile.size]
            loaded = torch.from_numpy(tile).to(flat.device).to(flat.dtype)
            yield start, _numpy((local.to(wide) - loaded.to(wide)).to(torch.float32))

    def proximal(self, mu: float, names: Collection[str] | None = None) -> "TensorProximal":
        wanted = [s.name for s in self.schema.tensors if names is None or s.name in names]
        return TensorProximal([self._tensors[name] for name in wanted], mu)

    def _flat(self, name: str) -> Tensor:
        return self._tensors[name].detach().reshape(-1)


class TensorProximal:
    """FedProx's term for a module: over those parameters that were trainable when the round began.

    The copies follow their parameters to another device.
    """

    def __init__(self, parameters: Iterable[Tensor], mu: float) -> None:
        self.asked = False
        self._mu = mu
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._begin = [parameter.detach().clone() for parameter in self._parameters] if mu else []

    def term(self) -> Tensor:
        self.asked = True
        device = self._parameters[0].device if self._parameters else None
        total: Tensor = torch.zeros((), device=device)
        for index, begin in enumerate(self._begin):
            parameter = self._parameters[index]
            if begin.device != parameter.device:
                begin = self._begin[index] = begin.to(parameter.device)
            wide = torch.promote_types(parameter.dtype, torch.float32)
            total = total + (parameter - begin).to(wide).square().sum().to(device)
        return total * (self._mu / 2)

    def gradients(self) -> dict[str, Any]:
        sentence = "rnd.proximal_gradients() is for arrays; use rnd.proximal_term() for torch"
        raise ContractError("ModelUnsupported", sentence)


def named_tensors(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, Tensor, bool]]:
    """(published name, tensor, whether it is a parameter), in the module's own order.

    The parameters and persistent buffers of `state_dict`, without its hooks and extra states.
    """
    for name, parameter in module._parameters.items():
        if parameter is not None:
            yield prefix + name, parameter, True
    for name, buffer in module._buffers.items():
        if buffer is not None and name not in module._non_persistent_buffers_set:
            yield prefix + name, buffer, False
    for name, child in module._modules.items():
        if child is not None:
            wraps = name in _WRAPPER_NAMES or (name == "module" and _is_parallel(module))
            yield from named_tensors(child, prefix if wraps else f"{prefix}{name}.")


def _is_parallel(part: nn.Module) -> bool:
    """DDP and DataParallel keep the user's module as `.module`; a user may use that name, too."""
    parallel = (nn.parallel.DistributedDataParallel, nn.DataParallel)
    return isinstance(part, parallel)


def _place(tensor: Tensor) -> tuple[object, ...]:
    """Equal for tied tensors: the same elements of the same memory."""
    if tensor.numel() == 0:
        return (id(tensor),)
    return (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())


def _spec(names: list[str], tensor: Tensor, is_parameter: bool) -> TensorSpec:
    floating = tensor.is_floating_point()
    return TensorSpec(
        name=names[0],
        dtype="F32" if floating else _DTYPES[tensor.dtype],
        shape=tuple(tensor.shape),
        kind=("parameter" if is_parameter else "buffer") if floating else "integer",
        aliases=tuple(names[1:]),
    )


def _check(name: str, tensor: Any) -> None:
    if nn.parameter.is_lazy(tensor):
        raise _unsupported(name, "is lazy: run one forward pass before rounds(...)")
    if tensor.device.type == "meta":
        raise _unsupported(name, "is on the meta device: materialise it before rounds(...)")
    if hasattr(tensor, "full_tensor"):
        raise _unsupported(name, "is sharded (DTensor); pass the module before it is sharded")
    if tensor.layout != torch.strided or not (
        tensor.is_floating_point() or tensor.dtype in _DTYPES
    ):
        raise _unsupported(name, f"is {tensor.dtype}, {tensor.layout}")


def _unsupported(name: str, why: str) -> ContractError:
    subject = f"tensor {name!r}" if name else "the model"
    return ContractError("ModelUnsupported", f"rounds(model): {subject} {why}")


def _bits(tensor: Tensor) -> Array:
    if tensor.dtype == torch.bfloat16:
        return _numpy(tensor.view(torch.int16)).view(np.uint16)
    return _numpy(tensor)


def _numpy(tensor: Tensor) -> Array:
    array: Array = tensor.cpu().numpy()
    return array
