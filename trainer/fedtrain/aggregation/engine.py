"""One aggregation: intake, passes over the updates until all who are left are sound, publication.

The fold begins at once with everybody whose receipt and header are in order: hashes and the look
at the values come with it. Whoever turns out unsound is left out, and the pass is done again; so
the published bytes are those of a round without them. Killed anywhere and run again, the same
bytes; once published, the manifest is the result, and a second run only says so.
"""

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from fedtrain import adapters, codecs, modeltexts, strategies
from fedtrain.aggregation import prune
from fedtrain.aggregation.acceptance import Standing, accepted, rejected, weighed
from fedtrain.aggregation.fold import BaseModel
from fedtrain.aggregation.inspection import Intake, inspect_all
from fedtrain.aggregation.log import Stopwatch, peak_memory, say
from fedtrain.aggregation.peers import Alone, Over, Peers
from fedtrain.aggregation.report import Claim, Refusal, Report, merged
from fedtrain.aggregation.round import Folded, Round
from fedtrain.aggregation.server import ServerState
from fedtrain.aggregation.units import carried
from fedtrain.aggregation.updates import Update, open_updates
from fedtrain.aggregation.verdicts import Verdicts
from fedtrain.contract import (
    MANIFEST_FILE,
    SCHEMA_FILE,
    AggregateTask,
    Message,
    joined_digest,
    parted_digest,
)
from fedtrain.errors import ContractError, TryAgain
from fedtrain.layout import FLOATING
from fedtrain.manifest import Manifest
from fedtrain.modelfiles import open_model
from fedtrain.publication import published
from fedtrain.schema import Schema
from fedtrain.strategies import Strategy
from fedtrain.tensorfile import read_text


def aggregate(task: AggregateTask, root: Path, threads: int, peers: Peers | None = None) -> Message:
    """Publish `task.output` and report it. Raises FedtrainError (VerdictsError) and OSError.

    A shard that is not the first reports nothing: what is published is not its to tell.
    """
    watch = Stopwatch()
    peers = peers or Alone(task, root)
    folder = root / task.output
    text = published(folder, MANIFEST_FILE)
    if text is not None:
        say(f"{task.output} is published already: that is the result")
    else:
        if peers.index == 0:
            prune.leftovers_before(folder)
        try:
            text = _publish(task, root, threads, peers)
        except Over:
            text = published(folder, MANIFEST_FILE)
    if peers.index > 0 or text is None:
        return Message()
    manifest = Manifest.from_json(text)
    prune.after(task, root)
    measured = {
        "digest": manifest.digest,
        "bytes": manifest.counters.get("bytes", 0),
        "seconds": round(watch.seconds, 3),
        "peakMemory": peak_memory(),
        **manifest.measured,
        **_space(root),
    }
    verdicts = Verdicts(
        candidates=task.candidates, accepted=manifest.accepted, rejected=manifest.rejected
    )
    sentence = f"{len(manifest.accepted)} of {len(task.candidates)} updates became {task.output}"
    return Message(message=sentence, result=verdicts.result(measured, task.missing))


def _space(root: Path) -> dict[str, int]:
    """Bytes of the exchange's volume, as this aggregation leaves it."""
    volume = os.statvfs(root)
    free, size = volume.f_bavail * volume.f_frsize, volume.f_blocks * volume.f_frsize
    return {"exchangeFree": free, "exchangeSize": size}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Base:
    """The global model that the round is based on, with what lies beside it."""

    file: BaseModel
    schema_text: str
    schema: Schema
    manifest: Manifest
    files: Mapping[str, str]


def _publish(task: AggregateTask, root: Path, threads: int, peers: Peers) -> str | None:
    """The manifest of the publication that counts; None for a shard that does not publish."""
    strategy, codec = _strategy(task), _codec(task)
    _check_adapters(task)
    with ExitStack() as opened:
        base = _open_base(task, root, opened)
        model_digest, state_digest = parted_digest(task.model.digest)
        folder = root / task.model.path
        state = opened.enter_context(ServerState(folder, strategy.slots, state_digest))
        state.check(base.schema.tensors)
        tensors = carried(base.schema, codec)
        intake = Intake(
            root=root,
            training=task.uid,
            round=task.round,
            base=task.model.digest,
            tensors=tensors,
            codecs=(task.codec,) if codec is None else (task.codec, codec.document),
            ranks=(task.adapters or {}).get("ranks") or {},
            counts_steps=strategy.counts_steps,
        )
        standing, updates = _taken_in(task, intake, threads, peers, opened)
        this = Round(
            task=task,
            strategy=strategy,
            codec=codec,
            schema=base.schema,
            tensors=tensors,
            base=base.file,
            base_digest=model_digest,
            state=state,
            updates=updates,
            threads=threads,
            peers=peers,
        )
        this.enough(weighed(task, standing)[0])
        with peers.publication() as new:
            folded = this.run(standing, new.path)
            if peers.index > 0:
                return None
            manifest = _manifest(task, base, folded)
            files = {SCHEMA_FILE: base.schema_text, **folded.indexes, **base.files}
            return new.commit(manifest.to_json(), files)


def _taken_in(
    task: AggregateTask, intake: Intake, threads: int, peers: Peers, opened: ExitStack
) -> tuple[Standing, dict[int, Update]]:
    """Who stands after all shards have looked at all receipts and headers; their open files."""
    candidates = tuple(sorted(task.candidates))
    inspected = dict(enumerate(inspect_all(intake, candidates, threads)))
    refusals = [
        Refusal(candidate=number, reason=one.reason, sentence=one.sentence)
        for number, one in inspected.items()
        if one.reason is not None
    ]
    passed = {number: one for number, one in inspected.items() if one.reason is None}
    updates, gone = open_updates(opened, intake, passed)
    claims = tuple(
        Claim(
            candidate=number,
            samples=one.samples,
            digest=one.digest,
            size=one.size,
            length=one.length,
        )
        for number, one in passed.items()
        if number in updates
    )
    report = merged(peers.share(0, Report(refusals=(*refusals, *gone), claims=claims)))
    standing = Standing(
        candidates=candidates,
        claims={claim.candidate: claim for claim in report.claims},
        refusals={refusal.candidate: refusal for refusal in report.refusals},
    )
    for (participant, attempt), refusal in (
        (candidates[refusal.candidate], refusal) for refusal in report.refusals
    ):
        say(f"refused {participant}, attempt {attempt}: {refusal.reason}: {refusal.sentence}")
    return standing, updates


def _strategy(task: AggregateTask) -> Strategy:
    try:
        return strategies.strategy(task.strategy)
    except ValueError as error:
        raise ContractError("StrategyUnknown", str(error)) from error


def _codec(task: AggregateTask) -> codecs.Codec | None:
    try:
        return codecs.codec(task.codec)
    except ValueError as error:
        raise ContractError("CodecUnknown", str(error)) from error


def _check_adapters(task: AggregateTask) -> None:
    """What the API refuses, too. Raises ContractError (BadTask)."""
    aggregation = (task.adapters or {}).get("aggregation", "Factors")
    if aggregation not in adapters.AGGREGATIONS:
        raise ContractError("BadTask", f"adapters.aggregation: {aggregation!r} is unknown")
    if aggregation != "Product":
        return
    codec = None if task.codec is None else task.codec.get("name")
    for wrong, what in (
        (task.strategy.get("name") not in adapters.AVERAGING, task.strategy.get("name")),
        (task.norm_bound is not None, "normBound"),
        (codec not in (None, "BFloat16"), codec),
        (task.precision == "Exact", "Exact"),
    ):
        if wrong:
            sentence = f"adapters.aggregation: Product does not go with {what}"
            raise ContractError("BadTask", sentence)


def _open_base(task: AggregateTask, root: Path, opened: ExitStack) -> _Base:
    folder = root / task.model.path
    try:
        file = opened.enter_context(open_model(folder))
        text = read_text(folder / SCHEMA_FILE)
        schema = Schema.from_json(text)
        manifest = Manifest.from_json(read_text(folder / MANIFEST_FILE))
        files = modeltexts.read(folder, manifest.files)
    except ValueError as error:
        raise TryAgain("BaseUnreadable", f"{task.model.path}: {error}") from error
    difference = schema.difference(file.tensors.values())
    for spec in schema.tensors:
        if spec.dtype in FLOATING and spec.dtype != "F32":
            difference = f"tensor {spec.name[:80]!a} is {spec.dtype}; a global model is kept in F32"
    if difference is not None:
        raise TryAgain("BaseUnreadable", f"{task.model.path} and its schema: {difference}")
    return _Base(file=file, schema_text=text, schema=schema, manifest=manifest, files=files)


def _manifest(task: AggregateTask, base: _Base, folded: Folded) -> Manifest:
    entries = accepted(folded.standing, folded.weights, folded.squares, folded.cosines)
    last: Mapping[str, tuple[int, int]] = {
        **base.manifest.last_accepted,
        **{entry.participant: (task.round, entry.attempt) for entry in entries},
    }
    return Manifest(
        training=task.uid,
        round=task.round,
        n=int(Path(task.output).name),
        base=task.model.digest,
        digest=joined_digest(folded.model_digest, folded.state_digest),
        size=folded.size,
        strategy=dict(task.strategy),
        accepted=entries,
        rejected=rejected(folded.standing),
        counters={
            "bytes": sum(claim.size for claim in folded.standing.claims.values()),
            "elements": sum(info.count for info in base.schema.layout()),
            "samples": sum(entry.samples for entry in entries),
            "tensors": len(base.schema.tensors),
        },
        last_accepted=last,
        files=base.manifest.files,
        base_model=base.manifest.base_model,
        measured=_measured(folded),
    )


def _measured(folded: Folded) -> dict[str, float]:
    """What the manifest says was measured, in fewer digits than machines differ by."""
    return {} if folded.residual is None else {"residual": float(f"{folded.residual:.6g}")}
