"""The frozen base model that adapters stand on: one folder, the same for every participant.

`spec.model.base` mounts it read-only; its digest is the sha256 over one line per file, sorted by
name: the compact JSON list [path below the folder, sha256 of the file]. Hidden files and folders
are left out, symbolic links to files are followed (a model hub's cache is made of them). What was
hashed once is remembered in the participant's scratch by size, time and inode.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from fedtrain.contract import BASE_ENV, SCRATCH_ENV
from fedtrain.errors import ContractError, DataError

CACHE_FILE = "base-model.json"


def base_model(default: str | os.PathLike[str] | None = None) -> Path:
    """The folder of the frozen base model, to be read before `rounds`, which checks its digest.

    default: for a run without a federation, or without a `spec.model.base`. Raises ContractError
    (NoBaseModel) if there is neither.
    """
    folder = os.environ.get(BASE_ENV) or default
    if folder is None:
        sentence = "there is no base model: give spec.model.base, or base_model(PATH) a path"
        raise ContractError("NoBaseModel", sentence)
    return Path(folder)


def check(said: str | None, learned: str | None) -> str | None:
    """The digest of the base model here, if there is one; it must be what everybody has.

    said: by the spec. learned: from the manifest of the global model. Raises DataError
    (BaseModelMismatch, BaseModelMissing), fatal for this participant alone.
    """
    folder = os.environ.get(BASE_ENV)
    if folder is None:
        return None
    scratch = os.environ.get(SCRATCH_ENV)
    try:
        found = digest(Path(folder), None if scratch is None else Path(scratch))
    except OSError as error:
        sentence = f"the base model cannot be read: {error}"
        raise DataError("BaseModelMissing", sentence) from error
    for wanted in (said, learned):
        if wanted is not None and found != wanted:
            raise DataError(
                "BaseModelMismatch",
                f"the base model in {folder} has the digest {found}, that of the federation is "
                f"{wanted}: use the same files, or name another copy in participants[].base",
            )
    return found


def digest(folder: Path, scratch: Path | None = None) -> str:
    """`sha256:<hex>` of all files of the folder. scratch: where hashes are remembered.

    Raises DataError (BaseModelMissing) for what is no folder with files in it, OSError.
    """
    known = {} if scratch is None else _remembered(scratch)
    hashes: dict[str, tuple[list[int], str]] = {}
    whole = hashlib.sha256()
    for name, path in _files(folder):
        status = path.stat()
        key = [status.st_size, status.st_mtime_ns, status.st_ino]
        before = known.get(name)
        sha256 = before[1] if before is not None and before[0] == key else _sha256(path)
        hashes[name] = key, sha256
        whole.update(json.dumps([name, sha256], separators=(",", ":")).encode() + b"\n")
    if not hashes:
        sentence = f"{folder} holds no files: correct model.base.path, a folder of the claim"
        raise DataError("BaseModelMissing", sentence)
    if scratch is not None and hashes != known:
        _remember(scratch, hashes)
    return f"sha256:{whole.hexdigest()}"


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """(path below the folder, path), sorted; nothing for what is no folder."""
    found = []
    for at, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(at, name) for name in files if not name.startswith(".")]
    yield from sorted((path.relative_to(folder).as_posix(), path) for path in found)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remembered(scratch: Path) -> Mapping[str, tuple[list[int], str]]:
    try:
        document = json.loads((scratch / CACHE_FILE).read_text(encoding="utf-8"))
        return {name: ([int(n) for n in key], str(sha)) for name, (key, sha) in document.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # a cache: whatever is wrong with it, the files are hashed anew


def _remember(scratch: Path, hashes: Mapping[str, tuple[list[int], str]]) -> None:
    unfinished = scratch / f".{CACHE_FILE}-{os.getpid()}"
    with contextlib.suppress(OSError):  # a full scratch costs time alone
        scratch.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(json.dumps(hashes), encoding="utf-8")
        unfinished.replace(scratch / CACHE_FILE)
