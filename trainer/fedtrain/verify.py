"""`python -m fedtrain.verify DIR`: whether a global model's files are what its manifest says.

DIR is a folder global/<round>/<n>, or a copy of one. Everything is read again and hashed: tensors,
the server's state if it is there, and the texts that travel with the model.
"""

import argparse
import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fedtrain import modeltexts
from fedtrain.contract import MANIFEST_FILE, SERVER_FILE, joined_digest, parted_digest
from fedtrain.digest import Digest, tensor_tiles
from fedtrain.layout import TensorFileError
from fedtrain.manifest import Manifest
from fedtrain.modelfiles import INDEX_SUFFIX, ModelFiles, open_model
from fedtrain.tensorfile import read_text


def verified(folder: Path, expected: str | None = None) -> str:
    """The digest of what is there. expected: what it must be; the manifest's, which it must be in
    any case, if left out. Raises ValueError, one sentence, if it is another, and OSError."""
    manifest = Manifest.from_json(read_text(folder / MANIFEST_FILE))
    modeltexts.read(folder, manifest.files)  # raises ValueError for one that was changed
    with open_model(folder) as model:
        found = digest_of(model)
    state = _state(folder)
    if state is not None:
        with state:
            found = joined_digest(found, digest_of(state))
    elif parted_digest(manifest.digest)[1] is not None:
        raise ValueError(f"{SERVER_FILE} is missing, and the manifest has its digest")
    for what, wanted in (("the manifest says", manifest.digest), ("expected was", expected)):
        if wanted is not None and wanted != found:
            raise ValueError(f"the digest is {found}, and {what} {wanted}; get it once more")
    return found


def digest_of(model: ModelFiles) -> str:
    """Layout-free, of all tensors."""
    digest = Digest()
    for name, info in model.tensors.items():
        for index, start, stop in tensor_tiles(info):
            sha256 = hashlib.sha256(model.read(name, start, stop).tobytes()).digest()
            digest.update(name, info.dtype, info.shape, index, sha256)
    return digest.hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code; what is wrong is said in one line."""
    parser = argparse.ArgumentParser(prog="fedtrain models verify")
    parser.add_argument("folder", metavar="DIR", type=Path)
    parser.add_argument("--digest", help="what it must be")
    options = parser.parse_args(arguments)
    try:
        print(f"{options.folder}: {verified(options.folder, options.digest)}")
    except (ValueError, OSError) as error:
        print(f"{options.folder} is not as it was published: {error}", file=sys.stderr)
        return 1
    return os.EX_OK


def _state(folder: Path) -> ModelFiles | None:
    for name in (SERVER_FILE, SERVER_FILE + INDEX_SUFFIX):
        try:
            return open_model(folder / name)
        except FileNotFoundError:
            continue
        except TensorFileError as error:
            if error.reason != "FileMissing":
                raise
    return None


if __name__ == "__main__":
    sys.exit(main())
