"""A round of honest and mutated participants, and the laws that hold whatever they sent."""

import contextlib
import dataclasses
import io
import json
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from fedtrain import strategies
from fedtrain.contract import RECEIPT_FILE, UPDATE_FILE, AggregateTask, Message
from tests.aggregation.conftest import UID, Federation
from tests.aggregation.fuzz.mutations import mutate
from tests.aggregation.hostile import naive
from tests.aggregation.hostile.codecs import BFLOAT16, INT8, TOPK
from tests.aggregation.hostile.naive_decoding import Document, Layout, carriers, decoded
from tests.aggregation.hostile.rounds import (
    STRATEGIES,
    a_round,
    an_update,
    published,
    published_by,
)

CODECS = (BFLOAT16, INT8, TOPK)
MUTANTS = 16
SECONDS = 20.0
"""For one aggregation of a batch, which takes a fraction of one."""

RECEIPT_LIMIT = 256 * 1024
HEADER_LIMIT = 1024 * 1024
"""Between the longest header that a mutation makes of a sound one and the shortest of a flood."""

FIELDS = {"version", "training", "round", "participant", "attempt", "base", "digest", "size"}
OPTIONAL = {"version", "steps", "learning_rate", "norm", "seconds", "metrics", "codec", "before"}
FIELDS |= {"samples", *OPTIONAL}
NEEDED = FIELDS - OPTIONAL


class Broken(AssertionError):
    """A law did not hold."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Number `number` of the batches of a seed; the same two always make the same."""

    seed: int
    number: int

    def run(self, root: Path) -> Counter[str]:
        """How many met which verdict. Raises Broken, or whatever escapes from the aggregator."""
        rng = Random(f"{self.seed}-{self.number}")
        codec = rng.choice((None, None, *CODECS))
        federation = a_round(root, codec)
        names = [f"{rng.choice('abhmz')}-{k}" for k in range(MUTANTS)]
        for k, name in enumerate(names):
            samples = rng.randrange(1, 10**6)
            mutate(published_by(federation, name, an_update(1000 + k), samples, codec), rng)
        strategy = rng.choice(STRATEGIES)
        counts_steps = strategies.STRATEGIES[strategy["name"]].counts_steps
        task = federation.task(
            strategy=strategy,
            norm_bound=None if counts_steps else rng.choice((None, None, 0.5)),
            precision=rng.choice(("Float32", "Float64", "Float64" if counts_steps else "Exact")),
            codec=codec,
        )
        message = aggregated(federation, task, threads=rng.choice((1, 2)))
        verdicts = {name: federation.verdict_on(name, message) for name, _ in task.candidates}
        self._verdicts(federation, verdicts, codec, counts_steps)
        accepted = tuple(pair for pair in task.candidates if verdicts[pair[0]] == "accepted")
        without = dataclasses.replace(task, candidates=accepted, output="global/1/2")
        aggregated(federation, without, threads=1)
        if published(root, 1) != published(root, 2):
            raise Broken(f"{task}: those refused changed the result")
        self._result(federation, task, [name for name, _ in accepted])
        return Counter(verdicts[name] for name in names)

    def _verdicts(
        self,
        federation: Federation,
        verdicts: Mapping[str, str],
        codec: Document | None,
        counts_steps: bool,
    ) -> None:
        """Accepted is who the naive reader finds sound; the others' reasons are words."""
        rejected = {entry.participant: entry for entry in federation.manifest().rejected}
        for name, verdict in verdicts.items():
            try:
                sound(federation, name, codec, counts_steps)
            except naive.Unsound as why:
                if verdict == "accepted":
                    raise Broken(f"{name} was accepted, but {why}") from None
            else:
                if verdict != "accepted":
                    raise Broken(f"{name} is sound, but {verdict}: {rejected[name].sentence}")
            if verdict == "accepted":
                continue
            entry = rejected[name]
            if entry.reason == "InspectionCrashed":
                raise Broken(f"{name} crashed the child that read it: {entry.sentence}")
            words = re.fullmatch(r"[A-Z][A-Za-z]{3,39}", entry.reason)
            if not words or not entry.sentence.strip() or len(entry.sentence) > 300:
                raise Broken(f"{name} is refused in these words: {entry}")

    def _result(self, federation: Federation, task: AggregateTask, accepted: list[str]) -> None:
        """Finite, and for FedAvg what a loop over fp64 arrays says."""
        result = federation.result()
        for name, array in result.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise Broken(f"{name} of the next model is not finite")
        if task.strategy["name"] != "FedAvg" or task.norm_bound is not None:
            return
        updates = [sound(federation, name, task.codec) for name in accepted]
        weights = np.array([samples for samples, _ in updates], np.float64)
        weights /= weights.sum()
        for name, array in result.items():
            if array.dtype.kind != "f":
                continue
            deltas = np.array([naive.wide(values[name]) for _, values in updates])
            base = naive.wide(federation.model[name].reshape(-1))
            error = np.abs(naive.wide(array.reshape(-1)) - (base + weights @ deltas))
            bound = 1e-6 * (weights @ np.abs(deltas) + np.abs(base) + 1e-30)
            if task.precision == "Exact":  # one scale for a tensor, from its largest value
                bound += len(deltas) * np.abs(deltas).max(initial=0.0) * 2.0**-61
            if np.any(error > bound):
                raise Broken(f"{name} is not the weighted mean")


def aggregated(federation: Federation, task: AggregateTask, threads: int) -> Message:
    from fedtrain.aggregation import engine

    began = time.monotonic()
    with contextlib.redirect_stdout(io.StringIO()):
        message = engine.aggregate(task, federation.root, threads)
    if time.monotonic() - began > SECONDS:
        raise Broken(f"an aggregation took {time.monotonic() - began:.1f} s")
    return message


def sound(
    federation: Federation, name: str, codec: Document | None, counts_steps: bool = False
) -> tuple[int, dict[str, np.ndarray]]:
    """The samples and values of an update that has to count. Raises Unsound for any other."""
    folder = federation.folder_of(name)
    text = naive.regular(folder / RECEIPT_FILE)
    if len(text) > RECEIPT_LIMIT:
        raise naive.Unsound("a flood of a receipt")
    said = naive.parse(text)
    if type(said) is not dict or not NEEDED <= set(said) <= FIELDS:
        raise naive.Unsound("the receipt has other fields")
    _believe(said, federation, name, codec)
    _count(said, counts_steps)
    data = naive.regular(folder / UPDATE_FILE)
    if len(data) != said["size"] or int.from_bytes(data[:8], "little") > HEADER_LIMIT:
        raise naive.Unsound("not the size that was promised")
    found = naive.tensors(data)
    schema = json.loads((federation.root / "global/0/1/schema.json").read_text())["tensors"]
    values = _values(found, schema, codec)
    if naive.digest(found) != said["digest"]:
        raise naive.Unsound("another digest")
    return said["samples"], values


def _values(
    found: naive.Tensors, schema: list[Any], codec: Document | None
) -> dict[str, np.ndarray]:
    layout: Layout = {}
    encodings = {}
    for entry in schema:
        name, shape = entry["name"], tuple(entry["shape"])
        encodings[name] = shape, codec if entry["kind"] == "parameter" else None
        own = {name: (entry["dtype"], shape)}
        layout |= carriers(name, *encodings[name]) if entry["kind"] == "parameter" else own
    if layout != {name: (dtype, shape) for name, (dtype, shape, _) in found.items()}:
        raise naive.Unsound("another model")
    values = {name: decoded(found, name, *encoding) for name, encoding in encodings.items()}
    for array in values.values():
        if array.dtype.kind == "f":
            naive.refuse_unless_finite(array)
    return values


def _believe(
    said: dict[str, Any], federation: Federation, name: str, codec: Document | None
) -> None:
    expected = {"training": UID, "round": 1, "participant": name, "attempt": 1}
    expected |= {"base": federation.digest, "version": 1}
    if said.get("codec") != codec:
        raise naive.Unsound("encoded in another way")
    for field, value in expected.items():
        if field in said and (said[field] != value or type(said[field]) is not type(value)):
            raise naive.Unsound(f"its {field} is {said[field]!r:.80}")
    if type(said["samples"]) is not int or not 0 < said["samples"] <= 2**53:
        raise naive.Unsound(f"its samples are {said['samples']!r:.80}")
    if type(said["size"]) is not int:
        raise naive.Unsound("its size is no number")


def _count(said: dict[str, Any], counts_steps: bool) -> None:
    """Steps, learning rate and norm; counts_steps: the strategy cannot do without."""
    steps, rate, norm = said.get("steps", 0), said.get("learning_rate"), said.get("norm")
    if type(steps) is not int or not 0 <= steps <= 2**53:
        raise naive.Unsound("its steps are no number")
    for number in (rate, norm):
        if number is not None and (type(number) not in (int, float) or not 0 < number < 1e12):
            raise naive.Unsound("its learning rate or its norm is none")
    if not counts_steps:
        return
    if rate is None or norm is None or steps == 0:
        raise naive.Unsound("nobody knows how far it went")
    if norm > 1000 * steps or not 1e-9 <= rate * norm <= 1e9:
        raise naive.Unsound("it did not go that far")
