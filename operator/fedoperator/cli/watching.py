"""`fedtrain watch NAME`: follow a training on a cluster."""

import argparse
import sys
import time
from typing import Any

import kubernetes
import pydantic
import urllib3.exceptions

from fedoperator import api
from fedoperator.api import round as round_api
from fedoperator.api import training as training_api
from fedoperator.api.round import Record
from fedoperator.api.training import Training
from fedoperator.cli.follow import Follower, problem_of
from fedoperator.cli.server import Server, refused
from fedoperator.local import report, visible
from fedoperator.local.report import Report

_client: Any = kubernetes
"""Parts of it are annotated, and parts are not."""

_STREAM_SECONDS = 60
"""A watch ends by itself and begins anew with a fresh read, so that no lost event is lost long."""
_TIMEOUT = (10, _STREAM_SECONDS + 30)
_LONGEST_PAUSE = 30.0


class Gone(Exception):
    """There is no such training."""


def run(options: argparse.Namespace) -> int:
    """The exit code: 0 succeeded, 1 failed, gone, or not to be read. Raises Refused."""
    server = Server(options.namespace, options.kubeconfig, options.context)
    telling = report.make(quiet=False, clock=True)
    try:
        return Watching(options.name, server, telling).run(wait=options.until_done)
    except Gone as gone:
        sentence = str(gone)
    except pydantic.ValidationError as error:
        sentence = f"{options.name}: {problem_of(error)}"
    except (_client.client.ApiException, urllib3.exceptions.HTTPError, OSError) as error:
        sentence = str(refused(error))
    finally:
        telling.close()
    print(visible.line(sentence), file=sys.stderr)
    return 1


class Watching:
    """One training by name, through lost connections and expired watches."""

    def __init__(self, name: str, server: Server, telling: Report) -> None:
        self._name = name
        self._namespace = server.namespace
        self._report = telling
        self._objects = _client.client.CustomObjectsApi(server.client)
        self._follower = Follower(telling, self._record)
        self._seen = False

    def run(self, *, wait: bool) -> int:
        """Until the training is over. wait: for one that does not exist yet, too.

        The first look raises what goes wrong; later ones try again until it goes well.
        """
        pause = 0.0
        while True:
            try:
                code = self._look_and_stream(wait and not self._seen)
            except (_client.client.ApiException, urllib3.exceptions.HTTPError, OSError) as error:
                passing = getattr(error, "status", None) in (None, 0, 410, 429, 500, 502, 503, 504)
                if not self._seen or not passing:
                    raise
                if not pause:
                    self._report.complain("the connection to the API server is lost; tries again")
                pause = min(max(pause * 2, 1.0), _LONGEST_PAUSE)
                time.sleep(pause)
                continue
            if code is not None:
                return code
            pause = 0.0

    def _look_and_stream(self, wait: bool) -> int | None:
        document = self._get(training_api.PLURAL, self._name)
        if document is None:
            if wait:
                time.sleep(1.0)
                return None
            who = f"FederatedTraining {self._name}"
            if self._seen:
                raise Gone(f"{who} was deleted in namespace {self._namespace}")
            remedy = "name another namespace with -n, or wait for it with --until-done"
            raise Gone(f"{who} does not exist in namespace {self._namespace}; {remedy}")
        self._seen = True
        code = self._follower.look(Training.from_object(document))
        if code is not None:
            return code
        stream = _client.watch.Watch().stream(
            self._objects.list_namespaced_custom_object,
            api.GROUP,
            api.VERSION,
            self._namespace,
            training_api.PLURAL,
            field_selector=f"metadata.name={self._name}",
            resource_version=document["metadata"]["resourceVersion"],
            timeout_seconds=_STREAM_SECONDS,
            _request_timeout=_TIMEOUT,
        )
        for event in stream:
            if event["type"] == "DELETED":
                return None  # looked at again, and said
            if event["type"] in ("ADDED", "MODIFIED"):
                code = self._follower.look(Training.from_object(event["object"]))
                if code is not None:
                    return code
        return None

    def _record(self, name: str) -> Record | None:
        document = self._get(round_api.PLURAL, name)
        return None if document is None else Record.from_object(document)

    def _get(self, plural: str, name: str) -> dict[str, Any] | None:
        try:
            document: dict[str, Any] = self._objects.get_namespaced_custom_object(
                api.GROUP, api.VERSION, self._namespace, plural, name, _request_timeout=_TIMEOUT
            )
        except _client.client.ApiException as error:
            if error.status == 404:
                return None
            raise
        return document
