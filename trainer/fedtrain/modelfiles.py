"""The files of a model: one safetensors file, or shards with an index as Hugging Face has them.

    model-00001-of-00002.safetensors, model-00002-of-00002.safetensors, and
    model.safetensors.index.json: {"metadata": {"total_size": n}, "weight_map": {tensor: file}}

An index is trusted no more than a header is: it names plain files beside it, and it and their
headers have to agree on every tensor. Format: transformers' documentation, "Sharded checkpoints".
"""

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import numpy as np

from fedtrain.contract import MODEL_FILE, MODEL_INDEX_FILE
from fedtrain.layout import TensorFileError, TensorInfo
from fedtrain.tensorfile import TensorFile, read_text

Array = np.ndarray[Any, Any]

SUFFIX = ".safetensors"
INDEX_SUFFIX = ".index.json"
INDEX_LIMIT = 64 * 1024 * 1024
"""Bytes of an index: half a million tensors with long names."""

MOST_SHARDS = 512
"""Files of one model, all open at once; the largest checkpoints have some two hundred."""


class ModelFiles:
    """A model opened for reading, in one file or many; use it as a context manager.

    tensors: sorted by name; `begin` and `end` count within the tensor's own file. size: bytes of
    all files. metadata: of the first file.
    """

    def __init__(self, files: Iterable[TensorFile]) -> None:
        self._files = tuple(files)
        self._file_of = {name: file for file in self._files for name in file.tensors}
        self.size = sum(file.size for file in self._files)
        self.metadata: Mapping[str, str] = self._files[0].metadata
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(
            {name: self._file_of[name].tensors[name] for name in sorted(self._file_of)}
        )

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """Elements [start, stop) of the flattened tensor; BF16 as uint16."""
        return self._file_of[name].read(name, start, stop)

    def read_into(self, name: str, start: int, out: Array) -> None:
        """Fill the contiguous `out` with the flattened tensor's elements from `start` on."""
        self._file_of[name].read_into(name, start, out)

    def close(self) -> None:
        for file in self._files:
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_model(path: str | os.PathLike[str], *, links: bool = False) -> ModelFiles:
    """The model at `path`: a folder that holds model.safetensors or an index, or either of these.

    Where a folder holds both, the single file is the model, as for Hugging Face. links: files may
    be symbolic links, as in a model hub's cache; the index's names are taken beside the link.
    Raises TensorFileError (FileMissing, IndexInvalid, IndexMismatch, or what is wrong with a file),
    OSError.
    """
    place = Path(path)
    if place.is_dir():
        whole = place / MODEL_FILE
        place = whole if os.path.lexists(whole) else place / MODEL_INDEX_FILE
        if not os.path.lexists(place):
            sentence = f"{MODEL_FILE} and {MODEL_INDEX_FILE} do not exist"
            raise TensorFileError("FileMissing", sentence)
    if not place.name.endswith(INDEX_SUFFIX):
        return ModelFiles([TensorFile.open(_followed(place, links))])
    weight_map = _weight_map(_followed(place, links))
    with ExitStack() as opened:
        files: dict[str, TensorFile] = {}
        for name in sorted(set(weight_map.values())):
            file = TensorFile.open(_followed(place.parent / name, links))
            files[name] = opened.enter_context(file)
        _agree(weight_map, files)
        opened.pop_all()
    return ModelFiles(files.values())


def shard_name(number: int, count: int, whole: str = MODEL_FILE) -> str:
    """Of shard `number` (from 0) of `count`; "model.safetensors" if there is only one.

    >>> shard_name(0, 3)
    'model-00001-of-00003.safetensors'
    """
    if count == 1:
        return whole
    return f"{whole.removesuffix(SUFFIX)}-{number + 1:05d}-of-{count:05d}{SUFFIX}"


def index_text(files: Mapping[str, Iterable[TensorInfo]]) -> str:
    """The index of a model in these files, each with the tensors that it holds."""
    weight_map: dict[str, str] = {}
    total = 0
    for file, tensors in files.items():
        for info in tensors:
            if weight_map.setdefault(info.name, file) != file:
                raise ValueError(f"{info.name!r} lies in {weight_map[info.name]} and in {file}")
            total += info.nbytes
    document = {"metadata": {"total_size": total}, "weight_map": weight_map}
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def _followed(path: Path, links: bool) -> Path:
    return Path(os.path.realpath(path)) if links else path


def _weight_map(path: Path) -> dict[str, str]:
    """tensor → file of an index. Raises TensorFileError."""
    try:
        document = json.loads(read_text(path, INDEX_LIMIT), object_pairs_hook=_once)
    except TensorFileError:
        raise
    except (ValueError, RecursionError) as error:
        raise TensorFileError("IndexInvalid", f"{path.name} is not JSON: {error}") from None
    weight_map = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise TensorFileError("IndexInvalid", f"{path.name} has no weight_map")
    for name, file in weight_map.items():
        if not isinstance(file, str) or not _is_plain(file):
            shown = ascii(file)[:80]
            sentence = f"{path.name} puts {name[:80]!a} into {shown}, not a file beside it"
            raise TensorFileError("IndexInvalid", sentence)
    count = len(set(weight_map.values()))
    if count > MOST_SHARDS:
        sentence = f"{path.name} names {count} files, more than {MOST_SHARDS}"
        raise TensorFileError("IndexInvalid", sentence)
    return weight_map


def _is_plain(name: str) -> bool:
    return (
        name.endswith(SUFFIX)
        and name.isprintable()
        and len(os.fsencode(name)) <= 255
        and not set(name) & {"/", "\\"}
    )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise TensorFileError("DuplicateName", "the index names something twice")
    return document


def _agree(weight_map: Mapping[str, str], files: Mapping[str, TensorFile]) -> None:
    """Raises TensorFileError unless each file holds the tensors that the index says, no others."""
    for name, file in weight_map.items():
        if name not in files[file].tensors:
            sentence = f"{file} does not hold {name[:80]!a}, which the index puts there"
            raise TensorFileError("IndexMismatch", sentence)
    for file, opened in files.items():
        for name in opened.tensors:
            if weight_map.get(name) != file:
                sentence = f"{file} holds {name[:80]!a}, which the index does not put there"
                raise TensorFileError("IndexMismatch", sentence)
