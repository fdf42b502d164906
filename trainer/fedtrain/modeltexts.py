"""Small text files that travel with a model: its config, its tokenizer, its adapter's config.

They lie beside the tensors of each global model under their own names, so that what others read
(Transformers, PEFT) finds them, and the manifest names each with its sha256.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from fedtrain.contract import MANIFEST_FILE, RECEIPT_FILE, SCHEMA_FILE
from fedtrain.tensorfile import TensorFileError, read_text

LIMIT = 64 * 1024 * 1024
"""Bytes of all of them; a tokenizer of 256,000 tokens has half of it."""

MOST = 32
ENDINGS = (".json", ".txt", ".jinja")
WELL_KNOWN = (
    "added_tokens.json",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "preprocessor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
"""What a checkpoint of Transformers has beside its tensors."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_OURS = frozenset({MANIFEST_FILE, RECEIPT_FILE, SCHEMA_FILE})


def check(files: Mapping[str, str]) -> None:
    """Raises ValueError, one sentence, for what may not travel with a model."""
    if len(files) > MOST:
        raise ValueError(f"files: {len(files)} are too many; {MOST} is the most")
    total = 0
    for name, text in files.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name) or not name.endswith(ENDINGS):
            ends = ", ".join(ENDINGS)
            raise ValueError(
                f"files[{name!r:.120}]: use a plain name of letters, digits, '.', '_' and '-' that "
                f"ends in one of {ends}"
            )
        if name in _OURS or name.endswith(".index.json"):
            raise ValueError(f"files[{name!r}] is a name that fedtrain uses itself; use another")
        if not isinstance(text, str):
            raise ValueError(f"files[{name!r}] holds a {type(text).__name__}; use its text")
        try:
            total += len(text.encode())
        except UnicodeEncodeError:
            raise ValueError(f"files[{name!r}] is no text that UTF-8 can hold") from None
    if total > LIMIT:
        raise ValueError(f"files: {total} bytes are too much; {LIMIT} is the most")


def digests(files: Mapping[str, str]) -> dict[str, str]:
    """name → sha256, for the manifest."""
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()}


def read(folder: Path, wanted: Mapping[str, str]) -> dict[str, str]:
    """The files that a manifest names, as it names them. Raises ValueError, OSError."""
    files = {name: read_text(folder / name, LIMIT) for name in sorted(wanted)}
    found = digests(files)
    for name, sha256 in found.items():
        if sha256 != wanted[name]:
            raise ValueError(f"{name} has the sha256 {sha256}, the manifest says {wanted[name]}")
    check(files)
    return files


def beside(checkpoint: Path) -> dict[str, str]:
    """The well-known ones beside a checkpoint (a file or a folder), as far as they may travel."""
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    files: dict[str, str] = {}
    for name in WELL_KNOWN:
        path = folder / name
        if not path.exists():
            continue
        try:
            # A model hub's cache is made of links; whoever names the path owns the claim.
            text = read_text(path.resolve(), LIMIT)
            check({**files, name: text})
        except (ValueError, TensorFileError):  # no text, or too much of it: not what it is called
            continue
        files[name] = text
    return files
