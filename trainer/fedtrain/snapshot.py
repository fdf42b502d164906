"""A snapshot: what the ranks of one participant remember together, as a folder that appears whole.

    snapshot.json                  what it is about, how many ranks, size and sha256 of each file
    rank-<r>.pickle                what each rank keeps for itself
    __<r>_0.distcp, .metadata      tensors, each rank's own shards (torch.distributed.checkpoint)

It lies on the participant's own scratch and nowhere else: pickle runs what it is given, and what
another party wrote is never read with it. All functions are collective: they end the same way on
all ranks. Without tensors, torch is not loaded.
"""

import hashlib
import json
import pickle
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from fedtrain import publication
from fedtrain.collective import Ranks
from fedtrain.errors import ContractError, FedtrainError
from fedtrain.tensorfile import PIECE_BYTES, read_text

SNAPSHOT_FILE = "snapshot.json"
VERSION = 1
T = TypeVar("T")


class SnapshotError(Exception):
    """It cannot be written, or is not used as it is: one sentence, the same on all ranks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One that is whole. about: what was said of it when it was written. world: ranks that did."""

    folder: Path
    about: Mapping[str, Any]
    world: int

    def own(self, ranks: Ranks) -> Any:
        """What this rank kept; rank 0's where the number of ranks is another one now."""
        rank = ranks.rank if ranks.world == self.world else 0
        return on_every_rank(ranks, lambda: _unpickled(self.folder / f"rank-{rank}.pickle"))[
            ranks.rank
        ]

    def tensors(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shape and dtype of each tensor by name."""
        from torch.distributed.checkpoint.filesystem import FileSystemReader
        from torch.distributed.checkpoint.metadata import TensorStorageMetadata

        if not (self.folder / ".metadata").exists():
            return {}
        found = FileSystemReader(self.folder).read_metadata().state_dict_metadata
        return {
            name: (tuple(entry.size), entry.properties.dtype)
            for name, entry in found.items()
            if isinstance(entry, TensorStorageMetadata)
        }

    def load(self, tensors: dict[str, Any], ranks: Ranks) -> None:
        """Fill the tensors in place, each rank its own shards, however they were sharded before.

        Raises SnapshotError, before anything is filled if a name or a shape is not there.
        """
        if not tensors:
            return
        from torch.distributed.checkpoint.filesystem import FileSystemReader
        from torch.distributed.checkpoint.state_dict_loader import load

        known = self.tensors()
        for name, tensor in tensors.items():
            if name not in known or known[name][0] != tuple(tensor.shape):
                raise SnapshotError(f"it has no {name!r} of shape {list(tensor.shape)}")
        reader = FileSystemReader(self.folder)
        _checkpoint(lambda **how: load(tensors, storage_reader=reader, **how), ranks)


def write(
    folder: Path, ranks: Ranks, *, tensors: dict[str, Any], own: Any, about: Mapping[str, Any]
) -> None:
    """Write a snapshot durably; one that lies there already is replaced.

    tensors: by name, plain ones being the same on all ranks (rank 0's is what is written). own:
    anything that can be pickled. Raises SnapshotError (no room, say), ContractError (`own`).
    """
    new = publication.Publication(folder, SNAPSHOT_FILE, label=f"{folder.name}-")
    path = folder.parent / ranks.tell(new.path.name)
    try:
        _on_rank_0(ranks, lambda: publication.make_folder(path))
        on_every_rank(ranks, lambda: _pickle(path / f"rank-{ranks.rank}.pickle", own))
        if tensors:
            _save(path, tensors, ranks)
        files: dict[str, Any] = {}
        for mine in on_every_rank(ranks, lambda: _hashes(path, ranks.rank)):
            files |= mine
        document = {"version": VERSION, "world": ranks.world, "about": about, "files": files}

        def commit() -> None:
            publication.remove(folder)
            new.commit(json.dumps(document, indent=1, sort_keys=True) + "\n")

        _on_rank_0(ranks, commit)
    finally:
        if ranks.rank == 0:
            shutil.rmtree(path, ignore_errors=True)


def read(folder: Path, ranks: Ranks) -> Snapshot:
    """The snapshot there, with every byte of it verified. Raises SnapshotError."""

    def document() -> Any:
        said = json.loads(read_text(folder / SNAPSHOT_FILE))
        if said["version"] != VERSION or said["world"] < 1 or not isinstance(said["about"], dict):
            raise ValueError(f"{SNAPSHOT_FILE} is of another version")
        return said

    said = _on_rank_0(ranks, document)
    files = sorted(said["files"].items())[ranks.rank :: ranks.world]

    def verify() -> None:
        for name, wanted in files:
            if _hash(folder / name) != wanted:
                raise ValueError(f"{name} is not what was written there")

    on_every_rank(ranks, verify)
    return Snapshot(folder=folder, about=said["about"], world=said["world"])


def on_every_rank(ranks: Ranks, act: Callable[[], T]) -> list[T]:
    """What each rank's own came to; if one fails, all raise its error."""
    failed: Exception | None = None
    result: Any = None
    try:
        result = act()
    except (FedtrainError, SnapshotError) as error:
        failed = error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        failed = SnapshotError(f"{type(error).__name__}: {error}")
    told = ranks.gather((failed, result))
    for theirs, _ in told:
        if theirs is not None:
            raise theirs
    return [result for _, result in told]


def _on_rank_0(ranks: Ranks, act: Callable[[], T]) -> T:
    return cast(T, on_every_rank(ranks, lambda: act() if ranks.rank == 0 else None)[0])


def _pickle(path: Path, own: Any) -> None:
    if not path.parent.is_dir():
        raise SnapshotError(
            "the nodes of this participant have no scratch in common: give it a claim that is "
            "ReadWriteMany"
        )
    with open(path, "xb") as file:
        try:
            pickle.dump(own, file, protocol=pickle.HIGHEST_PROTOCOL)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            sentence = f"the state_dict() of something cannot be pickled: {error}"
            raise ContractError("ResumeUnsupported", sentence) from error
        file.flush()
        publication.sync(file)


def _unpickled(path: Path) -> Any:
    with open(path, "rb") as file:
        try:
            return pickle.load(file)  # noqa: S301 - of our own writing, its hash was compared
        except (pickle.UnpicklingError, EOFError, ImportError, IndexError) as error:
            raise SnapshotError(f"{path.name}: {error}") from error


def _save(path: Path, tensors: dict[str, Any], ranks: Ranks) -> None:
    from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    # Rank 0's of what all ranks have: DDP spreads its buffers, and so they would be in the end.
    planner = DefaultSavePlanner(dedup_save_to_lowest_rank=True)
    writer = FileSystemWriter(path)
    _checkpoint(lambda **how: save(tensors, storage_writer=writer, planner=planner, **how), ranks)


def _checkpoint(act: Callable[..., Any], ranks: Ranks) -> None:
    """Run torch's own collective over our group. Raises SnapshotError on all ranks."""
    from torch.distributed.checkpoint.api import CheckpointException

    group = getattr(ranks, "group", None)
    try:
        with warnings.catch_warnings():
            # "assuming the intent is to save in a single process": it is.
            warnings.filterwarnings("ignore", message=".*single process.*")
            act(process_group=group, no_dist=group is None)
    except CheckpointException as error:
        rank, (failure, _) = next(iter(error.failures.items()))
        raise SnapshotError(f"rank {rank}: {type(failure).__name__}: {failure}") from error


def _hashes(path: Path, rank: int) -> dict[str, Any]:
    """Of the files that this rank has written."""
    names = [f"rank-{rank}.pickle", *(file.name for file in path.glob(f"__{rank}_*"))]
    if rank == 0 and (path / ".metadata").exists():
        names.append(".metadata")
    return {name: _hash(path / name) for name in names}


def _hash(path: Path) -> list[Any]:
    """[bytes, sha256]"""
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
            size += len(piece)
    return [size, digest.hexdigest()]
