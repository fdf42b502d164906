"""A torch module as named tensors: what its names are, what is tied; `sharding` moves its tiles.

Names are those of the plain module: the wrappers' own parts (`module.` of DDP, `_orig_mod.` of
torch.compile, those of FSDP and activation checkpointing) are left out, so that a wrapped and an
unwrapped model are one model. Dtype and device of the module are kept; one tile at a time is on the
host.
"""

import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedtrain.collective import Alone, Ranks
from fedtrain.errors import ContractError
from fedtrain.schema import Schema, TensorSpec
from fedtrain.sharding import held, is_sharded, local_of, placed, sum_over
from fedtrain.stephook import TensorCorrection
from fedtrain.weights import Array, Tiles, Weights, tile_starts

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

    def __init__(self, module: nn.Module, ranks: Ranks | None = None) -> None:
        """ranks: as the session has them; needed where the module is sharded."""
        if any(type(part).__name__ == "FullyShardedDataParallel" for part in module.modules()):
            raise _unsupported(
                "",
                "is wrapped in FullyShardedDataParallel (FSDP1), whose flat parameters have no "
                "rows; use torch.distributed.fsdp.fully_shard (FSDP2)",
            )
        self._parts: list[Any] = [part for part in module.modules() if _is_fully_sharded(part)]
        self._reshard()
        self._tensors: dict[str, Tensor] = {}
        kinds: dict[str, bool] = {}
        for name, tensor, is_parameter in self._named(module):
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
        self.sharded = any(is_sharded(tensor) for tensor in self._tensors.values())
        together = ranks if self.sharded and ranks is not None else Alone()
        self._held = {owner: held(self._tensors[owner], together) for owner in tied}

    def names(self) -> Mapping[str, str]:
        return self._names

    def _named(self, module: nn.Module) -> Iterator[tuple[str, Tensor, bool]]:
        """What is exchanged: (published name, tensor, whether it is a parameter)."""
        return named_tensors(module)

    @torch.no_grad()
    def fill(self, name: str, tiles: Tiles) -> None:
        self._reshard()
        self._held[name].fill(tiles)

    def values(self, name: str) -> Iterator[tuple[int, Array]]:
        return self._held[name].values()

    def own(self, name: str) -> tuple[str, Iterator[tuple[int, Array]]]:
        flat = self._tensors[name].detach().reshape(-1)
        dtype = {**_DTYPES, **_FLOATING}.get(flat.dtype)
        if dtype is None:
            raise _unsupported(name, f"is {flat.dtype}, which cannot stay at home as it is")
        return dtype, ((start, _bits(flat[start:stop])) for start, stop in tile_starts(len(flat)))

    def deltas(self, name: str, base: Tiles, unit: int = 1) -> Iterator[tuple[int, Array]]:
        return self._held[name].deltas(base, unit)

    def proximal(
        self, mu: float, names: Collection[str] | None = None, around: Weights | None = None
    ) -> "TensorProximal":
        wanted = [
            (spec.name, tensor)
            for spec in self.schema.tensors
            if (tensor := self._tensors[spec.name]).requires_grad
            and (names is None or spec.name in names)
        ]
        parameters = [tensor for _, tensor in wanted]
        if around is None or not mu:
            return TensorProximal(parameters, mu)
        begin = [self._filled(name, around.values(name)) for name, _ in wanted]
        return TensorProximal(parameters, mu, begin)

    def _reshard(self) -> None:
        """Have FSDP2 forget what it gathered: after an evaluation the root still has its own
        parameters whole, and would go on with them, whatever is loaded into the shards."""
        for part in self._parts:
            part.reshard()

    def correction(
        self, strategy: str, proximal: "TensorProximal", drift: Iterable[tuple[str, Tiles]]
    ) -> TensorCorrection:
        parameters = [tensor for tensor in self._tensors.values() if tensor.requires_grad]
        return TensorCorrection(strategy, parameters, proximal, self._drift(drift))

    def _drift(self, drift: Iterable[tuple[str, Tiles]]) -> list[tuple[Tensor, Tensor]]:
        """(parameter, the drift on its device, in its dtype, sharded as it is)."""
        return [(self._tensors[name], self._filled(name, tiles)) for name, tiles in drift]

    @torch.no_grad()
    def _filled(self, name: str, tiles: Tiles) -> Tensor:
        """Another tensor like it, with these values: by filling this one for a moment."""
        tensor = self._tensors[name].detach()
        kept = tensor.clone()
        self.fill(name, tiles)
        other = tensor.clone()
        tensor.copy_(kept)
        return other


class TensorProximal:
    """FedProx's term for a module: over those parameters that were trainable when the round began.

    The copies follow their parameters to another device, and lie on the ranks as they do. Of a
    sharded module `term` is collective: every rank has the whole value, and the gradient of its own
    rows. begin: w_t of each parameter, if it is not what they are now. elsewhere: the optimizer's
    step adds the gradient, see `fedtrain.stephook`, and the term is zero.
    """

    def __init__(
        self, parameters: Iterable[Tensor], mu: float, begin: Iterable[Tensor] | None = None
    ) -> None:
        self.asked = False
        self.elsewhere = False
        self.mu = mu
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        if begin is None:
            begin = (parameter.detach().clone() for parameter in self._parameters)
        self._begin = list(begin) if mu else []

    def term(self) -> Tensor:
        self.asked = True
        device = self._parameters[0].device if self._parameters else None
        total: Tensor = torch.zeros((), device=device)
        sums: dict[Any, Tensor] = {}
        for parameter, begin in () if self.elsewhere else self._pairs():
            wide = torch.promote_types(parameter.dtype, torch.float32)
            way = (local_of(parameter) - local_of(begin)).to(wide).square().sum()
            if is_sharded(parameter):
                place = placed(parameter)
                sums[place] = sums[place] + way if place in sums else way
            else:
                total = total + way.to(device)
        for place, way in sums.items():
            total = total + sum_over(place, way).to(device)
        return total * (self.mu / 2)

    def pulls(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(parameter, μ (w − w_t)) of each; nothing if μ is zero."""
        for parameter, begin in self._pairs():
            yield parameter, (parameter.detach() - begin) * self.mu

    def _pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        for index, parameter in enumerate(self._parameters[: len(self._begin)]):
            if self._begin[index].device != parameter.device:
                self._begin[index] = self._begin[index].to(parameter.device)
            yield parameter, self._begin[index]

    def gradients(self) -> dict[str, Any]:
        sentence = "rnd.gradient_terms() is for arrays; pass a torch optimizer to rounds(...)"
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


def _is_fully_sharded(part: nn.Module) -> bool:
    fsdp = sys.modules.get("torch.distributed.fsdp")
    return fsdp is not None and isinstance(part, fsdp.FSDPModule)


def _is_parallel(part: nn.Module) -> bool:
    """DDP and DataParallel keep the user's module as `.module`; a user may use that name, too."""
    parallel = (nn.parallel.DistributedDataParallel, nn.DataParallel)
    return isinstance(part, parallel)


def _place(tensor: Tensor) -> tuple[object, ...]:
    """Equal for tied tensors: the same elements of the same memory.

    A DTensor's memory says nothing where a rank has no row of it, and all ranks must agree.
    """
    if tensor.numel() == 0 or is_sharded(tensor):
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
    if is_sharded(tensor) and any(one.is_partial() for one in tensor.placements):
        raise _unsupported(name, "is a DTensor of partial sums; give it another placement")
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
