"""The parts of a sharded model become one publication."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from fedtrain.aggregation.peers import Over
from fedtrain.contract import MANIFEST_FILE
from fedtrain.errors import TryAgain
from fedtrain.modelfiles import INDEX_SUFFIX
from fedtrain.publication import Publication, make_folder, published


class Together:
    """`path`, a folder for all shards' parts; the first shard moves them into a publication.

    Moved, not linked: readers refuse files with two names. If two instances of the first shard
    ever do this at once, each file reaches one of them only, so that neither publishes a half.
    """

    def __init__(self, output: Path, path: Path) -> None:
        self._output = output
        self.path = path

    def __enter__(self) -> Self:
        make_folder(self.path)
        return self

    def __exit__(self, *_: object) -> None:
        """The folder stays: the others may still be busy with it; pruning removes it."""

    def commit(self, text: str, files: dict[str, str] | None = None) -> str:
        """Publish what the indexes among `files` name, with `files` and the manifest."""
        with Publication(self._output, MANIFEST_FILE, f"{self._output.name}-") as new:
            for name in sorted(_named(files or {})):
                try:
                    os.rename(self.path / name, new.path / name)
                except FileNotFoundError:
                    if published(self._output, MANIFEST_FILE) is not None:
                        raise Over from None
                    sentence = f"{name} is gone: another instance of the first shard took it"
                    raise TryAgain("ShardDiffers", sentence) from None
            return new.commit(text, files)


def _named(files: Mapping[str, str]) -> set[str]:
    indexes = (text for name, text in files.items() if name.endswith(INDEX_SUFFIX))
    return {file for text in indexes for file in json.loads(text)["weight_map"].values()}
