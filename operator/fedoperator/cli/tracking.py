"""`fedtrain track NAME`: bring trackers up to date with one training, once or until it is over."""

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pydantic

from fedoperator.api import round as round_api
from fedoperator.api.round import Record, record_name
from fedoperator.api.training import Training
from fedoperator.cli import source
from fedoperator.cli.follow import problem_of
from fedoperator.local.folder import Refused
from fedoperator.tracking.mlflow import shown
from fedoperator.tracking.patient import Patient, Telling
from fedoperator.tracking.sending import Sink, TrackerRefuses

URI = "MLFLOW_TRACKING_URI"
"""MLflow's own variable."""
POLL = 1.0
"""Seconds between looks."""
LAST = 5.0
"""Seconds that a tracker has to come back once the training is over."""
HINT = "tracking: "
"""How lines begin that say what is wrong; `fedtrain run` tells them as such."""

RecordOf = Callable[[int], Record | None]


def run(options: argparse.Namespace) -> int:
    """The exit code: 0 everything is sent, 1 not. Raises Refused."""
    quiet()
    try:
        return _follow(options)
    except (Refused, TrackerRefuses) as refused:
        raise Refused(f"{HINT}{refused}") from refused


def quiet() -> None:
    """Their clients warn of every try; ours is one sentence."""
    for noisy in ("urllib3", "mlflow"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


def _follow(options: argparse.Namespace) -> int:
    """One training, once or until it is over."""
    found = source.of(
        options.name, options.namespace, kubeconfig=options.kubeconfig, context=options.context
    )
    training = found.training()
    trackers = _trackers(options, training, found)
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    looked: Training | None = None
    done, gives_up = False, float("inf")
    while True:
        last = bool(told) or not options.follow
        if not done or training != looked:
            record_of = records(found, training)
            sent = [tracker.update(training, record_of) for tracker in trackers]
            done = all(sent)
            looked = training
        if training.status.terminal:
            gives_up = min(gives_up, time.monotonic() + LAST)
        if last or (training.status.terminal and (done or time.monotonic() > gives_up)):
            break
        time.sleep(POLL)
        training = found.training()
    if not done:
        given = {"mlflow": options.mlflow, "tensorboard": options.tensorboard}
        words = [f"fedtrain track {options.name}"]
        words += [f"--{name} {shown(str(value))}" for name, value in given.items() if value]
        TOLD.complain(f"not everything was sent; `{' '.join(words)}` sends the rest")
    return 0 if done else 1


def _trackers(
    options: argparse.Namespace, training: Training, found: source.Source
) -> list[Patient]:
    """Those that are named here, else those that the training asks for."""
    below = isinstance(found, source.OnCluster)
    uri, logdir, experiment = options.mlflow, options.tensorboard, options.experiment
    missing = []
    if uri is None and logdir is None:
        asked = training.spec.tracking
        if asked is None:
            raise Refused("say where to: --mlflow URI, --tensorboard DIR, or spec.tracking")
        if asked.mlflow is not None:
            uri = os.environ.get(URI)
            missing += [] if uri else [f"spec.tracking.mlflow: no server is named; set {URI}"]
        if asked.tensorboard is not None and isinstance(found, source.InFolder):
            logdir = found.folder.root / "tensorboard"
        elif asked.tensorboard is not None:
            missing.append("spec.tracking.tensorboard: no folder is named; add --tensorboard DIR")
    made: list[tuple[str, Sink]] = []
    try:
        if uri:
            made.append(mlflow(uri, below=below, experiment=experiment))
    except TrackerRefuses as refused:
        missing.append(str(refused))
    try:
        if logdir:
            made.append(tensorboard(logdir, below=below))
    except TrackerRefuses as refused:
        missing.append(str(refused))
    for sentence in missing if made else []:
        TOLD.complain(sentence)
    if not made:
        raise Refused("; ".join(missing))
    return [Patient(name, sink, TOLD) for name, sink in made]


def mlflow(uri: str, *, below: bool, experiment: str | None = None) -> tuple[str, Sink]:
    """Raises TrackerRefuses."""
    from fedoperator.tracking.mlflow import Mlflow

    return "MLflow", Mlflow(uri, below=below, experiment=experiment)


def tensorboard(logdir: Path, *, below: bool) -> tuple[str, Sink]:
    """Raises TrackerRefuses."""
    from fedoperator.tracking.tensorboard import TensorBoard

    return "TensorBoard", TensorBoard(logdir, below=below)


def records(found: source.Source, training: Training) -> RecordOf:
    """Its FederatedRounds, one at a time: a thousand participants make a large one."""

    def record(number: int) -> Record | None:
        name = record_name(training.name, number)
        if isinstance(found, source.InFolder):
            return found.folder.read_record(name)
        assert isinstance(found, source.OnCluster)
        try:
            return owned(found.server.get(round_api.PLURAL, name), training)
        except pydantic.ValidationError as error:
            raise Refused(f"{name}: {problem_of(error)}") from error

    return record


def owned(document: source.Document | None, training: Training) -> Record | None:
    """The record, unless it is that of another training of this name, which is gone."""
    if document is None or not source.is_of(document, training.uid):
        return None
    return Record.from_object(document)


TOLD = Telling(
    say=lambda line: print(line, flush=True),
    complain=lambda line: print(f"{HINT}{line}", file=sys.stderr, flush=True),
)
