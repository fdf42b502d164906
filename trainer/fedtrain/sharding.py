"""How one tensor of a torch module lies on the ranks, and which elements each of them publishes.

A tensor that is no DTensor is rank 0's to publish. Of a DTensor whose rows are cut (`Shard(0)`,
also with replicas, as HSDP has them) every rank reads and writes the rows that it holds: no tensor
is ever whole anywhere, and pieces of 1 MiB are on the host. Any other placement is met one tensor
at a time: loading has one whole tensor on the host, publishing gathers one on the device, and each
rank then writes an equal part of it.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fedtrain.collective import Ranks
from fedtrain.weights import Array, Tiles, tile_starts, within


class Held(Protocol):
    """A tensor of the model, as `Weights` wants it, of which this rank may have a part."""

    def fill(self, tiles: Tiles) -> None: ...
    def values(self) -> Iterator[tuple[int, Array]]: ...
    def deltas(self, base: Tiles, unit: int) -> Iterator[tuple[int, Array]]: ...


class Whole:
    """A plain tensor, which every rank has; `publishes` is true of one of them."""

    def __init__(self, tensor: Tensor, publishes: bool) -> None:
        self._tensor = tensor
        self._publishes = publishes

    def fill(self, tiles: Tiles) -> None:
        _fill(self._tensor.detach(), 0, tiles)

    def values(self) -> Iterator[tuple[int, Array]]:
        flat = self._tensor.detach().reshape(-1)
        return _values(flat, 0, 0, flat.numel() if self._publishes else 0)

    def deltas(self, base: Tiles, unit: int) -> Iterator[tuple[int, Array]]:
        flat = self._tensor.detach().reshape(-1)
        return _deltas(flat, 0, 0, flat.numel() if self._publishes else 0, base)


class Rows:
    """A DTensor of which each rank holds consecutive rows."""

    def __init__(self, tensor: Any, ranks: Ranks) -> None:
        self._tensor = tensor
        self._gathered = Gathered(tensor, ranks)
        mesh, row = tensor.device_mesh, math.prod(tensor.shape[1:])
        here = mesh.get_coordinate()
        begin, end = _rows_at(tensor, here)
        assert (end - begin) * row == tensor.to_local().numel()
        everywhere = itertools.product(*(range(size) for size in mesh.shape))
        begins = {row * _rows_at(tensor, place)[0] for place in everywhere}
        self._begin = row * begin
        self._cuts = begins - {tensor.numel()}
        # Of those that hold the same rows, one publishes them.
        self._publishes = here is not None and all(
            place == 0 or one.is_shard() for place, one in zip(here, tensor.placements, strict=True)
        )

    def fill(self, tiles: Tiles) -> None:
        local = self._tensor.detach().to_local()
        _fill(local, self._begin, within(tiles, self._begin, self._begin + local.numel()))

    def values(self) -> Iterator[tuple[int, Array]]:
        flat, stop = self._part()
        return _values(flat, self._begin, self._begin, stop)

    def deltas(self, base: Tiles, unit: int) -> Iterator[tuple[int, Array]]:
        if any(cut % unit for cut in self._cuts):  # a block would lie on two ranks
            return self._gathered.deltas(base, unit)
        flat, stop = self._part()
        return _deltas(flat, self._begin, self._begin, stop, base)

    def _part(self) -> tuple[Tensor, int]:
        flat = self._tensor.detach().to_local().reshape(-1)
        return flat, self._begin + (flat.numel() if self._publishes else 0)


class Gathered:
    """A DTensor of any placement: whole for a moment on every rank of its mesh."""

    def __init__(self, tensor: Any, ranks: Ranks) -> None:
        self._tensor = tensor
        self._ranks = ranks

    def fill(self, tiles: Tiles) -> None:
        tensor = self._tensor.detach()
        if tensor.device_mesh.get_coordinate() is None:
            return
        # numpy's memory: of torch's, which is aligned, the heap uses no block a second time.
        room = np.empty(tensor.numel() * tensor.element_size(), np.uint8)
        whole = torch.from_numpy(room).view(tensor.dtype).view(tensor.shape)
        _fill(whole, 0, tiles)
        tensor.to_local().copy_(_cut(whole, tensor))

    def values(self) -> Iterator[tuple[int, Array]]:
        flat, start, stop = self._part(1)
        yield from _values(flat, 0, start, stop)

    def deltas(self, base: Tiles, unit: int) -> Iterator[tuple[int, Array]]:
        flat, start, stop = self._part(unit)
        yield from _deltas(flat, 0, start, stop, base)

    def _part(self, unit: int) -> tuple[Tensor, int, int]:
        """The whole tensor, flattened, and which elements of it are this rank's to publish."""
        self._ranks.gather(None)  # whoever has failed does not come to the next collective
        tensor = self._tensor.detach()
        coordinate = tensor.device_mesh.get_coordinate()
        if coordinate is None:
            return tensor.to_local().reshape(-1), 0, 0
        flat = tensor.full_tensor().reshape(-1)
        index = 0
        for place, size in zip(coordinate, tensor.device_mesh.shape, strict=True):
            index = index * size + place
        share = -(-flat.numel() // tensor.device_mesh.size())
        share += -share % unit
        start = min(index * share, flat.numel())
        return flat, start, min(start + share, flat.numel())


def held(tensor: Tensor, ranks: Ranks) -> Held:
    """The tensor with what its placements allow."""
    if not is_sharded(tensor):
        return Whole(tensor, ranks.rank == 0)
    return Rows(tensor, ranks) if _is_in_rows(tensor) else Gathered(tensor, ranks)


def is_sharded(tensor: Any) -> bool:
    """Whether it is a DTensor, also where torch.distributed was never loaded."""
    return hasattr(tensor, "full_tensor")


def _cut(whole: Tensor, like: Any) -> Tensor:
    """This rank's part of what every rank has, placed as `like` is; a view where it can be one."""
    from torch.distributed.tensor import DTensor, Replicate, Shard

    mesh, placements = like.device_mesh, like.placements
    if not all(one.is_replicate() or type(one) is Shard for one in placements):
        replicas = [Replicate()] * mesh.ndim
        spread = DTensor.from_local(
            whole.to(like.to_local().device), mesh, replicas, run_check=False
        )
        cut: Tensor = spread.redistribute(placements=placements).to_local()
        return cut
    for place, size, one in zip(mesh.get_coordinate(), mesh.shape, placements, strict=True):
        if one.is_shard():
            begin, end = _share(whole.shape[one.dim], size, place)
            whole = whole.narrow(one.dim, begin, end - begin)
    return whole


def _share(length: int, size: int, place: int) -> tuple[int, int]:
    """[begin, end) of the part at `place` of `size`, as torch.chunk cuts."""
    share = -(-length // size)
    return min(place * share, length), min((place + 1) * share, length)


def local_of(tensor: Any) -> Tensor:
    """This rank's part of a tensor, through which gradients flow."""
    local: Tensor = tensor.to_local() if is_sharded(tensor) else tensor
    return local


def placed(tensor: Any) -> tuple[Any, tuple[bool, ...]]:
    """A DTensor's mesh, and over which of its dimensions the tensor is cut."""
    return tensor.device_mesh, tuple(not one.is_replicate() for one in tensor.placements)


def sum_over(place: tuple[Any, tuple[bool, ...]], scalar: Tensor) -> Tensor:
    """The sum of the ranks' scalars over what is cut, with its gradient; one all-reduce.

    Made of local sums, since the gradient of a DTensor's own `sum` has a row where a rank has none.
    """
    from torch.distributed.tensor import DTensor, Partial, Replicate

    mesh, cut = place
    if mesh.get_coordinate() is None:
        return scalar
    kinds = [Partial() if one else Replicate() for one in cut]
    whole: Tensor = DTensor.from_local(scalar, mesh, kinds, run_check=False).full_tensor()
    return whole


def _is_in_rows(tensor: Any) -> bool:
    from torch.distributed.tensor import Shard

    return all(
        one.is_replicate() or (type(one) is Shard and one.dim == 0) for one in tensor.placements
    )


def _rows_at(tensor: Any, coordinate: Sequence[int] | None) -> tuple[int, int]:
    """[begin, end) of the rows there: cut as torch.chunk does, by each mesh dimension in turn."""
    if coordinate is None:  # a rank outside the mesh
        return 0, 0
    begin, end = 0, tensor.shape[0] if tensor.ndim else 1
    sizes = tensor.device_mesh.shape
    for place, size, one in zip(coordinate, sizes, tensor.placements, strict=True):
        if one.is_shard():
            first, last = _share(end - begin, size, place)
            begin, end = begin + first, begin + last
    return begin, end


def _fill(tensor: Tensor, offset: int, tiles: Tiles) -> None:
    """Overwrite a tensor, whose first element is element `offset` of the tiles."""
    # A view where there is one; a channels_last weight is filled by way of a copy.
    flat = tensor.view(-1) if tensor.is_contiguous() else torch.empty_like(tensor).reshape(-1)
    for start, tile in tiles:
        at = start - offset
        flat[at : at + tile.size].copy_(torch.from_numpy(tile))
    if not tensor.is_contiguous():
        tensor.copy_(flat.view(tensor.shape))


def _values(flat: Tensor, offset: int, start: int, stop: int) -> Iterator[tuple[int, Array]]:
    floating = flat.is_floating_point()
    for first, last in tile_starts(stop - start):
        tile = flat[start - offset + first : start - offset + last]
        yield start + first, _numpy(tile.to(torch.float32) if floating else tile)


def _deltas(
    flat: Tensor, offset: int, start: int, stop: int, base: Tiles
) -> Iterator[tuple[int, Array]]:
    wide = torch.promote_types(flat.dtype, torch.float32)
    for at, tile in within(base, start, stop) if start < stop else ():
        local = flat[at - offset : at - offset + tile.size]
        loaded = torch.from_numpy(tile).to(flat.device).to(flat.dtype)
        yield at, _numpy((local.to(wide) - loaded.to(wide)).to(torch.float32))


def _numpy(tensor: Tensor) -> Array:
    array: Array = tensor.cpu().numpy()
    return array
