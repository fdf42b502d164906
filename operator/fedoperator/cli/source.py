"""A training and its rounds, wherever they are: the folder of a run, or a cluster.

Every command that takes a NAME reads it here.
"""

import abc
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic

from fedoperator.api import round as round_api
from fedoperator.api import training as training_api
from fedoperator.api.round import Record
from fedoperator.api.training import Training
from fedoperator.cli.follow import problem_of
from fedoperator.local.folder import Folder, Refused
from fedoperator.rounds import observed

if TYPE_CHECKING:
    from fedoperator.cli.server import Server

Document = dict[str, Any]
_QUALIFIED = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z]([-a-z0-9]*[a-z0-9])?")


class Source(abc.ABC):
    """One training that exists. Raises Refused, one sentence, wherever it cannot be read."""

    @property
    @abc.abstractmethod
    def where(self) -> str:
        """In words: `in namespace default`, `in runs/digits`."""

    @abc.abstractmethod
    def training(self) -> Training:
        """As it stands: identity, spec, status."""

    @abc.abstractmethod
    def records(self) -> list[Record]:
        """The FederatedRounds there are, in the order of their rounds; the first is round 0."""

    @abc.abstractmethod
    def events(self) -> list[Document]:
        """The Kubernetes events about it, the oldest first; a folder has none."""


@dataclass(frozen=True, slots=True)
class InFolder(Source):
    """What `fedtrain run --out` has left in a folder. given: as the user wrote it."""

    folder: Folder
    given: str

    @property
    def where(self) -> str:
        return f"in {self.given}"

    def training(self) -> Training:
        found = self.folder.read()
        if found is None:
            raise Refused(f"{self.given} holds no training; name the --out of a fedtrain run")
        return found

    def records(self) -> list[Record]:
        names = (path.stem for path in self.folder.rounds.glob("*.yaml"))
        found = (self.folder.read_record(name) for name in names)
        return sorted((r for r in found if r is not None), key=lambda record: record.spec.round)

    def events(self) -> list[Document]:
        return []


@dataclass(frozen=True, slots=True)
class OnCluster(Source):
    """The training of this name in the server's namespace."""

    server: "Server" = field(repr=False)
    name: str

    @property
    def where(self) -> str:
        return f"in namespace {self.server.namespace}"

    def training(self) -> Training:
        try:
            return Training.from_object(self.document())
        except pydantic.ValidationError as error:
            raise Refused(f"{self.name}: {problem_of(error)}") from error

    def document(self) -> Document:
        """As the API server has it."""
        found = self.server.get(training_api.PLURAL, self.name)
        if found is None:
            who = f"FederatedTraining {self.name} does not exist {self.where}"
            raise Refused(f"{who}; name another namespace with -n, or the --out of a fedtrain run")
        return found

    def records(self) -> list[Record]:
        uid = self.document()["metadata"]["uid"]
        selector = f"{observed.TRAINING_LABEL}={self.name}"
        found = self.server.list(self.server.ours(round_api.PLURAL), labelSelector=selector)
        try:
            records = [Record.from_object(document) for document in found if is_of(document, uid)]
        except pydantic.ValidationError as error:
            raise Refused(f"the rounds of {self.name}: {problem_of(error)}") from error
        return sorted(records, key=lambda record: record.spec.round)

    def events(self) -> list[Document]:
        selector = f"involvedObject.kind={training_api.KIND},involvedObject.name={self.name}"
        found = self.server.list(self.server.core("events"), fieldSelector=selector)
        return sorted(found, key=lambda event: event.get("lastTimestamp") or "")


def is_of(document: Document, uid: str) -> bool:
    """Whether a record is of that training, and not of one of its name before, which is gone."""
    return any(o["uid"] == uid for o in document["metadata"].get("ownerReferences") or [])


def of(
    name: str,
    namespace: str | None = None,
    *,
    kubeconfig: str | Path | None = None,
    context: str | None = None,
) -> Source:
    """The training that NAME means: a folder that holds one, else a name, or NAMESPACE/NAME, on the
    cluster. Nothing is read of it yet. Raises Refused if there is no cluster to ask, either.
    """
    if is_folder(name):
        return InFolder(Folder(Path(name).resolve()), name)
    if "/" in name:
        if not _QUALIFIED.fullmatch(name):
            raise Refused(f"{name} holds no training; name the --out of a fedtrain run")
        namespace, name = name.split("/")
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name):
        what = "is neither the name of a training nor a folder that holds one"
        raise Refused(
            f"{name!r} {what}; name the --out of a fedtrain run, or NAME or NAMESPACE/NAME"
        )
    from fedoperator.cli.server import Server

    remedy = "set KUBECONFIG, or name the --out of a fedtrain run"
    return OnCluster(Server(namespace, kubeconfig, context, remedy=remedy), name)


def is_folder(name: str) -> bool:
    """Whether it is that of a `fedtrain run --out`."""
    try:
        return Path(name, "training.yaml").is_file()
    except (OSError, ValueError):  # no name that a file could have
        return False
