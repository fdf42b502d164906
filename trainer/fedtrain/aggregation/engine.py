"""One aggregation: inspect the candidates, fold the accepted, publish, prune.

Killed anywhere and run again, it publishes the same bytes; once published, the manifest is the
result, and a second run only says so.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from fedtrain import strategies
from fedtrain.aggregation import prune
from fedtrain.aggregation.acceptance import accept
from fedtrain.aggregation.fold import ChangedAfterInspection, Fold, open_contributions
from fedtrain.aggregation.inspection import Inspected, Intake, header_limit, inspect_all
from fedtrain.aggregation.log import Stopwatch, peak_memory, say
from fedtrain.aggregation.verdicts import Verdicts, VerdictsError
from fedtrain.contract import MANIFEST_FILE, MODEL_FILE, SCHEMA_FILE, AggregateTask, Message
from fedtrain.errors import ContractError, TryAgain
from fedtrain.layout import FLOATING, TensorFileError
from fedtrain.manifest import Accepted, Manifest, Rejected
from fedtrain.publication import Publication, published
from fedtrain.schema import Schema
from fedtrain.tensorfile import TensorFile, TensorWriter, read_text

METADATA = {"format": "pt"}
"""What other readers of safetensors files look for: plain names, row-major tensors."""


def aggregate(task: AggregateTask, root: Path, threads: int) -> Message:
    """Publish `task.output` and report it. Raises FedtrainError (VerdictsError) and OSError."""
    watch = Stopwatch()
    folder = root / task.output
    text = published(folder, MANIFEST_FILE)
    if text is not None:
        say(f"{task.output} is published already: that is the result")
    else:
        prune.leftovers_before(folder)
        text = _publish(task, root, threads)
    manifest = Manifest.from_json(text)
    prune.after(task, root)
    measured = {
        "digest": manifest.digest,
        "bytes": manifest.counters.get("bytes", 0),
        "seconds": round(watch.seconds, 3),
        "peakMemory": peak_memory(),
    }
    verdicts = Verdicts(
        candidates=task.candidates, accepted=manifest.accepted, rejected=manifest.rejected
    )
    sentence = f"{len(manifest.accepted)} of {len(task.candidates)} updates became {task.output}"
    return Message(message=sentence, result=verdicts.result(measured, task.missing))


def _publish(task: AggregateTask, root: Path, threads: int) -> str:
    """The manifest of the publication that counts."""
    with _open_base(task, root) as base:
        schema_text, schema = _schema(task, root, base)
        intake = Intake(
            root=root,
            training=task.uid,
            round=task.round,
            base=task.model.digest,
            schema=schema,
            header_limit=header_limit(schema),
        )
        inspected = inspect_all(intake, sorted(task.candidates), threads)
        accepted, rejected = accept(task, inspected)
        if len(accepted) < task.minimum or not accepted:
            sentence = f"{len(accepted)} updates were accepted, {task.minimum} are needed"
            raise _verdicts("TooFewAccepted", sentence, task, accepted, rejected)
        label = f"{Path(task.output).name}-"
        with Publication(root / task.output, MANIFEST_FILE, label) as publication:
            with TensorWriter(publication.path / MODEL_FILE, schema.layout(), METADATA) as writer:
                try:
                    _fold(task, intake, base, inspected, accepted, writer, threads)
                except ChangedAfterInspection as changed:
                    raise _changed(changed, task, accepted, rejected) from None
                manifest = _manifest(task, schema, inspected, accepted, rejected, writer)
            return publication.commit(manifest.to_json(), {SCHEMA_FILE: schema_text})


def _open_base(task: AggregateTask, root: Path) -> TensorFile:
    try:
        return TensorFile.open(root / task.model.path / MODEL_FILE)
    except TensorFileError as error:
        raise TryAgain("BaseUnreadable", f"{task.model.path}: {error}") from error


def _schema(task: AggregateTask, root: Path, base: TensorFile) -> tuple[str, Schema]:
    try:
        text = read_text(root / task.model.path / SCHEMA_FILE)
        schema = Schema.from_json(text)
    except ValueError as error:
        raise TryAgain("BaseUnreadable", f"{task.model.path}/{SCHEMA_FILE}: {error}") from error
    difference = schema.difference(base.tensors.values())
    for spec in schema.tensors:
        if spec.dtype in FLOATING and spec.dtype != "F32":
            difference = f"tensor {spec.name[:80]!a} is {spec.dtype}; a global model is kept in F32"
    if difference is not None:
        raise TryAgain("BaseUnreadable", f"{task.model.path} and its schema: {difference}")
    return text, schema


def _fold(
    task: AggregateTask,
    intake: Intake,
    base: TensorFile,
    inspected: Sequence[Inspected],
    accepted: Sequence[Accepted],
    writer: TensorWriter,
    threads: int,
) -> None:
    try:
        strategy = strategies.named(task.strategy)
    except ValueError as error:
        raise ContractError("StrategyUnknown", str(error)) from error
    passed = [one for one in inspected if one.reason is None]
    weights = np.array([entry.weight for entry in accepted], np.float32)
    watch = Stopwatch()
    with ExitStack() as opened:
        contributions = open_contributions(opened, intake, passed)
        fold = Fold(
            base=base,
            contributions=contributions,
            weights=weights,
            strategy=strategy,
            writer=writer,
        )
        digest = fold.run(intake.schema.tensors, threads)
    if digest != task.model.digest:
        sentence = f"{task.model.path} has the digest {digest}, not {task.model.digest}"
        raise TryAgain("BaseCorrupt", sentence)
    nbytes = sum(one.size for one in passed)
    say(f"folded {len(passed)} updates with {task.strategy}: {watch.rate(nbytes)}")


def _manifest(
    task: AggregateTask,
    schema: Schema,
    inspected: Sequence[Inspected],
    accepted: tuple[Accepted, ...],
    rejected: tuple[Rejected, ...],
    writer: TensorWriter,
) -> Manifest:
    return Manifest(
        training=task.uid,
        round=task.round,
        n=int(Path(task.output).name),
        base=task.model.digest,
        digest=writer.digest(),
        size=writer.size,
        strategy=task.strategy,
        accepted=accepted,
        rejected=rejected,
        counters={
            "bytes": sum(one.size for one in inspected if one.reason is None),
            "elements": sum(info.count for info in schema.layout()),
            "samples": sum(entry.samples for entry in accepted),
            "tensors": len(schema.tensors),
        },
    )


def _changed(
    changed: ChangedAfterInspection,
    task: AggregateTask,
    accepted: Sequence[Accepted],
    rejected: Sequence[Rejected],
) -> VerdictsError:
    """The round is decided again without the one whose bytes are not what was inspected."""
    name = changed.participant
    guilty = [
        Rejected(
            participant=name,
            attempt=entry.attempt,
            reason="ChangedAfterInspection",
            sentence=str(changed),
        )
        for entry in accepted
        if entry.participant == name
    ]
    others = [entry for entry in accepted if entry.participant != name]
    return _verdicts("ChangedAfterInspection", str(changed), task, others, [*rejected, *guilty])


def _verdicts(
    reason: str,
    sentence: str,
    task: AggregateTask,
    accepted: Sequence[Accepted],
    rejected: Sequence[Rejected],
) -> VerdictsError:
    verdicts = Verdicts(candidates=task.candidates, accepted=accepted, rejected=rejected)
    return VerdictsError(reason, sentence, verdicts.result({}, task.missing))
