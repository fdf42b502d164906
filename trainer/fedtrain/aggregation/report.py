"""What one pass over the updates found: values that shards exchange and all decide from.

Every process of an aggregation reads its own tensors of every update. What it found is a `Report`;
merged in any order, the reports of all shards are the report that a single process would have
written, to the last bit: sums over tensors are taken by whoever reads it, in the schema's order.
"""

import base64
import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

Array = np.ndarray[Any, Any]
_AS_THEY_ARE = ("complete", "hashes", "squares", "largest", "alignment", "residuals", "written")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a candidate is not accepted: a CamelCase reason and one sentence for its owner.

    candidate: its number in the sorted candidates. at: (number of the tensor in the schema,
    element) where it was found, so that the first one counts, whoever finds it when.
    """

    candidate: int
    reason: str
    sentence: str
    at: tuple[int, int] = (-1, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a receipt that passed intake says. size: bytes of the update's file. length: η ‖a‖₁ of
    `fedtrain.length`, 0 where it is not asked for."""

    candidate: int
    samples: int
    digest: str
    size: int
    length: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Of one pass over one process's own tensors; the first pass is intake and has only claims.

    complete: nobody was refused on the way; all was read to the end anyhow. hashes: what was read
    or written ("base", "state", "model", "server", or a candidate's number) → tensor of that file →
    the sha256 of its tiles in hex, end to end. squares, largest: tensor of the schema → sum of
    squares (0 unless a parameter) and largest magnitude of each candidate of the pass, in order,
    and of the strategy's center after them. alignment: tensor → of the fold's samples each update's
    product with what was combined, each one's squares, and those of the latter. products: tensor →
    (K, K) inner products, fp64; a process on its own keeps one sum, "". residuals: A of a pair →
    what `lowrank.residual` says. written: bytes of the model's and the server's files, of which
    this process wrote a part.
    """

    complete: bool = True
    refusals: tuple[Refusal, ...] = ()
    claims: tuple[Claim, ...] = ()
    hashes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    squares: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    largest: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    alignment: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    products: Mapping[str, Array] = field(default_factory=dict)
    residuals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    written: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line; `from_json` gives the same values back, floating point to the last bit."""
        document = {name: getattr(self, name) for name in _AS_THEY_ARE}
        document["refusals"] = [dataclasses.asdict(refusal) for refusal in self.refusals]
        document["claims"] = [dataclasses.asdict(claim) for claim in self.claims]
        document["products"] = {name: _text(array) for name, array in self.products.items()}
        return json.dumps(document, separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises ValueError, in one sentence, for anything that is not a report."""
        try:
            document: dict[str, Any] = json.loads(text)
            document["refusals"] = tuple(
                Refusal(**{**entry, "at": tuple(entry["at"])}) for entry in document["refusals"]
            )
            document["claims"] = tuple(Claim(**entry) for entry in document["claims"])
            for name in ("squares", "largest", "alignment", "residuals"):
                document[name] = {key: tuple(row) for key, row in document[name].items()}
            document["products"] = {
                name: _array(entry) for name, entry in document["products"].items()
            }
            return cls(**document)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a report: {error}") from error


def merged(reports: Sequence[Report]) -> Report:
    """One report of the whole model; of each candidate the first refusal in the schema's order.

    A receipt that two shards read differently was changed between them: ReceiptMismatch.
    """
    refusals = [refusal for report in reports for refusal in report.refusals]
    claims: dict[int, Claim] = {}
    for claim in (claim for report in reports for claim in report.claims):
        if claims.setdefault(claim.candidate, claim) != claim:
            sentence = "the receipt changed while it was read"
            refusals.append(
                Refusal(candidate=claim.candidate, reason="ReceiptMismatch", sentence=sentence)
            )
    hashes: dict[str, dict[str, str]] = {}
    for report in reports:
        for source, tensors in report.hashes.items():
            hashes.setdefault(source, {}).update(tensors)
    names = sorted({name for report in reports for name in report.written})
    first = {
        refusal.candidate: refusal
        for refusal in sorted(refusals, key=lambda one: (one.at, one.reason), reverse=True)
    }
    return Report(
        complete=all(report.complete for report in reports),
        refusals=tuple(first[candidate] for candidate in sorted(first)),
        claims=tuple(claims[candidate] for candidate in sorted(claims.keys() - first.keys())),
        hashes=hashes,
        squares=_united(report.squares for report in reports),
        largest=_united(report.largest for report in reports),
        alignment=_united(report.alignment for report in reports),
        products=_united(report.products for report in reports),
        residuals=_united(report.residuals for report in reports),
        written={name: sum(report.written.get(name, 0) for report in reports) for name in names},
    )


def _united(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for part in parts:
        whole.update(part)
    return whole


def _text(array: Array) -> list[Any]:
    return [list(array.shape), base64.b64encode(array.astype("<f8").tobytes()).decode()]


def _array(entry: list[Any]) -> Array:
    shape, text = entry
    return np.frombuffer(base64.b64decode(text, validate=True), "<f8").reshape(shape)
