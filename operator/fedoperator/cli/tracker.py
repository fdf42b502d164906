"""`fedtrain track --all`: the platform's tracker. It reads, and writes nothing to the cluster.

It asks for the metadata of all trainings every few seconds, and reads those that are new: rounds
are kept in their records, so that nothing is lost between two looks, nor while it is not there.
"""

import argparse
import functools
import logging
import os
import signal
import sys
import time
from dataclasses import replace
from typing import Any

import pydantic

from fedoperator.api import round as round_api
from fedoperator.api import training as training_api
from fedoperator.api.round import Record, record_name
from fedoperator.api.training import Training
from fedoperator.cli import server, tracking
from fedoperator.cli.follow import problem_of
from fedoperator.cluster import logs
from fedoperator.local.folder import Refused
from fedoperator.tracking import figures
from fedoperator.tracking.figures import Run
from fedoperator.tracking.patient import Patient, Telling
from fedoperator.tracking.sending import TrackerRefuses

POLL = 10.0
_KEPT = ("uid", "resourceVersion", "generation")
"""Of a training's metadata; its owner may give each a megabyte."""
Key = tuple[str, str]

log = logging.getLogger("fedoperator.tracker")
TOLD = Telling(say=log.info, complain=log.warning)


def run(options: argparse.Namespace) -> int:
    """Until SIGTERM. Raises Refused for what is wrong from the start."""
    logs.configure("INFO")
    tracking.quiet()
    uri, logdir = options.mlflow or os.environ.get(tracking.URI), options.tensorboard
    trackers = {}
    try:
        if uri:
            trackers["mlflow"] = Patient(*tracking.mlflow(uri, below=True), TOLD)
        if logdir is not None:
            trackers["tensorboard"] = Patient(*tracking.tensorboard(logdir, below=True), TOLD)
    except TrackerRefuses as refused:
        raise Refused(str(refused)) from refused
    if not trackers:
        raise Refused(f"say where to: --mlflow URI (or {tracking.URI}), --tensorboard DIR")
    asked = server.Server(options.namespace, options.kubeconfig, options.context)
    platform = Platform(asked, everywhere=options.all_namespaces, trackers=trackers)
    signal.signal(signal.SIGTERM, _stop)
    log.info("tracks", extra={"trackers": ",".join(trackers), "namespace": platform.where})
    while True:
        platform.look()
        time.sleep(POLL)


def _stop(*_: object) -> None:
    """At once: what is half sent is completed by the next one."""
    sys.exit(0)


class Platform:
    """All trainings of a namespace, or of a cluster."""

    def __init__(
        self, asked: server.Server, *, everywhere: bool, trackers: dict[str, Patient]
    ) -> None:
        self._server = asked
        self._trackers = trackers
        self.where = "" if everywhere else asked.namespace
        self._settled: dict[Key, tuple[str, str]] = {}
        """By training, the uid and resourceVersion of which everything is sent."""
        self._silent: dict[Key, tuple[str, int]] = {}
        """Those that ask for no tracker, by uid and generation: their status is no news."""
        self._runs: dict[Key, dict[str, Run]] = {}
        """What is being sent, by training and tracker."""
        self._lacking: dict[Key, set[str]] = {}
        """Trackers that are not set up here and were asked for: said once of each training."""
        self._lost = False

    def look(self) -> None:
        """One look at all of them. It raises nothing that passes."""
        try:
            listed = self._listed()
            for key, meta in sorted(listed.items()):
                try:
                    self._see(key, meta)
                except Refused:
                    raise
                except Exception as error:  # of this one alone: the others are seen to
                    log.warning("%s/%s is not tracked: %s", *key, _told(error))
                    self._settled[key] = (meta["uid"], meta["resourceVersion"])
            for key in self._runs.keys() - listed.keys():
                self._leave(key, {})
            for known in (self._settled, self._silent, self._lacking):
                for key in known.keys() - listed.keys():
                    del known[key]
        except Refused as refused:
            if not self._lost:
                log.warning("%s; tries again", refused)
            self._lost = True
            return
        self._lost = False

    def _see(self, key: Key, meta: dict[str, Any]) -> None:
        seen = (meta["uid"], meta["resourceVersion"])
        spoken = (meta["uid"], meta.get("generation", 1))
        if self._settled.get(key) == seen or self._silent.get(key) == spoken:
            return
        namespace, name = key
        document = self._server.read(f"{server.GROUP}/namespaces/{namespace}/{_PLURAL}/{name}")
        if document is None:
            return  # gone since; the next list says so
        training = Training.from_object(document)
        asked = training.spec.tracking
        wanted = [kind for kind in ("mlflow", "tensorboard") if getattr(asked, kind, None)]
        wanted = [] if training.deleting and not training.status.terminal else wanted
        # What ends it needs no more; of a thousand trainings the rest would be a lot.
        run = replace(figures.run(training), params={}, tags={})
        self._leave(key, {kind: run for kind in wanted if kind in self._trackers})
        if not wanted:
            self._silent[key] = spoken
            return
        done = True
        for kind in wanted:
            if kind not in self._trackers:
                self._lacks(key, kind)
                continue
            done &= self._trackers[kind].update(training, functools.partial(self._record, training))
        if done:
            self._settled[key] = seen

    def _leave(self, key: Key, now: dict[str, Run]) -> None:
        """End the runs of which no more will be sent: gone, asked for no more, or elsewhere."""
        for kind, before in list(self._runs.get(key, {}).items()):
            after = now.get(kind)
            same = after is not None and (after.uid, after.experiment) == (
                before.uid,
                before.experiment,
            )
            if same:
                continue
            if before.state != "Running":
                self._trackers[kind].forget(before.uid)
            elif not self._trackers[kind].abandon(before):
                now.setdefault(kind, before)  # and again at the next look
        if now:
            self._runs[key] = now
        else:
            self._runs.pop(key, None)

    def _lacks(self, key: Key, kind: str) -> None:
        told = self._lacking.setdefault(key, set())
        if kind not in told:
            told.add(kind)
            log.warning("%s/%s asks for %s, which is not set up here", *key, kind)

    def _record(self, training: Training, number: int) -> Record | None:
        name = record_name(training.name, number)
        path = f"{server.GROUP}/namespaces/{training.namespace}/{round_api.PLURAL}/{name}"
        return tracking.owned(self._server.read(path), training)

    def _listed(self) -> dict[Key, dict[str, Any]]:
        """The metadata, and no more, of all trainings. Raises Refused."""
        below = f"/namespaces/{self.where}" if self.where else ""
        found = self._server.metadata(f"{server.GROUP}{below}/{_PLURAL}")
        return {
            (meta["namespace"], meta["name"]): {n: meta[n] for n in _KEPT if n in meta}
            for meta in found
        }


def _told(error: Exception) -> str:
    if isinstance(error, pydantic.ValidationError):
        return problem_of(error)
    return f"{type(error).__name__}: {error}"


_PLURAL = training_api.PLURAL
