"""`manifest.json`: what a global model is and from whom it came; the receipt of its publication.

A manifest holds no time and no host name: the same candidates give the same bytes, whoever folds
them and however often.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """An update that was folded. weight: n_k / n. norm: L2 of its parameters' deltas."""

    participant: str
    attempt: int
    weight: float
    samples: int
    digest: str
    norm: float = 0.0
    cosine: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """An update that inspection refused. sentence: what was wrong, for its owner."""

    participant: str
    attempt: int
    reason: str
    sentence: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """training: its uid. n: the number of the aggregation. base: None for an initial model.

    size: bytes of the model's files. strategy: its name and parameters. counters: samples and bytes
    folded, elements of the model. last_accepted: participant → (round, attempt) of its last update
    that was folded into this model or one before it. files: texts beside the model → sha256.
    base_model: digest of the frozen base model that its adapter goes with, if there is one.
    measured: what was measured of the aggregation's result, by name.
    """

    version: int = VERSION
    training: str
    round: int
    n: int
    base: str | None
    digest: str
    size: int
    strategy: Mapping[str, Any] | None = None
    accepted: tuple[Accepted, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    counters: Mapping[str, int] = field(default_factory=dict)
    last_accepted: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    base_model: str | None = None
    measured: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises ValueError, in one sentence, for anything that is not a manifest."""
        unfit = ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError
        try:
            document: dict[str, Any] = json.loads(text)
            document["accepted"] = tuple(Accepted(**entry) for entry in document["accepted"])
            document["rejected"] = tuple(Rejected(**entry) for entry in document["rejected"])
            last = document.get("last_accepted", {})
            document["last_accepted"] = {name: (int(r), int(n)) for name, (r, n) in last.items()}
            files = document.get("files", {})
            document["files"] = {str(name): str(sha256) for name, sha256 in files.items()}
            manifest = cls(**document)
        except unfit as error:
            raise ValueError(f"not a manifest: {error}") from error
        if manifest.version != VERSION:
            raise ValueError(f"manifest version {manifest.version} is not {VERSION}")
        return manifest
