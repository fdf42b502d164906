"""How large a model is, for `fedtrain plan`: by a number, or by the headers of its files."""

import argparse
import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedoperator.api.training import TrainingSpec
from fedoperator.cli import export
from fedoperator.local.folder import Refused
from fedoperator.rounds import sizes
from fedoperator.rounds.sizes import Model
from fedtrain.contract import MODEL_FILE, MODEL_INDEX_FILE, SCHEMA_FILE

_HEADER_LIMIT = 100 * 2**20
_TIMES = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9, "G": 10**9, "T": 10**12}
UNKNOWN = (
    "how large the model is stands in no file: give --parameters (such as 100M), or --model with "
    "a safetensors file, its folder or index, or the --out folder of an earlier run"
)


def parameters(text: str) -> int:
    """100M, 1.5B or 25000, as an option's value."""
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)([kMBGT]?)", text)
    count = round(float(match[1]) * _TIMES[match[2]]) if match else 0
    if count < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of parameters; write it like 25000, 100M or 7B"
        )
    return count


def of(
    spec: TrainingSpec, given: Path | None, count: int | None, claims: Mapping[str, Path]
) -> Model | None:
    """The model that travels: of --model, else --parameters, else the checkpoint of spec.model if
    --claim says where that is; None if nobody knows. Raises Refused."""
    if given is None and count is not None:
        return sizes.of_count(count)
    if given is None and spec.model.claim_name in claims:
        given = claims[spec.model.claim_name or ""] / (spec.model.path or "")
    return None if given is None else read(given, spec)


def read(given: Path, spec: TrainingSpec) -> Model:
    """Of a file, an index, a folder with either, or the folder of a run. Raises Refused."""
    try:
        place = export.last_model(given) if given.is_dir() else given
        schema = place / SCHEMA_FILE
        if place.is_dir() and schema.is_file():
            return sizes.of_schema(json.loads(schema.read_text()))
        if place.is_dir():
            place = _in(place)
        return sizes.of_header(_header(place), spec)
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Refused(f"--model {given}: {why}; name a safetensors file or its folder") from error


def _in(folder: Path) -> Path:
    """The index in a folder, or the one safetensors file."""
    for name in (MODEL_INDEX_FILE, MODEL_FILE):
        if (folder / name).is_file():
            return folder / name
    found = sorted(folder.glob("*.safetensors"))
    if len(found) != 1:
        raise ValueError(f"{len(found)} safetensors files are in it, and no {MODEL_INDEX_FILE}")
    return found[0]


def _header(path: Path) -> dict[str, Any]:
    """Of a safetensors file; of an index, of all its files together."""
    if path.suffix == ".json":
        files = sorted(set(json.loads(path.read_text())["weight_map"].values()))
        return {k: v for file in files for k, v in _header(path.parent / file).items()}
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > _HEADER_LIMIT:
            raise ValueError("not a safetensors file")
        header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("not a safetensors file")
    return header
