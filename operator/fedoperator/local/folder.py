"""What `fedtrain run --out DIR` keeps in DIR, so that it can be interrupted and goes on.

training.yaml               the training as applied: uid, generation, spec
status.yaml                 its status; globalModel.path is relative to exchange/
rounds/<name>.yaml          the FederatedRounds
exchange/                   the root of the exchange's claim
scratch/<participant>/      what a participant keeps between rounds
children/<workload>/        child.json, and the nodes' termination messages
logs/<workload>.log         what the processes wrote
"""

import contextlib
import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pydantic
import yaml

from fedoperator.api import API_VERSION
from fedoperator.api import round as round_api
from fedoperator.api import training as training_api
from fedoperator.api.round import Record
from fedoperator.api.status import TrainingStatus
from fedoperator.api.training import Training

NAMESPACE = "local"
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Refused(Exception):
    """`fedtrain run` cannot start or go on; one sentence, or lines, for whoever typed it."""


@dataclass(frozen=True, slots=True)
class Folder:
    """DIR, by absolute path."""

    root: Path

    @property
    def exchange(self) -> Path:
        return self.root / "exchange"

    @property
    def children(self) -> Path:
        return self.root / "children"

    def scratch(self, participant: str) -> Path:
        return self.root / "scratch" / participant

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def rounds(self) -> Path:
        return self.root / "rounds"

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Make the folders and keep every other run out. Raises Refused."""
        try:
            for folder in (self.exchange, self.children, self.logs, self.rounds):
                folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise Refused(f"--out {self.root}: {error.strerror}: {error.filename}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            sentence = f"another `fedtrain run` works in {self.root}; wait for it, or stop it"
            raise Refused(sentence) from error
        try:
            yield
        finally:
            os.close(lock)

    def read(self) -> Training | None:
        """The training that was run here, or None in a new folder. Raises Refused."""
        document = self._load(self.root / "training.yaml")
        if document is None:
            return None
        status = self._load(self.root / "status.yaml")
        with self._told("training.yaml"):
            return Training.from_object({**document, "status": status})

    def write_training(self, training: Training) -> None:
        document = {
            "apiVersion": API_VERSION,
            "kind": training_api.KIND,
            "metadata": {
                "name": training.name,
                "namespace": training.namespace,
                "uid": training.uid,
                "generation": training.generation,
            },
            "spec": training.spec.to_dict(),
        }
        write(self.root / "training.yaml", dump(document))

    def write_status(self, status: TrainingStatus) -> None:
        write(self.root / "status.yaml", dump(status.to_dict()))

    def read_record(self, name: str) -> Record | None:
        document = self._load(self.rounds / f"{name}.yaml")
        if document is None:
            return None
        with self._told(f"rounds/{name}.yaml"):
            return Record.from_object(document)

    def write_record(self, record: Record, training: Training) -> Record:
        """Write it; gives it back as the API server would, with its next version."""
        version = str(int(record.resource_version or 0) + 1)
        written = record.model_copy(
            update={"uid": record.uid or record.name, "resource_version": version}
        )
        document = {
            "apiVersion": API_VERSION,
            "kind": round_api.KIND,
            "metadata": {
                "name": written.name,
                "namespace": training.namespace,
                "uid": written.uid,
                "resourceVersion": version,
            },
            "spec": written.spec.to_dict(),
            "status": written.status.to_dict(),
        }
        write(self.rounds / f"{record.name}.yaml", dump(document))
        return written

    def forget_records(self, names: Set[str]) -> None:
        for path in self.rounds.glob("*.yaml"):
            if path.stem in names:
                path.unlink()

    def remove_child(self, name: str) -> None:
        shutil.rmtree(self.children / name, ignore_errors=True)

    def _load(self, path: Path) -> Any:
        try:
            with opened(path) as file:
                text = file.read().decode()
            return yaml.load(text, Loader=_Loader)  # noqa: S506 - the safe one, in C
        except FileNotFoundError:
            return None
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise Refused(f"{path} cannot be read: {error}; use another --out") from error

    @contextlib.contextmanager
    def _told(self, name: str) -> Iterator[None]:
        try:
            yield
        except (pydantic.ValidationError, KeyError, TypeError) as error:
            sentence = f"{self.root / name} is not as this version writes it; use another --out"
            raise Refused(f"{sentence} ({error})") from error


def opened(path: Path) -> BinaryIO:
    """To read; a pipe that somebody put there would be waited for without end. Raises OSError."""
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return file


def dump(document: Any) -> str:
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


def write(path: Path, text: str) -> None:
    """Replace the file as a whole: a reader, and a run killed at any point, sees old or new."""
    unfinished = path.with_name(f".{path.name}.tmp")
    unfinished.write_text(text)
    unfinished.replace(path)
