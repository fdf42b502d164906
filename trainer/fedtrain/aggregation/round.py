"""The passes of one aggregation: again without whoever turned out unsound, until nobody does."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedtrain.adapters import Pair, narrowed, pairs
from fedtrain.aggregation import lowrank
from fedtrain.aggregation.acceptance import Standing, accepted, rejected, weighed
from fedtrain.aggregation.copying import copied
from fedtrain.aggregation.fold import BaseModel, Fold, Server, Weighting
from fedtrain.aggregation.hashing import digest_of
from fedtrain.aggregation.log import Stopwatch, say
from fedtrain.aggregation.measuring import Measuring
from fedtrain.aggregation.pairing import Factors, Products, Residuals
from fedtrain.aggregation.parts import Parts
from fedtrain.aggregation.peers import Peers
from fedtrain.aggregation.record import Record
from fedtrain.aggregation.report import Refusal, Report, merged
from fedtrain.aggregation.server import ServerState, described
from fedtrain.aggregation.units import Carried, carried
from fedtrain.aggregation.updates import Update
from fedtrain.aggregation.verdicts import Verdicts, VerdictsError
from fedtrain.aggregation.weighting import Known, cosines, must_measure, squares, weighting
from fedtrain.codecs import Codec
from fedtrain.contract import MODEL_FILE, SERVER_FILE, AggregateTask
from fedtrain.errors import ContractError, TryAgain
from fedtrain.layout import TensorInfo, plan
from fedtrain.modelfiles import INDEX_SUFFIX, index_text, shard_name
from fedtrain.schema import Schema, TensorSpec
from fedtrain.strategies import Needs, Strategy

PIECE = 128 * 1024
"""Elements of a tensor in memory at once, of each thread: large enough to keep the GIL out of the
way, small enough for the caches to hold a piece while it is hashed, looked at and summed."""

STACK_BYTES = 32 * 1024 * 1024
"""Of all threads together, where a piece of every update is in memory at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Folded:
    """A round that came to its end: who stands, and what was written. squares: see acceptance;
    cosines: see weighting. residual: of the published products, see `lowrank.relative`; None if
    nobody asked."""

    standing: Standing
    weights: Sequence[float]
    squares: Sequence[float]
    cosines: Sequence[float | None]
    model_digest: str
    state_digest: str | None
    size: int
    indexes: Mapping[str, str]
    residual: float | None = None


@dataclass(slots=True, kw_only=True)
class Round:
    """What all passes have in common. base_digest: what the base's tensors must hash to."""

    task: AggregateTask
    strategy: Strategy
    codec: Codec | None = None
    schema: Schema
    tensors: tuple[Carried, ...]
    base: BaseModel
    base_digest: str
    state: ServerState
    updates: Mapping[int, Update]
    threads: int
    peers: Peers
    passes: int = 1

    def enough(self, standing: Standing) -> None:
        """Raises VerdictsError (TooFewAccepted) if too few are left to go on."""
        needed = max(self.task.minimum, self.strategy.minimum, 1)
        count = len(standing.members)
        if count < needed:
            verdicts = Verdicts(
                candidates=self.task.candidates,
                accepted=accepted(standing, [0.0] * count, [0.0] * count, [None] * count),
                rejected=rejected(standing),
            )
            sentence = f"{count} updates were accepted, {needed} are needed"
            if self.strategy.minimum > self.task.minimum:
                sentence += f" by {self.strategy.name}"
            raise VerdictsError("TooFewAccepted", sentence, verdicts.result({}, self.task.missing))

    def run(self, standing: Standing, folder: Path) -> Folded:
        """Fold whoever stands in the end into new files in `folder`. Raises VerdictsError too."""
        index, count = self.peers.index, self.peers.count
        specs = self._specs(index)
        names = {spec.name for spec in specs}
        owned = tuple(tensor for tensor in self.tensors if tensor.spec.name in names)
        with Parts(folder, specs, self.strategy.slots, index, count) as parts:
            while True:
                standing, weights = weighed(self.task, standing)
                self.enough(standing)
                measured: Report | None = None
                if must_measure(self.task, self.strategy):
                    measured = self._measure(owned, standing)
                    if out := self._unsound(measured, standing):
                        standing = self._without(standing, out)
                        continue
                plan = self._weighting(standing, weights, measured)
                factors = self._factors(standing, weights, parts)
                report = self._fold(owned, standing, plan, parts, factors)
                if out := self._unsound(report, standing):
                    standing = self._without(standing, out)
                    continue
                self._check_base(report)
                residuals = self._residuals(factors)
                told = Report(residuals=residuals, written=parts.finish())
                written = merged(self._share(told))
                return self._folded(standing, weights, report, written)

    def _measure(self, owned: Sequence[Carried], standing: Standing) -> Report:
        watch = Stopwatch()
        measuring = Measuring(
            owned,
            [self.updates[number] for number in standing.members],
            Record(apart=self.peers.count > 1),
            piece=PIECE,
            products=Needs.PRODUCTS in self.strategy.needs,
            state=self.state,
            center=self.strategy.center,
        )
        report = merged(self._share(measuring.run(self.threads)))
        say(f"measured {len(standing.members)} updates: {watch.rate(_bytes(standing))}")
        return report

    def _fold(
        self,
        owned: Sequence[Carried],
        standing: Standing,
        plan: Weighting,
        parts: Parts,
        factors: Factors,
    ) -> Report:
        watch = Stopwatch()
        paired = self._pairs() if self._aggregation == "Product" else ()
        apart = {spec.name for pair in paired for spec in (pair.a, pair.b)}
        server = Server(
            strategy=self.strategy,
            precision=self.task.precision,
            base=self.base,
            state=self.state,
            model_file=parts.model,
            state_file=parts.state,
        )
        updates = [self.updates[number] for number in standing.members]
        fold = Fold(
            [tensor for tensor in owned if tensor.spec.name not in apart],
            updates,
            Record(),
            piece=self._piece(len(updates)),
            weighting=plan,
            server=server,
        )
        reports = [fold.run(self.threads)]
        if paired:
            reports.append(Products(paired, factors, Record()).run(self.threads))
        if frozen := [s for s in self._specs(self.peers.index) if s.kind == "frozen"]:
            reports.append(copied(frozen, self.base, parts.model))
        report = merged(reports) if len(reports) > 1 else reports[0]
        if report.complete:
            hashes = {**report.hashes, **parts.hashes()}
            report = dataclasses.replace(report, hashes=hashes)
            name = self.strategy.name
            say(f"folded {len(updates)} updates with {name}: {watch.rate(_bytes(standing))}")
        return merged(self._share(report))

    def _factors(self, standing: Standing, weights: Sequence[float], parts: Parts) -> Factors:
        return Factors(
            schema=self.schema,
            codec=self.codec,
            base=self.base,
            updates=[self.updates[number] for number in standing.members],
            ranks=[self._rank(standing.candidates[number][0]) for number in standing.members],
            weights=weights,
            model_file=parts.model,
        )

    def _residuals(self, factors: Factors) -> Mapping[str, tuple[float, float]]:
        """Of our own pairs, if the task speaks of adapters."""
        if self.task.adapters is None:
            return {}
        return Residuals(self._pairs(), factors, Record()).run(self.threads).residuals

    def _residual(self, written: Report) -> float | None:
        """Over all pairs, in the schema's order; None unless all of them were measured."""
        found = pairs(self.schema)
        if not found or any(pair.a.name not in written.residuals for pair in found):
            return None
        residual = lowrank.relative([written.residuals[pair.a.name] for pair in found])
        name = f"{self._aggregation} of {len(found)} adapter pairs"
        say(f"{name}: {residual:.3g} from the exact weighted sum of their products")
        return residual

    def _pairs(self) -> tuple[Pair, ...]:
        """Those whose factors are our own work."""
        names = {spec.name for spec in self._specs(self.peers.index)}
        return tuple(pair for pair in pairs(self.schema) if pair.a.name in names)

    @property
    def _aggregation(self) -> str:
        return str((self.task.adapters or {}).get("aggregation", "Factors"))

    def _rank(self, participant: str) -> int | None:
        ranks: Mapping[str, int] = (self.task.adapters or {}).get("ranks") or {}
        return ranks.get(participant)

    def _share(self, report: Report) -> list[Report]:
        reports = self.peers.share(self.passes, report)
        self.passes += 1
        return reports

    def _piece(self, count: int) -> int:
        if not self.strategy.coordinatewise:
            return PIECE
        return min(PIECE, STACK_BYTES // (4 * count * self.threads))

    def _weighting(
        self, standing: Standing, weights: Sequence[float], measured: Report | None
    ) -> Weighting:
        lengths = [standing.claims[number].length for number in standing.members]
        known = Known(weights=weights, lengths=lengths, measured=measured)
        try:
            return weighting(self.task, self.strategy, self.schema, known)
        except ValueError as error:
            raise ContractError("BadTask", str(error)) from error

    def _unsound(self, report: Report, standing: Standing) -> list[Refusal]:
        """Who is out after a pass: for what was seen in the values, else for the bytes' digest."""
        refused = {refusal.candidate for refusal in report.refusals}
        found = {
            number: digest_of(
                self._carriers(self._rank(standing.candidates[number][0])),
                report.hashes[str(number)],
            )
            for number in standing.members
            if number not in refused
        }
        mismatches = [
            Refusal(
                candidate=number,
                reason="DigestMismatch",
                sentence=f"the file's digest is {digest}, the receipt's {claimed:.80}",
            )
            for number, digest in found.items()
            if digest != (claimed := standing.claims[number].digest)
        ]
        return [*report.refusals, *mismatches]

    def _carriers(self, rank: int | None) -> list[tuple[str, str, tuple[int, ...]]]:
        """What an update holds: (name, dtype, shape)."""
        tensors = self.tensors
        if rank is not None:
            tensors = carried(narrowed(self.schema, rank), self.codec)
        return [(c.name, c.dtype, c.shape) for tensor in tensors for c in tensor.carriers]

    def _without(self, standing: Standing, refusals: Sequence[Refusal]) -> Standing:
        for refusal in refusals:
            participant, attempt = standing.candidates[refusal.candidate]
            say(f"refused {participant}, attempt {attempt}: {refusal.reason}: {refusal.sentence}")
        return standing.without(refusals)

    def _check_base(self, report: Report) -> None:
        """Raises TryAgain (BaseCorrupt) if what was read is not what the task names."""
        model = digest_of(_described(self.schema.tensors), report.hashes["base"])
        if model != self.base_digest:
            sentence = f"{self.task.model.path} has the digest {model}, not {self.base_digest}"
            raise TryAgain("BaseCorrupt", sentence)
        if self.state.digest is not None:
            wanted = described(self.strategy.slots, self.schema.tensors)
            state = digest_of(wanted, report.hashes["state"])
            if state != self.state.digest:
                sentence = f"{state}, not {self.state.digest}"
                raise TryAgain(
                    "BaseCorrupt", f"{self.task.model.path}: the state's digest is {sentence}"
                )

    def _folded(
        self, standing: Standing, weights: Sequence[float], report: Report, written: Report
    ) -> Folded:
        model = digest_of(_described(self.schema.tensors), report.hashes["model"])
        state = None
        if self.strategy.slots:
            wanted = described(self.strategy.slots, self.schema.tensors)
            state = digest_of(wanted, report.hashes["server"])
            assert state is not None, "every tensor of the state was written by somebody"
        assert model is not None, "every tensor of the model was written by somebody"
        return Folded(
            standing=standing,
            weights=weights,
            squares=squares(report, self.schema, len(weights)),
            cosines=cosines(report, self.schema, len(weights)),
            model_digest=model,
            state_digest=state,
            size=written.written["model"],
            indexes=self._indexes(),
            residual=self._residual(written),
        )

    def _specs(self, index: int) -> tuple[TensorSpec, ...]:
        """What a shard works on: whole tensors."""
        if self.peers.count == 1:
            return self.schema.tensors
        from fedtrain.aggregation import shards

        return shards.owned(self.schema, self.peers.count, index)

    def _indexes(self) -> dict[str, str]:
        """The index files of a model in parts, by name, as Hugging Face writes them."""
        count = self.peers.count
        if count == 1:
            return {}
        parts: dict[str, dict[str, Sequence[TensorInfo]]] = {MODEL_FILE: {}, SERVER_FILE: {}}
        for index in range(count):
            specs = self._specs(index)
            tensors = {
                MODEL_FILE: _described(specs),
                SERVER_FILE: described(self.strategy.slots, specs),
            }
            for file, known in parts.items():
                if tensors[file]:
                    known[shard_name(index, count, file)] = plan(tensors[file])
        return {
            f"{file}{INDEX_SUFFIX}": index_text(known) for file, known in parts.items() if known
        }


def _described(specs: Sequence[TensorSpec]) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    return tuple((spec.name, spec.dtype, spec.shape) for spec in specs)


def _bytes(standing: Standing) -> int:
    return sum(claim.size for claim in standing.claims.values())
