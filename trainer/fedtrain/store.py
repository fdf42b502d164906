"""What a participant reads from the exchange and publishes there, in terms of `Weights`.

The global model is hashed as it is read, on loading and again when the update is computed (see
`fedtrain.globalmodel`), so that a delta is relative to the very bytes that the receipt names.
Tensors pass through in tiles; nothing here knows a framework. The ranks of a sharded model do all
of it together, each with its own part; of any other model rank 0 publishes.
"""

import contextlib
import errno
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from fedtrain import basemodel, codecs, modeltexts, publication
from fedtrain.adapters import CONFIG_FILE, check_frozen, unscaled_config
from fedtrain.collective import Alone, Ranks
from fedtrain.contract import (
    MANIFEST_FILE,
    MODEL_FILE,
    RECEIPT_FILE,
    SCHEMA_FILE,
    UPDATE_FILE,
    ModelRef,
    ParticipantTask,
    Receipt,
    Role,
)
from fedtrain.errors import ContractError, DataError, ExchangeError, TryAgain
from fedtrain.globalmodel import Base, check_schema, opened
from fedtrain.log import say
from fedtrain.manifest import Manifest
from fedtrain.memory import Kept, Memory, Saving
from fedtrain.schema import TensorSpec
from fedtrain.sharedfile import SharedPublication, SharedWriter
from fedtrain.state import State
from fedtrain.weights import Array, Weights, runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What a script says about its round. seconds: from entering the body to `submit`.

    steps, learning_rate, norm: how far it went, see `fedtrain.length`; None where nobody asks.
    """

    samples: int
    steps: int = 0
    learning_rate: float | None = None
    norm: float | None = None
    seconds: float = 0.0
    metrics: Mapping[str, float]

    @property
    def length(self) -> float:
        """η ‖a‖₁."""
        assert self.learning_rate is not None, "counted"
        assert self.norm is not None, "counted"
        return self.learning_rate * self.norm


UNMOVED = (
    "nothing in the model changed since the round began; train the very module, or change the very "
    "arrays, that were given to rounds(...)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """One task's view of the exchange; `root` is the training's folder.

    ranks: those that load and publish together; by themselves if the model is not sharded.
    """

    root: Path
    task: ParticipantTask
    ranks: Ranks = field(default_factory=Alone)

    @property
    def output(self) -> Path:
        return self.root / self.task.output

    def published(self) -> str | None:
        """The receipt of this attempt, if it has one already: that is the result then.

        Raises ExchangeError (ExchangeUnreadable) if there is no telling.
        """
        name = MANIFEST_FILE if self.task.role is Role.INIT else RECEIPT_FILE
        return publication.readable(self.output, name)

    def load(self, weights: Weights) -> None:
        """Fill the model with the task's global model.

        Raises ContractError (SchemaMismatch) if it is not the model that the federation trains,
        and TryAgain (BaseDigestMismatch, BaseUnreadable) if the file is not the one meant.
        """
        with self.base() as base:
            check_schema(base.schema, weights)
            for spec in base.schema.tensors:
                weights.fill(spec.name, base.tiles(spec.name))
            base.verify()

    def publish_untrained(
        self,
        weights: Weights,
        files: Mapping[str, str] | None = None,
        base_model: str | None = None,
    ) -> str:
        """Publish the model as it is as a global model; the manifest that counts.

        files: texts that travel with it. base_model: digest of the frozen base that it goes with.
        Raises ContractError (BadFiles).
        """
        schema, files = weights.schema, self._files(files or {})
        with _told_as_ours(), SharedPublication(self.ranks, self.output, MANIFEST_FILE) as new:
            path, marks = new.path / MODEL_FILE, {"format": "pt"}
            with SharedWriter(self.ranks, path, schema.layout(), marks) as file:
                for spec in schema.tensors:
                    for start, tile in weights.values(spec.name):
                        file.write(spec.name, start, _finite(spec, tile))
                digest = file.digest()
            manifest = Manifest(
                training=self.task.uid,
                round=self.task.round,
                n=self.task.attempt,
                base=None,
                digest=digest,
                size=file.size,
                files=modeltexts.digests(files),
                base_model=base_model,
            )
            return new.commit(manifest.to_json(), {SCHEMA_FILE: schema.to_json(), **files})

    def manifest(self) -> Manifest | None:
        """Of the task's global model; None of a model from elsewhere.

        Raises ExchangeError (ExchangeUnreadable), TryAgain (BaseUnreadable).
        """
        text = publication.readable(self.root / self._model.path, MANIFEST_FILE)
        try:
            return None if text is None else Manifest.from_json(text)
        except ValueError as error:
            raise TryAgain("BaseUnreadable", f"{self._model.path}: {error}") from error

    def check_base_model(self) -> str | None:
        """The digest of the frozen base model, if there is one. Raises DataError unless it is what
        the federation has (BaseModelMismatch), and what `manifest` raises."""
        manifest = self.manifest() if self.task.model is not None else None
        return basemodel.check(self.task.base, manifest.base_model if manifest else None)

    def memory(self) -> Memory:
        """What this participant keeps, as its last accepted update left it.

        Raises ExchangeError (ExchangeUnreadable), TryAgain (BaseUnreadable).
        """
        manifest = self.manifest()
        if manifest is None:  # a model from elsewhere, into which nobody's update was folded
            return Memory.of(self.task, None)
        return Memory.of(self.task, manifest.last_accepted.get(self.task.participant))

    def publish_update(
        self,
        weights: Weights,
        submission: Submission,
        state: State | None = None,
        kept: Sequence[Kept] = (),
    ) -> str:
        """Save the state and what is kept with it, then publish local minus global.

        Integers travel as they are.

        The answer is the receipt that counts. Raises DataError (NotFinite) naming the tensor,
        ExchangeError if there is no room, TryAgain if the state cannot be saved.
        """
        codec = self._codec()
        feedback = codec is not None and codec.feedback
        moved = False
        with (
            _told_as_ours(),
            SharedPublication(self.ranks, self.output) as new,
            self.base() as base,
            Saving(self.memory(), base.schema, feedback=feedback, ranks=self.ranks) as saving,
        ):
            layout = codecs.update_schema(base.schema, codec).layout()
            with SharedWriter(self.ranks, new.path / UPDATE_FILE, layout) as file:
                for spec in base.schema.tensors:
                    if spec.kind == "frozen":
                        check_frozen(spec.name, weights.deltas(spec.name, base.tiles(spec.name)))
                        continue
                    own = codec if spec.kind == "parameter" else None
                    unit = own.unit if own else None
                    if spec.kind == "integer":
                        changed = weights.values(spec.name)
                    else:
                        changed = weights.deltas(spec.name, base.tiles(spec.name), unit or 1)
                    for start, tile in runs(changed, unit):
                        moved = moved or (spec.kind != "integer" and bool(tile.any()))
                        if own is None:
                            file.write(spec.name, start, _finite(spec, tile))
                        else:
                            _write_encoded(file, own, saving, spec, start, tile)
                digest = file.digest()
            base.verify()
            if not any(self.ranks.gather(moved)) and self.ranks.rank == 0:
                # Legal, but nearly always a script that trained a copy.
                say(UNMOVED)
            receipt = self._receipt(submission, digest, file.size)
            if codec is not None:
                receipt = replace(receipt, codec=codec.document)
            saving.commit(state if state is not None else State(), kept)
            return new.commit(receipt.to_json())

    def publish_evaluation(self, submission: Submission) -> str:
        """Publish what this participant measured on the task's global model."""
        label = publication.EVALUATION_LABEL
        with _told_as_ours(), publication.Publication(self.output, label=label) as new:
            return new.commit(self._receipt(submission, None, 0).to_json())

    def publish_personalization(self, submission: Submission, before: Mapping[str, float]) -> str:
        """Publish what this participant measured before and after it trained for itself alone."""
        receipt = replace(self._receipt(submission, None, 0), before=before)
        label = publication.PERSONALIZATION_LABEL
        with _told_as_ours(), publication.Publication(self.output, label=label) as new:
            return new.commit(receipt.to_json())

    def _receipt(self, submission: Submission, digest: str | None, size: int) -> Receipt:
        return Receipt(
            training=self.task.uid,
            round=self.task.round,
            participant=self.task.participant,
            attempt=self.task.attempt,
            base=self._model.digest,
            digest=digest,
            size=size,
            samples=submission.samples,
            steps=submission.steps,
            learning_rate=submission.learning_rate,
            norm=submission.norm,
            seconds=round(submission.seconds, 3),
            metrics=submission.metrics,
        )

    @property
    def _model(self) -> ModelRef:
        if self.task.model is None:
            raise ContractError("BadTask", f"a task to {self.task.role} names no global model")
        return self.task.model

    def _codec(self) -> codecs.Codec | None:
        try:
            return codecs.codec(self.task.codec)
        except ValueError as error:
            raise ContractError("BadTask", str(error)) from error

    def base(self) -> Base:
        """The task's global model, opened for reading. Raises TryAgain (BaseUnreadable)."""
        return opened(self.root, self._model, self.ranks, (self.task.adapters or {}).get("rank"))

    def _files(self, files: Mapping[str, str]) -> dict[str, str]:
        """What travels with the model, as it has to be. Raises ContractError (BadFiles)."""
        files = dict(files)
        if CONFIG_FILE in files and (self.task.adapters or {}).get("aggregation") == "Product":
            files[CONFIG_FILE] = unscaled_config(files[CONFIG_FILE])
        try:
            modeltexts.check(files)
        except ValueError as error:
            raise ContractError("BadFiles", f"rounds(model, files=...): {error}") from error
        return files


def _finite(spec: TensorSpec, tile: Array) -> Array:
    if spec.kind != "integer" and not np.isfinite(tile).all():
        raise DataError(
            "NotFinite",
            f"tensor {spec.name!r} holds NaN or infinite values; lower the learning rate, or look "
            "at the data",
        )
    return tile


def _write_encoded(
    file: SharedWriter,
    codec: codecs.Codec,
    saving: Saving,
    spec: TensorSpec,
    start: int,
    deltas: Array,
) -> None:
    """Write a run of a parameter in its parts, and leave what they do not say for the next time."""
    wanted = _finite(spec, saving.with_residual(spec.name, start, deltas))
    parts = codec.encode(wanted)
    # A codec may round the largest numbers to infinity: what is sent is what has to be finite.
    sent = _finite(spec, codecs.widened(codec.decode(parts, wanted.size)))
    for number, (part, values) in enumerate(zip(codec.parts(spec.shape), parts, strict=True)):
        first, _ = codec.part_range(number, start, start + wanted.size)
        file.write(spec.name + part.suffix, first, values)
    if saving.feedback:
        saving.leave(spec.name, start, wanted - sent)


@contextlib.contextmanager
def _told_as_ours() -> Iterator[None]:
    """Turn what the exchange's file system says into errors with a reason."""
    try:
        yield
    except OSError as error:
        sentence = f"publishing: {error}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise ExchangeError("ExchangeFull", sentence) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise ExchangeError("ExchangeNotWritable", sentence) from error
        raise TryAgain("ExchangeFailed", sentence) from error
